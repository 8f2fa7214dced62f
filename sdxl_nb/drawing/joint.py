"""What linear layers compute in a picture: the frozen weights of those that share an input, and all of their LoRAs.

    y = x W' + b + (x A') B'        (LoRA, arXiv 2106.09685)

In: linear layers, plain or with LoRAs of peft or lora/kinds. Out: one product for all W, one for the A of every layer
and adapter, one for their B, which hold the strengths. Where W is small, one product for W + B A: beside narrow layers
the LoRA's products are half as much again. Larger W (all of SDXL's own) are never copied to be changed, so drawing
needs no room for a second base, and neither are those of less than fp32, which would round small changes away.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..lora.stacked.matrices import move

SMALL = 2**20  # bytes of W; the smallest of SDXL's that are fp32 and carry LoRAs take 1.6 times as much


def base_of(layer: nn.Module) -> nn.Linear | None:
    """The frozen layer of a linear one that a Joint computes; None where it is another kind."""
    base = getattr(layer, "base_layer", layer)
    if type(base) is not nn.Linear or not base.weight.is_floating_point():
        return None
    return base if layer is base or _is_lora(layer) else None


def _is_lora(layer: Any) -> bool:
    """Whether this is plain LoRA on a frozen layer: no DoRA, nothing merged or left out, no bias of its own."""
    return (
        hasattr(layer, "lora_A")
        and not layer.merged
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and not (layer.training and any(isinstance(each, nn.Dropout) for each in layer.lora_dropout.values()))
    )


def is_changed(layer: Any) -> bool:
    """Whether a LoRA acts in this layer."""
    return bool(_adapters(layer))


def _adapters(layer: Any) -> list[str]:
    if not hasattr(layer, "lora_A") or layer._disable_adapters:
        return []
    return [name for name in getattr(layer, "active_adapters", layer.lora_A) if name in layer.lora_A]


class Joint:
    """Layers with one input, all of which `base_of` knows. Weights of several become views of one matrix."""

    def __init__(self, layers: Sequence[Any]):
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.widths = [base.out_features for base in bases]
        weight = together([base.weight for base in bases])
        self.weight_t = weight.t()
        self.bias = None if bases[0].bias is None else torch.cat([base.bias.detach() for base in bases])
        self.down_t: torch.Tensor | None = None
        found = [(at, layer, name) for at, layer in enumerate(layers) for name in _adapters(layer)]
        if found and weight.dtype == torch.float32 and weight.nbytes <= SMALL * len(layers):
            self._add(found, weight)
        elif found:
            self._take(found, weight)

    def _add(self, found: Sequence[tuple[int, Any, str]], weight: torch.Tensor) -> None:
        """W and B A as one matrix."""
        changed = weight.clone()
        places = changed.split(self.widths)
        for at, layer, name in found:
            down, up = layer.lora_A[name].weight.detach().float(), layer.lora_B[name].weight.detach().float()
            places[at].addmm_(up, down, alpha=layer.scaling[name])
        self.weight_t = changed.t()

    def _take(self, found: Sequence[tuple[int, Any, str]], weight: torch.Tensor) -> None:
        """A of all one below the other, ones for the bias behind them; B where its layer's columns are."""
        downs = [layer.lora_A[name].weight.detach().to(weight) for _, layer, name in found]
        ranks = [len(down) for down in downs]
        self.down_t = torch.cat([*downs, torch.zeros_like(downs[0][:1])]).t()
        self.one = weight.new_zeros(sum(ranks) + 1)
        self.one[-1] = 1
        self.up_t = weight.new_zeros(sum(ranks) + 1, sum(self.widths))
        rows, columns = self.up_t.split([*ranks, 1]), [sum(self.widths[:at]) for at in range(len(self.widths))]
        for place, (at, layer, name) in zip(rows, found, strict=False):
            up = layer.lora_B[name].weight.detach().float() * layer.scaling[name]
            place[:, columns[at] : columns[at] + self.widths[at]] = up.t()
        if self.bias is not None:
            self.up_t[-1] = self.bias

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Each layer's output; rows may lie apart in memory."""
        rows = x.reshape(-1, x.shape[-1])
        if self.down_t is not None:
            y = torch.mm(rows, self.weight_t).addmm_(torch.addmm(self.one, rows, self.down_t), self.up_t)
        elif self.bias is not None:
            y = torch.addmm(self.bias, rows, self.weight_t)
        else:
            y = torch.mm(rows, self.weight_t)
        parts = (y,) if len(self.widths) == 1 else y.split_with_sizes(self.widths, dim=1)
        return [part.unflatten(0, x.shape[:-1]) for part in parts]

    def onto(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """y and the output of the one layer together."""
        rows = x.reshape(-1, x.shape[-1])
        out = torch.addmm(y.reshape(-1, y.shape[-1]), rows, self.weight_t)
        if self.down_t is not None:
            out.addmm_(torch.addmm(self.one, rows, self.down_t), self.up_t)
        elif self.bias is not None:
            out.add_(self.bias)
        return out.view(y.shape)


def together(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """One matrix of several, which become views of it unless they lie so already."""
    first, rows = weights[0], [len(weight) for weight in weights]
    if len(weights) == 1:
        return first.detach()
    place, width = first.storage_offset(), first.shape[1]
    for weight in weights:
        shared = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (shared and weight.is_contiguous() and weight.storage_offset() == place):
            break
        place += weight.numel()
    else:
        return first.detach().as_strided((sum(rows), width), (width, 1))
    whole = first.detach().new_empty(sum(rows), width)
    move(weights, whole.split(rows))
    return whole
