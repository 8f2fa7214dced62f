"""Sums of LoRAs and smaller ones: `LoraWeights` in, `LoraWeights` out, with the share of energy that was kept.

A LoRA's change is a product of thin matrices, and so is a sum of them: the full-size change is never built, but for
the merges that prune (pruning.py).
"""

from collections.abc import Sequence

import torch

from ...system.errors import ModelError
from ..base import Module
from ..kinds.factored import Factored, Parts
from ..layers import AnyLayer, Layer, LoraWeights, delta, fit
from .cutting import Cut, Factors, Reduced, of_matrix, of_product, reduced
from .pruning import SUM, Method


def merge(
    loras: Sequence[tuple[LoraWeights, float]],
    rank: int | None = None,
    *,
    energy: float | None = None,
    per_layer: bool = False,
    method: Method = SUM,
) -> Reduced:
    """The weighted sum of the LoRAs' changes, or what another `method` makes of them, cut by rank or energy (`Cut`).

    Of a sum a rank of at least the sum of theirs loses nothing. ModelError for DoRA, whose change depends on the base.
    """
    cut = Cut(rank, energy, per_layer).asked()
    if not loras:
        raise ModelError("A merge needs at least one LoRA.")
    if len({weights.base.layout for weights, _ in loras}) > 1:
        raise ModelError("These LoRAs belong to different base models and cannot be merged.")
    factors: dict[str, Factors] = {}
    shapes = {}
    for path in dict.fromkeys(path for weights, _ in loras for path in weights.layers):
        parts = [(plain(w.layers[path], path, w), weight) for w, weight in loras if path in w.layers]
        _check_parts(path, [layer for layer, _ in parts])
        shapes[path] = tuple(parts[0][0].down.shape[1:])
        factors[path] = _summed(parts, cut) if method == SUM else _pruned(path, parts, cut, method)
    return reduced(factors, shapes, loras[0][0].base, cut)


def resize(
    weights: LoraWeights, rank: int | None = None, *, energy: float | None = None, per_layer: bool = False
) -> Reduced:
    """The same LoRA at a lower rank, or with a share of its energy (`Cut`).

    A layer that already has so low a rank keeps its own weights, LoHa and LoKr become LoRA.
    """
    smaller = merge([(weights, 1.0)], rank, energy=energy, per_layer=per_layer)
    for path, layer in weights.layers.items():
        if isinstance(layer, Layer) and layer.rank <= smaller.weights.layers[path].rank:
            smaller.weights.layers[path] = layer
    smaller.weights.metadata.update(weights.metadata)
    return smaller


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


def plain(layer: AnyLayer, path: str, weights: LoraWeights) -> Layer:
    """The layer as LoRA's two matrices. ModelError for a LoHa or LoKr of a module that its base does not have."""
    if isinstance(layer, Layer):
        return layer
    module = weights.base.inventory.get(path)
    if module is None:
        raise ModelError(f"The LoRA has a layer for {path}, which this base model does not have.")
    fit(layer, module, path)
    return as_lora(layer, module)


def _check_parts(path: str, layers: Sequence[Layer]) -> None:
    """ModelError for layers of one module that cannot be summed."""
    if len({(layer.up.shape[0], *layer.down.shape[1:]) for layer in layers}) > 1:
        raise ModelError(f"The LoRAs' layers for {path} have different widths and cannot be merged.")
    if any(layer.dora_scale is not None for layer in layers):
        raise ModelError(
            f"{path} is a DoRA layer, whose change depends on the base model: it cannot be cut or summed before "
            "convert --plain --base makes a plain LoRA of it."
        )


def _summed(parts: Sequence[tuple[Layer, float]], cut: Cut) -> Factors:
    up = torch.cat([layer.up.flatten(1).double() * layer.scale * weight for layer, weight in parts], dim=1)
    return of_product(up, torch.cat([layer.down.flatten(1) for layer, _ in parts]), cut)


def _pruned(path: str, parts: Sequence[tuple[Layer, float]], cut: Cut, method: Method) -> Factors:
    changes = [delta(layer).flatten(1) for layer, _ in parts]
    return of_matrix(method.merged(changes, [weight for _, weight in parts], path), cut)


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
