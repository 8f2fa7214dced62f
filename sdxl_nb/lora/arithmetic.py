"""Sums of LoRAs and smaller ones: `LoraWeights` in, `LoraWeights` out, with the share of energy that was kept.

A LoRA's change is a product of thin matrices, so the singular values of a sum come from two thin QR factorisations
and one small SVD; the full-size change is never built.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..system.errors import ModelError
from .base import Module
from .kinds.factored import Factored, Parts
from .layers import AnyLayer, Layer, LoraWeights, fit


@dataclass(frozen=True)
class Reduced:
    """The result, and the kept share of the change's energy (squared Frobenius norm): overall, and per module."""

    weights: LoraWeights
    kept: float
    kept_by_module: dict[str, float]


def merge(loras: Sequence[tuple[LoraWeights, float]], rank: int) -> Reduced:
    """The weighted sum of the LoRAs' changes, each module cut to the best approximation of the given rank.

    A rank of at least the sum of theirs loses nothing. ModelError for DoRA, whose change depends on the base.
    """
    if rank < 1 or not loras:
        raise ModelError("A merge needs at least one LoRA, and a rank of 1 or more.")
    if len({weights.base.layout for weights, _ in loras}) > 1:
        raise ModelError("These LoRAs belong to different base models and cannot be merged.")
    layers: dict[str, AnyLayer] = {}
    energies, lost = {}, {}
    for path in dict.fromkeys(path for weights, _ in loras for path in weights.layers):
        parts = [(_plain(w.layers[path], path, w), weight) for w, weight in loras if path in w.layers]
        layers[path], energies[path], lost[path] = _reduce(path, parts, rank)
    total = sum(energies.values())
    kept = {path: 1 - lost[path] / energy if energy else 1.0 for path, energy in energies.items()}
    return Reduced(LoraWeights(layers, loras[0][0].base), 1 - sum(lost.values()) / total if total else 1.0, kept)


def resize(weights: LoraWeights, rank: int) -> Reduced:
    """The same LoRA at a lower rank; a LoRA that already has so low a rank keeps its own, LoHa and LoKr become LoRA."""
    reduced = merge([(weights, 1.0)], rank)
    for path, layer in weights.layers.items():
        if isinstance(layer, Layer) and layer.rank <= rank:
            reduced.weights.layers[path] = layer
    reduced.weights.metadata.update(weights.metadata)
    return reduced


def fold_alpha(weights: LoraWeights) -> LoraWeights:
    """The same changes with an alpha that is the rank, so that a reader which ignores alpha draws them as all others.

    What alpha / rank was lies in the up weights. ModelError for LoHa and LoKr, whose alphas no such reader meets.
    """
    layers: dict[str, AnyLayer] = {}
    for path, layer in weights.layers.items():
        if not isinstance(layer, Layer):
            raise ModelError(f"{path} is no LoRA of two matrices: resize makes one of it, and then its alpha folds.")
        up = layer.up * (layer.alpha / layer.rank)
        layers[path] = Layer(layer.down, up, float(layer.rank), layer.dora_scale)
    return LoraWeights(layers, weights.base, dict(weights.metadata))


def _plain(layer: AnyLayer, path: str, weights: LoraWeights) -> Layer:
    """The layer as LoRA's two matrices. ModelError for a LoHa or LoKr of a module that its base does not have."""
    if isinstance(layer, Layer):
        return layer
    module = weights.base.inventory.get(path)
    if module is None:
        raise ModelError(f"The LoRA has a layer for {path}, which this base model does not have.")
    fit(layer, module, path)
    return as_lora(layer, module)


def _reduce(path: str, parts: list[tuple[Layer, float]], rank: int) -> tuple[Layer, float, float]:
    """The layer of rank at most `rank`, the energy of the sum, and the energy that the cut lost."""
    shapes = {(layer.up.shape[0], *layer.down.shape[1:]) for layer, _ in parts}
    if len(shapes) > 1:
        raise ModelError(f"The LoRAs' layers for {path} have different widths and cannot be merged.")
    if any(layer.dora_scale is not None for layer, _ in parts):
        raise ModelError(f"{path} is a DoRA layer, whose change depends on the base model: it cannot be cut or summed.")
    up = torch.cat([layer.up.flatten(1).double() * layer.scale * weight for layer, weight in parts], dim=1)
    down = torch.cat([layer.down.flatten(1).double() for layer, _ in parts])
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    u, s, v = torch.linalg.svd(r_up @ r_down.T)
    rank = min(rank, len(s))
    root = s[:rank].sqrt()  # shared evenly, so that neither half is large in fp16
    new_up, new_down = q_up @ u[:, :rank] * root, root[:, None] * (v[:rank] @ q_down.T)
    first = parts[0][0]
    new_up = new_up.reshape(-1, rank, *first.up.shape[2:]).float().contiguous()
    new_down = new_down.reshape(rank, *first.down.shape[1:]).float().contiguous()
    return Layer(new_down, new_up, float(rank)), float((s**2).sum()), float((s[rank:] ** 2).sum())


def as_lora(layer: Factored, module: Module) -> Layer:
    """The LoRA with the same change as a LoHa or LoKr, exactly, of alpha equal to its rank.

    A LoHa of rank r is a LoRA of rank r squared (the columns of one factor times those of the other), a LoKr one of the
    product of its factors' ranks.
    """
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
