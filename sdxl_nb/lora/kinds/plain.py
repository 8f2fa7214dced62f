"""LoRA layers of our own U-Net: those of peft, without the seconds that importing peft takes.

In: a U-Net of models/unet.py and a TrainConfig. Out: layers under peft's names, with the first values that peft draws
(tested equal). DoRA, text encoders, diffusers' U-Net and what draws pictures from files have peft's own.
"""

import re
from typing import cast

import torch
from torch import nn

from ...config.train_config import TrainConfig

ADAPTER = "default"


class PlainLora(nn.Module):
    """A linear layer or a convolution and its LoRA, as peft's layers are to those who look at them."""

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, use_rslora: bool, dropout: float):
        super().__init__()
        self.base_layer = base
        self.r, self.lora_alpha, self.use_rslora = {ADAPTER: rank}, {ADAPTER: alpha}, {ADAPTER: use_rslora}
        self.scaling = {ADAPTER: alpha / (rank**0.5 if use_rslora else rank)}
        self.lora_dropout = nn.ModuleDict({ADAPTER: nn.Dropout(dropout) if dropout else nn.Identity()})
        down, up = _pair(base, rank)
        nn.init.normal_(down.weight, std=1 / rank)
        nn.init.zeros_(up.weight)
        weight = base.weight  # to whose dtype peft rounds first values
        self.lora_A = nn.ModuleDict({ADAPTER: down.to(weight.device, weight.dtype)})
        self.lora_B = nn.ModuleDict({ADAPTER: up.to(weight.device, weight.dtype)})
        self.lora_magnitude_vector: dict[str, nn.Module] = {}
        self.lora_variant: dict[str, object] = {}
        self.lora_bias: dict[str, bool] = {}
        self.merged = self._disable_adapters = False
        self.cast_input_dtype_enabled = True

    def get_base_layer(self) -> nn.Linear | nn.Conv2d:
        return self.base_layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.base_layer(x)
        if self._disable_adapters:
            return cast(torch.Tensor, result)
        down, up = self.lora_A[ADAPTER], self.lora_B[ADAPTER]
        if self.cast_input_dtype_enabled:
            x = x.to(cast(torch.Tensor, down.weight).dtype)
        change = up(down(self.lora_dropout[ADAPTER](x))) * self.scaling[ADAPTER]
        return cast(torch.Tensor, (result + change).to(result.dtype))


def _pair(base: nn.Linear | nn.Conv2d, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    """A and B, whose making draws from the global generator as peft's does."""
    if isinstance(base, nn.Linear):
        return nn.Linear(base.in_features, rank, bias=False), nn.Linear(rank, base.out_features, bias=False)
    shape = (base.kernel_size, base.stride, base.padding)
    down = nn.Conv2d(base.in_channels, rank, *shape, bias=False)  # type: ignore[arg-type]  # as the base has them
    return down, nn.Conv2d(rank, base.out_channels, 1, bias=False)


def put_plain(model: nn.Module, targets: list[str] | str, config: TrainConfig) -> None:
    """Put such layers on the modules that peft's `target_modules` means. ValueError when there are none."""
    named = [(name, module) for name, module in model.named_modules() if _is_meant(name, targets)]
    if not named:
        raise ValueError(f"Target modules {targets} not found in the base model")
    for name, module in named:
        rank = _by_pattern(config.rank_pattern, name, config.rank)
        alpha = _by_pattern(config.alpha_pattern, name, config.alpha())
        layer = PlainLora(cast(nn.Linear, module), int(rank), alpha, config.use_rslora, config.lora_dropout)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)


def _is_meant(name: str, targets: list[str] | str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _by_pattern(patterns: dict[str, int] | dict[str, float] | None, name: str, usual: float) -> float:
    """The number of the first pattern that the end of a name matches, as peft chooses it."""
    hits = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", name))
    return next(hits, usual)
