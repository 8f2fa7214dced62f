"""Dropout of LoRA layers whose masks are a run's own: functions of (seed, position), as all that it draws.

In: models with peft's LoRA layers. Out: the same with masks that depend on the picture's key and the layer's name, not
on what was computed before, beside it or where: the same on resume, in any number of processes, in any micro-batches,
on every device, and when a block is computed again in the backward pass.
"""

import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..system.transfer import sent
from .layers import lora_modules

WORD = 0xFFFFFFFF  # 32 bits: integers of 64 multiply those without loss on every device


class Keys:
    """The keys of the pictures that are computed now, (N,) int64, the same for all layers."""

    now: torch.Tensor | None = None

    def set(self, keys: Sequence[int], device: torch.device) -> None:
        self.now = sent(torch.tensor(keys, dtype=torch.int64), device)


def mixed(bits: torch.Tensor) -> torch.Tensor:
    """32 bits each, well mixed: multiply and shift, as in hash-prospector's lowbias32 with smaller factors."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x31848BAB), (17, 0x2C1B3C6D)):
        bits = ((bits ^ (bits >> shift)) * factor) & WORD
    return bits ^ (bits >> 16)


class KeyedDropout(nn.Dropout):
    """nn.Dropout of (N, ...) whose element is kept or not by its place, the layer's name and its picture's key."""

    def __init__(self, p: float, keys: Keys, name: str):
        super().__init__(p)
        self.keys, self.salt, self.below = keys, zlib.crc32(name.encode()), round(p * (WORD + 1))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return input
        keys = self.keys.now
        assert keys is not None and len(keys) == len(input), "there is a key for every picture"
        places = mixed(mixed(torch.arange(input[0].numel(), device=input.device)) ^ self.salt)
        kept = mixed(places ^ keys[:, None]) >= self.below
        return input * kept.view(input.shape).to(input.dtype) / (1 - self.p)


def keyed(models: Mapping[str, nn.Module]) -> Keys | None:
    """Put such masks in the place of the models' own dropout; the Keys to set before each pass, None without any."""
    keys, found = Keys(), False
    for model, whole in models.items():
        for name, module in lora_modules(whole):
            for adapter, layer in module.lora_dropout.items():
                if isinstance(layer, nn.Dropout) and layer.p:
                    module.lora_dropout[adapter] = KeyedDropout(layer.p, keys, f"{model}.{name}")
                    found = True
    return keys if found else None
