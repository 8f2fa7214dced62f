"""Pictures drawn by diffusers' own pipeline with a LoRA loaded, and by `generate`, in turns: operations, CPU seconds.

    python -m benchmarks.drawing [--rounds 5] [--work t-256 p-256] [--steps 25]

Both in one process with one thread, on the same random base and LoRA (benchmarks.architectures; rank 16, attention).
Operations are those that a step of the U-Net dispatches, by the rule of benchmarks.operations, the first of a picture
apart. CPU seconds are those of whole pictures, from the prompt on. Out: a table, and the largest difference of pixels.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .architectures import make_base
from .compare import ARCHITECTURES
from .operations import tally

PROMPTS = ["pattern 1 of soft colours", "pattern 2 of soft colours"]
RANK = 16
Draw = Callable[[int, int], list[Any]]  # pictures from that seed on, in so many steps


def make_lora(folder: Path, base: Path) -> Path:
    """A LoRA with random B, as diffusers reads it."""
    from sdxl_nb.config.train_config import TrainConfig
    from sdxl_nb.lora.adapter import add_lora
    from sdxl_nb.lora.files.writer import save_lora
    from sdxl_nb.lora.layers import collect
    from sdxl_nb.models.loading import load_unet
    from sdxl_nb.models.sources import Source

    unet = load_unet(Source(str(base)))
    torch.manual_seed(1)
    add_lora(TrainConfig(train_data_dir="x", rank=RANK), unet)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return save_lora(collect(unet), folder, "lora", {})[0]


def theirs(base: Path, lora: Path, side: int) -> tuple[Any, Draw]:
    """diffusers' pipeline as its manual says."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(base, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)

    def draw(seed: int, steps: int) -> list[Any]:
        generators = [torch.Generator("cpu").manual_seed(seed) for _ in PROMPTS]
        numbers = {"height": side, "width": side, "num_inference_steps": steps, "guidance_scale": 5.0}
        return pipeline(PROMPTS, generator=generators, **numbers).images

    return pipeline, draw


def ours(base: Path, lora: Path, side: int) -> tuple[Any, Draw]:
    """`generate`, with a base that is loaded."""
    from sdxl_nb.drawing.generation import generate, load_base

    pipeline = load_base(str(base))

    def draw(seed: int, steps: int) -> list[Any]:
        numbers = {"height": side, "width": side, "num_inference_steps": steps, "progress": False}
        grid = generate(pipeline, lora, PROMPTS, seeds=[seed], batch_size=len(PROMPTS), **numbers)
        return list(grid.pictures.values())

    return pipeline, draw


def operations(pipeline: Any, draw: Draw) -> list[int]:
    """Operations of each call of the U-Net while pictures of three steps are drawn."""
    found: list[int] = []
    inside = contextlib.ExitStack()
    counts: list[Any] = []
    begin = pipeline.unet.register_forward_pre_hook(lambda *_: counts.append(inside.enter_context(tally())))
    end = pipeline.unet.register_forward_hook(lambda *_: (inside.close(), found.append(counts[-1].operations))[0])
    draw(0, 3)
    begin.remove()
    end.remove()
    return found


def measure(name: str, rounds: int, steps: int) -> list[str]:
    """Lines of the table for one base and size."""
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-drawing-") as place:
        folder, side = Path(place), int(name.split("-")[1])
        make_base(folder / "base", ARCHITECTURES[name.split("-")[0]])
        lora = make_lora(folder / "lora", folder / "base")
        sides = {"diffusers": theirs(folder / "base", lora, side), "sdxl_nb": ours(folder / "base", lora, side)}
        counts = {who: operations(*each) for who, each in sides.items()}
        drawn = {who: draw(7, steps) for who, (_, draw) in sides.items()}
        pairs = zip(drawn["diffusers"], drawn["sdxl_nb"], strict=True)
        apart = max(int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()) for a, b in pairs)
        spent: dict[str, list[float]] = {who: [] for who in sides}
        for seed in range(rounds):
            for who, (_, draw) in sides.items():
                begun = time.process_time()
                draw(seed, steps)
                spent[who].append((time.process_time() - begun) / len(PROMPTS))
    ratios = [a / b for a, b in zip(spent["diffusers"], spent["sdxl_nb"], strict=True)]
    medians = [statistics.median(spent[who]) for who in sides]
    first, later = ([counts[who][at] for who in sides] for at in (0, -1))
    return [
        f"| {name}: operations of a step, the first apart | {later[0]:,} | {later[1]:,} | {later[0] / later[1]:.2f}x |",
        f"| operations of the first step | {first[0]:,} | {first[1]:,} | {first[0] / first[1]:.2f}x |",
        f"| CPU s a picture, {steps} steps | {medians[0]:.2f} | {medians[1]:.2f} | {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f} to {max(ratios):.2f}) |",
        f"| largest difference of a pixel, of 255 | | {apart} | |",
    ]


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.drawing", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--work", nargs="+", default=["t-256", "p-256"], help="as t-256: architecture, pixels")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = ["| two pictures at once | diffusers with the LoRA loaded | sdxl_nb | ratio |", "|---|---|---|---|"]
    for name in given.work:
        lines += measure(name, given.rounds, given.steps)
    print(*lines, sep="\n")
    return lines


if __name__ == "__main__":
    main()
