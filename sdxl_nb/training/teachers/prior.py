"""Prior preservation without class pictures: what the base predicts, the LoRA off, is to be predicted with it on.

As ai-toolkit's output preservation and OneTrainer's prior prediction. In: a batch with its noise, and the models that
learn. Out: the loss between both predictions for a plain prompt, on the same noisy latents.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ...config.train_config import TrainConfig
from ...data.sampling import Choices
from ...lora.layers import lora_modules


def prompts(config: TrainConfig) -> list[str]:
    """The plain prompts for which the base is kept; none without prior_without_pictures."""
    if not config.prior_without_pictures:
        return []
    return list(config.prior_prompts or [config.class_prompt or ""])


def chosen(config: TrainConfig, choices: Sequence[Choices]) -> list[str]:
    """The plain prompt of each position: a function of (seed, position)."""
    texts = prompts(config)
    return [texts[each.one_of(len(texts))] for each in choices]


@contextmanager
def without_lora(models: Mapping[str, nn.Module]) -> Iterator[None]:
    """Inside, the models are the base's own and learn nothing; afterwards they train again."""
    layers = [module for model in models.values() for _, module in lora_modules(model)]
    try:
        for model in models.values():
            model.eval()
        for layer in layers:
            layer._disable_adapters = True  # enable_adapters would forget which weights learn
        with torch.no_grad():
            yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
        for model in models.values():
            model.train()
