"""What a row of matrix.py does beside the run `run` in the current folder: looks at it, draws, loads its LoRA.

In: names of distributions. Out, as the last line: {"python": version, name: version, ...} as JSON.
"""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import sdxl_nb

FILES = ("pytorch_lora_weights.safetensors", "run.safetensors")


def look() -> None:
    """The run is complete, trained three steps, and drew both prompts before and after."""
    events = list(sdxl_nb.Run.open("run").events())
    assert events[-1]["event"] == "end" and events[-1]["status"] == "completed", events[-1]
    losses = [event["train_loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 3 and all(0 < loss < 1 for loss in losses), losses
    pictures = sorted(Path("run/validation").rglob("*.png"))
    assert [Image.open(picture).size for picture in pictures] == [(64, 64)] * 4, pictures


def draw() -> None:
    """Our own drawing shows the LoRA at work: another picture at scale 1 than at 0."""
    grid = sdxl_nb.generate(lora="run", prompts="a blueprint of a house", scales=(0, 1), num_inference_steps=4)
    without, with_it = (np.asarray(picture, dtype=int) for picture in grid.pictures.values())
    assert abs(with_it - without).max() > 0


def load() -> None:
    """Plain diffusers reads both files, and draws the same picture with either.

    Imported only now: beside an xformers that cannot be imported it cannot be either, before we told it so.
    """
    from diffusers import StableDiffusionXLPipeline

    base = Path(sdxl_nb.__file__).parent / "tiny" / "base"
    pipe = StableDiffusionXLPipeline.from_pretrained(base, torch_dtype=torch.float32, add_watermarker=False)
    drawn = [picture(pipe)]
    for file in FILES:
        pipe.load_lora_weights("run", weight_name=file)
        drawn.append(picture(pipe))
        pipe.unload_lora_weights()
    base_alone, theirs, kohya = drawn
    assert np.isfinite(theirs).all() and abs(theirs - base_alone).max() > 1e-3
    assert abs(theirs - kohya).max() < 1e-4


def picture(pipe: Any) -> np.ndarray:
    """Two steps of drawing: (1, height, width, 3), 0 to 1."""
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe("a blueprint of a house", num_inference_steps=2, generator=torch.manual_seed(0), output_type="np")
    return drawn.images


if __name__ == "__main__":
    look()
    draw()
    load()
    print(json.dumps({"Python": platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))
