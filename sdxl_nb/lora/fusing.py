"""A base model with a LoRA inside: `fuse` writes an ordinary diffusers folder that needs no LoRA, or one file.

In: the name of a base, a LoRA file, a strength; out: a folder for `from_pretrained`, or for training on, which keeps
everything of the base but the weights; of a checkpoint file one like it (see fusing_file.py).
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..config.header import objective_flags
from ..models.objective import base_objective
from ..models.sources import Source
from ..system.errors import ModelError
from .base import Base
from .files.file import LoraFile
from .files.reader import read_lora
from .fusing_file import fuse_file
from .layers import attach, detach, lora_modules, models_of, set_scale

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

ADAPTER = "fused"


def fuse(
    base: str | os.PathLike[str],
    lora: str | os.PathLike[str],
    goal: str | os.PathLike[str],
    scale: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write `base` with `lora` added at strength `scale` to the folder `goal`, which must not hold anything yet.

    `base`: embedded:tiny-sdxl, a hub id, a diffusers folder or a checkpoint, which with a `goal` that ends in
    .safetensors becomes one file again. Sums are made in fp32; `dtype` is that of the U-Net and text encoders: by
    default fp32 in a folder, the base's own in one file. A LoRA whose header says that it was trained for another
    objective makes a base of that. ModelError, and nothing written, if something does not fit.
    """
    from ..models.loading import load_pipeline

    source, goal = Source(str(base)), Path(goal)
    if goal.suffix == ".safetensors":
        return fuse_file(source, lora, goal, scale, dtype)
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise ModelError(f"{goal} already holds something; give an empty or a new folder for the fused model.")
    flags = objective_flags(LoraFile(lora).metadata)
    pipeline = load_pipeline(source, objective=base_objective.of(source, *(flags or ())))
    add_to_weights(pipeline, lora, scale)
    for model in models_of(pipeline).values() if dtype else ():
        model.to(dtype)
    partial = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    try:
        pipeline.save_pretrained(partial, safe_serialization=True)
        _keep(source, partial, () if flags else (base_objective.SCHEDULER,))
        if goal.exists():
            goal.rmdir()
        partial.replace(goal)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return goal


def _keep(source: Source, folder: Path, more: tuple[str, ...]) -> None:
    """What the base says of itself, byte for byte, in the place of what libraries made of it."""
    for name in () if source.is_single_file else ("model_index.json", "vae/config.json", *more):
        found = source.find(name)
        if found is not None:
            shutil.copyfile(found, folder / name)


@torch.no_grad()
def add_to_weights(pipeline: "StableDiffusionXLPipeline", lora: str | os.PathLike[str], scale: float) -> None:
    """Add a LoRA at strength `scale` to a live pipeline's own weights, by peft's merge; no LoRA layer stays."""
    weights = read_lora(lora, Base.of(pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2))
    attach(weights, pipeline, ADAPTER)
    if scale:
        set_scale(pipeline, {ADAPTER: scale})
        for model in models_of(pipeline).values():
            for _, module in lora_modules(model):
                module.merge(safe_merge=True, adapter_names=[ADAPTER])  # raises ValueError if not finite
                module.merged_adapters.clear()  # so that taking the layer away leaves what was added
    detach(pipeline, ADAPTER)
