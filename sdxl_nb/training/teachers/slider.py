"""Concept sliders from prompts (LECO, Concept Sliders arXiv 2311.12092): a LoRA that turns one thing up, or down.

In: a batch of noisy pictures, whose captions are not read, and prompts. Out: what is predicted for the target prompt,
and what it is to be, of the base's own predictions with the LoRA off:

    base(target) + g (base(positive) - base(negative)),  g = slider_guidance

At strength -1 the LoRA goes the other way, because its change of the weights is a product that the strength scales.
"""

from typing import TYPE_CHECKING

import torch

from ...config.train_config import TrainConfig
from .prior import without_lora

if TYPE_CHECKING:
    from ..setup import Batch, Studio


def prompts(config: TrainConfig) -> list[str]:
    """Target, positive and negative prompt; none where no slider is trained."""
    if config.slider_positive is None:
        return []
    return [config.slider_target or "", config.slider_positive, config.slider_negative or ""]


def pair(
    config: TrainConfig, studio: "Studio", noisy: torch.Tensor, told: "Batch"
) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted, wanted) for noisy latents (N, 4, h, w); `told` is their batch with the U-Net's timesteps."""
    count = len(noisy)
    with without_lora(studio.trained):
        target, positive, negative = (
            studio.predict(noisy, told._replace(prompt=studio.embedded([text] * count))).float()
            for text in prompts(config)
        )
    wanted = target + config.slider_guidance * (positive - negative)
    return studio.predict(noisy, told._replace(prompt=studio.embedded([prompts(config)[0]] * count))), wanted
