"""A base model with a LoRA inside: `fuse` writes an ordinary diffusers folder that needs no LoRA.

In: the name of a base, a LoRA file, a strength; out: a folder for `from_pretrained`, or for training on.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..system.errors import ModelError
from .base import Base
from .files.reader import read_lora
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

    `base`: embedded:tiny-sdxl, a hub id, a diffusers folder or a checkpoint. Sums are made in fp32; `dtype` is that of
    the U-Net and text encoders in the folder, fp32 unless given. ModelError, and no folder, if something does not fit.
    """
    from ..models.loading import load_pipeline

    goal = Path(goal)
    if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
        raise ModelError(f"{goal} already holds something; give an empty or a new folder for the fused model.")
    pipeline = load_pipeline(str(base))
    add_to_weights(pipeline, lora, scale)
    for model in models_of(pipeline).values() if dtype else ():
        model.to(dtype)
    partial = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    try:
        pipeline.save_pretrained(partial, safe_serialization=True)
        if goal.exists():
            goal.rmdir()
        partial.replace(goal)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return goal


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
