"""LoRA layers that only draw: plain LoRAs of files on frozen layers, without the seconds that peft takes.

In: a live model and layers as files hold them. Out: the model with a module in the place of each such layer, which
looks like peft's to those who look (drawing/joint.py, layers.py). DoRA, LoHa and LoKr have peft's own.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from ..layers import Layer


class Half(nn.Module):
    """A or B of a LoRA: a linear layer (out, in) or a convolution (out, in, h, w), without first values or bias."""

    def __init__(self, weight: torch.Tensor, stride: Sequence[int] = (1, 1), padding: str | Sequence[int] = (0, 0)):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.stride, self.padding = stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.ndim == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, None, self.stride, self.padding)


class DrawnLora(nn.Module):
    """A linear layer or a convolution with LoRAs of any number of adapters, all frozen, each at its own strength."""

    def __init__(self, base: nn.Linear | nn.Conv2d):
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.r: dict[str, int] = {}
        self.own: dict[str, float] = {}  # each adapter's strength as it was trained
        self.scaling: dict[str, float] = {}
        self.lora_variant: dict[str, object] = {}
        self.lora_bias: dict[str, bool] = {}
        self.lora_dropout: dict[str, nn.Module] = {}
        self.active_adapters: list[str] = []
        self.merged = self._disable_adapters = False

    def get_base_layer(self) -> nn.Linear | nn.Conv2d:
        return self.base_layer

    def add(self, adapter: str, layer: "Layer", dtype: torch.dtype) -> None:
        """Put an adapter's LoRA on, active at the strength it was trained at."""
        base = self.base_layer
        where = (base.stride, base.padding) if isinstance(base, nn.Conv2d) else ()
        self.lora_A[adapter] = Half(layer.down.to(base.weight.device, dtype), *where)
        self.lora_B[adapter] = Half(layer.up.to(base.weight.device, dtype))
        self.r[adapter], self.own[adapter], self.scaling[adapter] = layer.rank, layer.scale, layer.scale
        self.active_adapters = [*self.active_adapters, adapter]

    def delete_adapter(self, adapter: str) -> None:
        del self.lora_A[adapter], self.lora_B[adapter], self.r[adapter], self.own[adapter], self.scaling[adapter]
        self.active_adapters = [name for name in self.active_adapters if name != adapter]

    def set_adapter(self, adapters: Sequence[str]) -> None:
        self.active_adapters = list(adapters)

    def set_scale(self, adapter: str, scale: float) -> None:
        self.scaling[adapter] = scale * self.own[adapter]

    def enable_adapters(self, enabled: bool) -> None:
        self._disable_adapters = not enabled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = wide = self.base_layer(x)
        for name in [] if self._disable_adapters else self.active_adapters:
            down, up = self.lora_A[name], self.lora_B[name]
            wide = wide + up(down(x.to(cast(torch.Tensor, down.weight).dtype))) * self.scaling[name]
        return cast(torch.Tensor, wide.to(result.dtype))


def put_drawn(model: nn.Module, plan: Mapping[str, "Layer"], adapter: str, dtype: torch.dtype) -> None:
    """Put an adapter's layers on these modules of a model, beside those of others that are there."""
    for name, layer in plan.items():
        parent, _, child = name.rpartition(".")
        place = model.get_submodule(parent)
        module = getattr(place, child)
        if not isinstance(module, DrawnLora):
            module = DrawnLora(module).train(module.training)
            setattr(place, child, module)
        module.add(adapter, layer, dtype)
