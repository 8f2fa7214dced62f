"""A rehearsal at full size, without real weights: what a user does with SDXL, and what each stage takes.

    python -m benchmarks.rehearsal [FOLDER] [--size full] [--resolution 256] [--steps 3] [--base_precision int8]

Makes the random base of full_size.py as a folder, then in its place as a single file (7 GB of disk, 14 for a moment);
trains on two photographs in a process that is killed after its first checkpoint, resumes it, checks both LoRA files
and puts the diffusers one on diffusers' own U-Net. bf16, or bf16 weights under fp32 where the CPU has no bf16 of its
own. Prints seconds and peak memory (VmHWM) of every stage; RuntimeError for the first that fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .compare import ROOT

LIMIT = 8e9  # bytes that no stage may take
PHOTOGRAPHS = {"astronaut": "a smiling astronaut in an orange suit", "chelsea": "a ginger cat, close by"}


def photographs(folder: Path) -> None:
    """Two photographs that scikit-image ships, captioned."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    for name, caption in PHOTOGRAPHS.items():
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption)


def precision(asked: str | None) -> list[str]:
    """Flags: bf16 where this CPU multiplies it, else bf16 weights that are multiplied in fp32."""
    import torch

    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    kept = asked or (None if fast else "bf16")
    return [f"--mixed_precision={'bf16' if fast else 'no'}", *([f"--base_precision={kept}"] if kept else [])]


class Watched:
    """A process of ours, and the most memory that it has held so far."""

    def __init__(self, folder: Path, arguments: Sequence[object]):
        own = {"PYTHONPATH": str(ROOT), "SDXL_NB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        self.begun, self.peak, self.log = time.monotonic(), 0, folder / "output.txt"
        with open(self.log, "w") as output:
            command = [sys.executable, "-m", *map(str, arguments)]
            self.process = subprocess.Popen(
                command, cwd=folder, env=os.environ | own, stdout=output, stderr=subprocess.STDOUT
            )

    def look(self) -> bool:
        """Note the peak; whether the process still runs."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            status = ""
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak = max(self.peak, int(line.split()[1]) * 1024)
        return self.process.poll() is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Wait for the end or `until`; whether it was that."""
        while self.look():
            if until():
                return True
            time.sleep(0.1)
        if self.process.returncode:
            raise RuntimeError("".join(self.log.read_text().splitlines(keepends=True)[-15:]))
        return False


def events(run: Path) -> list[dict[str, Any]]:
    """What a run has told so far, whole lines."""
    file = run / "events.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def check(run: Path) -> None:
    """Every key of both files is known to its readers, and diffusers' own U-Net takes each weight as it is."""
    import torch
    from safetensors.torch import load_file

    from sdxl_nb.lora.files.file import LoraFile
    from sdxl_nb.lora.files.reader import read_lora
    from sdxl_nb.models.loading import hushed

    files = sorted(run.glob("*.safetensors"))
    for file in files:
        unknown = LoraFile(file).check().unknown
        if unknown:
            raise RuntimeError(f"{file.name}: {len(unknown)} keys are unknown, {unknown[0]} first")
    with hushed():
        from diffusers import UNet2DConditionModel
    lora = run / "pytorch_lora_weights.safetensors"
    about = json.loads(read_lora(lora).base.description)  # in the file's header
    with torch.device("meta"):
        unet = UNet2DConditionModel(**about["unet"])
    for module in unet.modules():  # hollow: shapes without memory
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                empty = torch.empty(1).expand(parameter.shape)
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=False)
    tensors = load_file(lora)
    unet.load_lora_adapter(dict(tensors), prefix="unet")
    held = {n: p for n, p in unet.named_parameters() if ".lora_" in n}
    wanted = {name.removeprefix("unet."): tensor for name, tensor in tensors.items()}
    for name, parameter in held.items():
        short = name.replace(".default_0", "").replace(".default", "")
        if not torch.equal(parameter, wanted[short].to(parameter.dtype)):
            raise RuntimeError(f"diffusers holds other values of {name}")
    if len(held) != len(wanted):
        raise RuntimeError(f"diffusers took {len(held)} of {len(wanted)} weights")


def rehearse(folder: Path, given: argparse.Namespace) -> Iterator[tuple[str, float, int]]:
    """(Stage, seconds, peak in bytes), one after the other."""

    def alone(name: str, *arguments: object) -> tuple[str, float, int]:
        watched = Watched(folder, arguments)
        watched.wait()
        return name, time.monotonic() - watched.begun, watched.peak

    base, single, run = folder / "base", folder / "base.safetensors", folder / "run"
    photographs(folder / "photographs")
    yield alone("base as a folder", "benchmarks.full_size", base, "--size", given.size)
    if given.size == "full":  # a checkpoint file is always of SDXL's own shapes
        yield alone("in its place, a single file", "benchmarks.full_size", base, "--single", single)
    source = single if given.size == "full" else base
    asked: list[object] = [
        "sdxl_nb.train",
        f"--pretrained_model_name_or_path={source}",
        f"--train_data_dir={folder / 'photographs'}",
        f"--output_dir={run}",
        f"--resolution={given.resolution}",
        f"--max_train_steps={given.steps}",
        "--train_batch_size=1",
        "--checkpointing_steps=1",
        "--rank=16",
        "--seed=7",
        "--gradient_checkpointing",
        "--report_to=none",
        *precision(given.base_precision),
    ]
    first = Watched(folder, asked)
    first.wait(lambda: any(e["event"] == "cache" and "pictures" in e for e in events(run)))
    yield "encode", time.monotonic() - first.begun, first.peak
    begun = time.monotonic()
    if first.wait(lambda: (run / "checkpoint-1" / "pytorch_lora_weights.safetensors").is_file()):
        first.process.kill()
        first.process.wait()
    yield "load, a step, a checkpoint, killed", time.monotonic() - begun, first.peak
    yield alone("resumed, to the end", *asked, "--resume_from_checkpoint=latest")
    told = [event["step"] for event in events(run) if event["event"] == "step"]
    if sorted(set(told)) != list(range(1, given.steps + 1)):
        raise RuntimeError(f"steps {told} were told")
    yield alone("checked, loaded by diffusers", "benchmarks.rehearsal", run, "--check")
    size = (run / "events.jsonl").stat().st_size
    if size > 50_000:
        raise RuntimeError(f"events.jsonl has {size:,} bytes for {given.steps} steps")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("benchmarks.rehearsal", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where all of it goes; default a temporary folder")
    parser.add_argument("--size", default="full", choices=("full", "prop", "tiny"))
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--base_precision", help="such as int8; default as it computes")
    parser.add_argument("--check", action="store_true", help="only check the run in FOLDER")
    given = parser.parse_args(arguments)
    if given.check:
        return check(given.folder)
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-rehearsal-") as place:
        folder = (given.folder or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for stage, seconds, peak in rehearse(folder, given):
            print(f"{stage:<36} {seconds:8.1f} s {peak / 1e9:6.2f} GB", flush=True)
            if peak > LIMIT:
                raise RuntimeError(f"{stage} took {peak / 1e9:.2f} GB, more than {LIMIT / 1e9:g}")
    return None


if __name__ == "__main__":
    main()
