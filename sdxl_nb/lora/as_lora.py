"""LoHa and LoKr as LoRA: the same change as a product of two thin matrices, exactly; arithmetic.py cuts them.

A LoHa of rank r is a LoRA of rank r squared (the columns of one factor times those of the other), a LoKr one of the
product of its factors' ranks. In: a `Factored` and the module it belongs to. Out: a `Layer` in fp32.
"""

import torch

from .base import Module
from .kinds.factored import Factored, Parts
from .layers import Layer


def as_lora(layer: Factored, module: Module) -> Layer:
    """The LoRA with the same change, of alpha equal to its rank."""
    up, down = _thin(layer)
    up = (up * layer.scale).contiguous()
    if module.kind == "conv":
        return Layer(down.reshape(-1, *module.down_shape).contiguous(), up[..., None, None], float(len(down)))
    return Layer(down.contiguous(), up, float(len(down)))


def _thin(layer: Factored) -> tuple[torch.Tensor, torch.Tensor]:
    """(out, r) and (r, in h w) whose product is the change before its scale."""
    parts = layer.parts
    if "hada_t1" in parts or "lokr_t2" in parts:
        return _halves((layer.change() / (layer.scale or 1.0)).flatten(1))
    if layer.algo == "loha":
        up = torch.einsum("or,os->ors", parts["hada_w1_a"], parts["hada_w2_a"]).flatten(1)
        return up, torch.einsum("ri,si->rsi", parts["hada_w1_b"], parts["hada_w2_b"]).flatten(0, 1)
    (first_up, first_down), (second_up, second_down) = (_factor(parts, f"lokr_w{n}") for n in (1, 2))
    return torch.kron(first_up, second_up), torch.kron(first_down, second_down)


def _factor(parts: Parts, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return _halves(parts[name].flatten(1)) if name in parts else (parts[f"{name}_a"], parts[f"{name}_b"])


def _halves(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix as a product with one, on its shorter side."""
    rows, columns = matrix.shape
    return (torch.eye(rows), matrix) if rows <= columns else (matrix, torch.eye(columns))
