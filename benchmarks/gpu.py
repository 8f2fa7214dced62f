"""Full-size SDXL on a CUDA GPU: steps a second, peak memory and the share of the arithmetic floor of each option.

    python -m benchmarks.gpu [--rate 790] [--pixels 512 1024] [--script train_text_to_image_lora_sdxl.py]

Weights are random, so nothing is downloaded. Needs a CUDA GPU; `--device cpu --small` runs the same code on a tiny
U-Net, only to see that it runs: its figures mean nothing. `--rate` is the GPU's own dense bf16 rate in TFLOP/s, for
the floor (an H200 reaches about 790, an A100 312). A first table is of the U-Net's step alone, one line for each
memory option; torch warns where such a step waits for the GPU. With `--script` a second table is of whole programs,
the diffusers script and sdxl_nb.train, on a saved random base (7 GB of disk) and pictures that are made for it.
"""

import argparse
import dataclasses
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sdxl_nb.models.architectures import UNET

from .architectures import SIZES
from .compare import Work, prepare, run


@dataclasses.dataclass(frozen=True)
class Option:
    """One way to train."""

    name: str
    batch: int = 1
    policy: str | None = None
    compiled: bool = False
    graphed: bool = False


OPTIONS = (
    Option("all activations kept"),
    Option("selective checkpointing", policy="selective"),
    Option("whole checkpointing", policy="whole"),
    Option("whole checkpointing, batch 4", batch=4, policy="whole"),
    Option("torch_compile", compiled=True),
    Option("cuda_graphs", graphed=True),
    Option("cuda_graphs, whole checkpointing", policy="whole", graphed=True),
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
    from sdxl_nb.lora.targets import ATTENTION
    from sdxl_nb.models.unet import SdxlUNet
    from sdxl_nb.training.state.parameters import FlatParameters

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
    """The mean of `steps` steps, launched as the trainer does without waiting, after those that warm up."""
    from torch.utils.flop_counter import FlopCounterMode

    from sdxl_nb.lora.acceleration import rooms
    from sdxl_nb.lora.cuda_graphs import SEEN, Graphs

    from .operations import inputs

    unet, flat, optimizer = build(config, option, device, rank)
    given, named = inputs(pixels, option.batch, torch.bfloat16, str(device))
    cuda = device.type == "cuda"

    def learned(given: Any, named: Any) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=option.compiled):
            predicted = unet(*given, **named).sample
        loss = predicted.float().square().mean()
        loss.backward()
        return loss.detach()

    launched = Graphs(learned, flat.gradient, partial(rooms, unet)) if option.graphed else learned

    def step() -> None:
        flat.zero_grad()
        launched(given, named)
        flat.clip(1.0)
        optimizer.step()

    def take(many: int) -> float:
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
        begun = time.perf_counter()
        for _ in range(many):
            step()
        if cuda:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / many

    tflop = float("nan")
    if not option.compiled:
        with FlopCounterMode(display=False) as counting:
            step()
        tflop = counting.get_total_flops() / 1e12
    take(SEEN)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = take(steps)
    return Result(seconds, torch.cuda.max_memory_allocated() / 1e9 if cuda else float("nan"), tflop)


def table(config: dict[str, Any], pixels: Sequence[int], device: torch.device, given: Any) -> list[str]:
    """Lines of Markdown; the floor of a step is its FLOPs with all activations kept, at the rate given."""
    lines = ["| pixels | option | steps/s | pictures/s | peak GB | share of the floor |", "|---|---|---|---|---|---|"]
    for side in pixels:
        least = None
        for option in OPTIONS:
            if (option.compiled and given.small) or (option.graphed and device.type != "cuda"):
                continue
            try:
                found = measure(config, option, side, device, given.steps, given.rank)
            except torch.OutOfMemoryError:
                found = None
            gc.collect()  # a U-Net and its LoraFast know each other
            if device.type == "cuda":
                torch.cuda.empty_cache()
            if found is None:
                lines.append(f"| {side} | {option.name} | out of memory | | | |")
            else:
                least = least or found.tflop
                share = least * option.batch / given.rate / found.seconds
                rate = 1 / found.seconds
                figures = f"{rate:.2f} | {rate * option.batch:.2f} | {found.memory:.1f} | {share:.0%}"
                lines.append(f"| {side} | {option.name} | {figures} |")
            print(lines[-1], flush=True)
    return lines


def programs(script: str, given: Any) -> list[str]:
    """Lines of Markdown: the script and `sdxl_nb.train`, with all activations kept and with checkpointing, batch 1.

    Ours runs twice at first, so that its cache is full; the script encodes at every step.
    """
    lines = ["| pixels | program | gradient checkpointing | steps/s | peak GB |", "|---|---|---|---|---|"]
    print("\n" + "\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-gpu-") as place:
        folder = Path(place)
        for side in given.pixels:
            work = Work(f"{'t' if given.small else 'f'}-{side}-b1", given.steps, given.rank)
            prepare(folder, work)
            run(folder, ["ours", *_flags(folder, work, given, steps=1)])
            for checkpointing in (False, True):
                flags = _flags(folder, work, given) + ["--gradient_checkpointing"] * checkpointing
                for name, start in (("diffusers' script", ["reference", script]), ("sdxl_nb.train", ["ours"])):
                    lines.append(_line(folder, side, name, checkpointing, [*start, *flags]))
                    print(lines[-1], flush=True)
    return lines


def _flags(folder: Path, work: Work, given: Any, steps: int | None = None) -> list[str]:
    work = dataclasses.replace(work, steps=steps or work.steps)
    output = folder / f"out-{time.monotonic_ns()}"
    return [*work.flags(folder, output), *([] if given.small else ["--mixed_precision=bf16"])]


def _line(folder: Path, side: int, name: str, checkpointing: bool, arguments: Sequence[str]) -> str:
    start = f"| {side} | {name} | {'whole' if checkpointing else 'off'} |"
    try:
        found = run(folder, arguments, {"OMP_NUM_THREADS": "8"})
    except RuntimeError as error:  # its last lines
        if "out of memory" not in str(error).lower():
            raise
        return f"{start} out of memory | |"
    return f"{start} {1 / found.pace:.2f} | {found.memory * 2**20 / 1e9:.1f} |"


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--rate", type=float, default=790.0, help="the GPU's dense bf16 TFLOP/s")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a tiny U-Net, only to see that this script runs")
    parser.add_argument("--script", help="path of diffusers' train_text_to_image_lora_sdxl.py, unmodified")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA GPU and this machine has none: run it on one (see BENCHMARKS.md).")
    lines = table(small_config() if given.small else UNET, given.pixels, device, given)
    if given.script:
        lines += programs(str(Path(given.script).resolve()), given)
    return lines


if __name__ == "__main__":
    main()
