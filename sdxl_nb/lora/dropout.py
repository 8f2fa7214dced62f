"""Dropout of LoRA layers whose masks are a run's own: functions of (seed, position), as all that it draws.

Of their inputs (lora_dropout), of their ranks (rank_dropout), and of whole layers (module_dropout).

In: models with peft's LoRA layers. Out: the same with masks that depend on the picture's key and the layer's name, not
on what was computed before, beside it or where: the same on resume, in any number of processes, in any micro-batches,
on every device, and when a block is computed again in the backward pass.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..system.transfer import sent
from .kinds.peft_layers import is_factored
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


class KeyedParts:
    """What rank_dropout and module_dropout leave of a layer: (N, ..., channels) or (N, channels, h, w) -> the same.

    Channels are the ranks of a LoRA, as in sd-scripts, and the outputs of a LoHa or LoKr, as in LyCORIS; those that are
    kept grow by 1 / (1 - rank_dropout), so that their mean stays. A whole layer comes or goes as it is.
    """

    def __init__(self, keys: Keys, name: str, rank: float, module: float):
        self.keys, self.share = keys, rank
        self.salts = [zlib.crc32(f"{name}/{what}".encode()) for what in ("rank", "module")]
        self.below = [round(p * (WORD + 1)) for p in (rank, module)]

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        keys, conv = self.keys.now, values.ndim == 4
        assert keys is not None and len(keys) == len(values), "there is a key for every picture"
        places = torch.arange(values.shape[1 if conv else -1], device=values.device)
        kept = mixed(mixed(mixed(places) ^ self.salts[0]) ^ keys[:, None]) >= self.below[0]
        kept = kept & (mixed(mixed(keys) ^ self.salts[1]) >= self.below[1])[:, None]
        shape = (*kept.shape, 1, 1) if conv else (len(kept), *(1,) * (values.ndim - 2), kept.shape[1])
        return values * kept.view(shape).to(values.dtype) / (1 - self.share)


def keyed(models: Mapping[str, nn.Module], rank: float = 0.0, module: float = 0.0) -> Keys | None:
    """Put such masks in the place of the models' own dropout; the Keys to set before each pass, None without any.

    `rank` and `module` are the chances of rank_dropout and module_dropout.
    """
    keys, found = Keys(), bool(rank or module)
    for model, whole in models.items():
        for name, one in lora_modules(whole):
            if rank or module:
                _leave_out(one, KeyedParts(keys, f"{model}.{name}", rank, module))
            for adapter, layer in () if is_factored(one) else one.lora_dropout.items():
                if isinstance(layer, nn.Dropout) and layer.p:
                    one.lora_dropout[adapter] = KeyedDropout(layer.p, keys, f"{model}.{name}")
                    found = True
    return keys if found else None


def _leave_out(module: Any, dropped: KeyedParts) -> None:
    """Let a layer compute without what is dropped while it trains."""
    if is_factored(module):
        module.dropped = dropped
        return
    for down in module.lora_A.values():
        if (before := down.__dict__.get("dropped")) is not None:  # of a Step before
            before.remove()
        down.__dict__["dropped"] = down.register_forward_hook(
            lambda layer, _, out: dropped(out) if layer.training else out
        )
