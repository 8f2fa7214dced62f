"""Full-size SDXL on a CUDA GPU: steps a second, peak memory and the share of the arithmetic floor of each option.

    python -m benchmarks.gpu [--rate 790] [--pixels 512 1024] [--script train_text_to_image_lora_sdxl.py]

Weights are random, so nothing is downloaded. Needs a CUDA GPU; `--device cpu --small` runs the same code on a tiny
U-Net, only to see that it runs: its figures mean nothing. `--rate` is the GPU's own dense bf16 rate in TFLOP/s, for
the floor (an H200 reaches about 790, an A100 312). With `--script` the diffusers script trains at the same size on a
saved random base (7 GB of disk), pictures included.
"""

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sdxl_nb.architectures import UNET

from .architectures import SIZES


@dataclasses.dataclass(frozen=True)
class Option:
    """One way to train."""

    name: str
    batch: int = 1
    policy: str | None = None
    compiled: bool = False


OPTIONS = (
    Option("all activations kept"),
    Option("selective checkpointing", policy="selective"),
    Option("whole checkpointing", policy="whole"),
    Option("whole checkpointing, batch 4", batch=4, policy="whole"),
    Option("torch_compile", compiled=True),
)


@dataclasses.dataclass(frozen=True)
class Result:
    """Seconds a step, peak memory in GB, TFLOP of a step."""

    seconds: float
    memory: float
    tflop: float


def small_config() -> dict[str, Any]:
    size = SIZES["tiny"]
    changes = {
        "block_out_channels": list(size["widths"]),
        "layers_per_block": 1,
        "transformer_layers_per_block": list(size["depths"]),
        "attention_head_dim": list(size["heads"]),
        "norm_num_groups": size["groups"],
    }
    return UNET | changes


def build(config: dict[str, Any], option: Option, device: torch.device, rank: int) -> Any:
    """The U-Net in bf16 with random weights on the device, attention LoRA, and AdamW on its fp32 masters."""
    from peft import LoraConfig, inject_adapter_in_model

    from sdxl_nb.lora.fast import LoraFast
    from sdxl_nb.lora.layers import ATTENTION
    from sdxl_nb.parameters import FlatParameters
    from sdxl_nb.unet import SdxlUNet

    with torch.device(device):
        unet = SdxlUNet(config).to(torch.bfloat16).requires_grad_(False).train()
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION), unet)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    unet.to(memory_format=torch.channels_last)
    flat = FlatParameters({"unet": unet})
    if option.policy:
        unet.enable_gradient_checkpointing(option.policy)
    if option.compiled:
        unet.compile_repeated_blocks()
    else:
        unet.fast = LoraFast(unet, flat)
    return unet, flat, torch.optim.AdamW([flat.weights], lr=1e-4, fused=True)


def measure(config: dict[str, Any], option: Option, pixels: int, device: torch.device, steps: int, rank: int) -> Result:
    """The median of `steps` steps after three to warm up; FLOPs are counted once, on the first."""
    from torch.utils.flop_counter import FlopCounterMode

    from .operations import inputs

    unet, flat, optimizer = build(config, option, device, rank)
    given, named = inputs(pixels, option.batch, torch.bfloat16, str(device))
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def step() -> None:
        flat.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=option.compiled):
            predicted = unet(*given, **named).sample
        predicted.float().square().mean().backward()
        flat.clip(1.0)
        optimizer.step()

    counting = FlopCounterMode(display=False)
    if option.compiled:
        tflop = float("nan")
    else:
        with counting:
            step()
        tflop = counting.get_total_flops() / 1e12
    for _ in range(3):
        step()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        begun = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - begun)
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan")
    return Result(sorted(seconds)[len(seconds) // 2], memory, tflop)


def table(config: dict[str, Any], pixels: Sequence[int], device: torch.device, given: Any) -> list[str]:
    """Lines of Markdown; the floor of a step is its FLOPs with all activations kept, at the rate given."""
    lines = ["| pixels | option | steps/s | pictures/s | peak GB | share of the floor |", "|---|---|---|---|---|---|"]
    for side in pixels:
        least = None
        for option in OPTIONS:
            if option.compiled and given.small:
                continue
            try:
                found = measure(config, option, side, device, given.steps, given.rank)
            except torch.OutOfMemoryError:
                lines.append(f"| {side} | {option.name} | out of memory | | | |")
                continue
            least = least or found.tflop
            share = least * option.batch / given.rate / found.seconds
            rate = 1 / found.seconds
            figures = f"{rate:.2f} | {rate * option.batch:.2f} | {found.memory:.1f} | {share:.0%}"
            lines.append(f"| {side} | {option.name} | {figures} |")
            print(lines[-1], flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return lines


def reference(script: str, base: Path, pictures: Path, pixels: int, steps: int, rank: int) -> str:
    """A line for the diffusers script at bf16, from the seconds between its logged steps."""
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-gpu-") as place:
        result = Path(place, "result.json")
        flags = [
            f"--pretrained_model_name_or_path={base}",
            f"--train_data_dir={pictures}",
            f"--output_dir={place}/out",
            f"--resolution={pixels}",
            "--train_batch_size=1",
            f"--max_train_steps={steps}",
            f"--rank={rank}",
            "--mixed_precision=bf16",
            "--caption_column=text",
            "--image_column=image",
            "--report_to=tensorboard",
        ]
        command = [sys.executable, "-m", "benchmarks.child", "reference", str(result), script, *flags]
        subprocess.run(command, check=True)
        moments = json.loads(result.read_text())["moments"]
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(moments))
    return f"| {pixels} | diffusers' script, bf16 | {1 / gaps[len(gaps) // 2]:.2f} | | | |"


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rate", type=float, default=790.0, help="the GPU's dense bf16 TFLOP/s")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny U-Net, only to see that this script runs")
    parser.add_argument("--script", help="path of diffusers' train_text_to_image_lora_sdxl.py, unmodified")
    parser.add_argument("--base", type=Path, help="with --script: a full-size SDXL in diffusers format")
    parser.add_argument("--pictures", type=Path, help="with --script: a folder of captioned pictures")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA GPU and this machine has none: run it on one (see BENCHMARKS.md).")
    if given.script and not (given.base and given.pictures):
        sys.exit(
            "--script needs --base, a full-size SDXL in diffusers format, and --pictures, a folder for it to train on"
        )
    lines = table(small_config() if given.small else UNET, given.pixels, device, given)
    for side in given.pixels if given.script else []:
        lines.append(reference(given.script, given.base, given.pictures, side, given.steps, given.rank))
    print("\n" + "\n".join(lines))
    return lines


if __name__ == "__main__":
    main()
