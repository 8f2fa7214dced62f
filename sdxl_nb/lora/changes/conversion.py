"""LoHa, LoKr and DoRA as plain LoRA, for readers that know nothing else.

In: `LoraWeights` of any kind, of DoRA the base too. Out: `Reduced`: layers of two matrices with the same changes, and
what they keep of them. LoHa and LoKr have an exact LoRA, of a larger rank; a DoRA's change has as many ranks as the
weight has rows, so that a cut decides what stays of it.
"""

from collections.abc import Iterator

import torch

from ...models.refusals.kinds import check_base
from ...models.sources import Source
from ...system.errors import ModelError
from ..layers import Layer, LoraWeights, delta
from ..names import COMPONENTS, canonical_path
from .arithmetic import plain
from .cutting import Cut, Reduced, of_matrix, of_product, reduced
from .reading import opened_parts


def to_lora(weights: LoraWeights, base: Source | None = None, cut: Cut | None = None) -> Reduced:
    """The same changes as plain LoRA, cut if that is asked; layers that are LoRA already stay as they are.

    ModelError for DoRA without its `base`, or without a rank or an energy.
    """
    cut = cut or Cut()
    dora = {path for path, layer in weights.layers.items() if layer.dora_scale is not None}
    if dora and base is None:
        raise ModelError(f"{min(dora)} is a DoRA layer, whose change depends on the base model: give the base too.")
    if dora and cut == Cut():
        raise ModelError("The change of a DoRA layer has no low rank: give a rank, or the share of the energy to keep.")
    factors, shapes = {}, {}
    for path, layer in weights.layers.items():
        if path not in dora:
            whole = plain(layer, path, weights)
            factors[path] = of_product(whole.up.flatten(1) * whole.scale, whole.down.flatten(1), cut)
            shapes[path] = tuple(whole.down.shape[1:])
    for path, weight in _weights(base, dora) if base else ():
        change = delta(weights.layers[path], weight)
        factors[path], shapes[path] = of_matrix(change.flatten(1), cut), tuple(weight.shape[1:])
    made = reduced({path: factors[path] for path in weights.layers}, shapes, weights.base, cut)
    for path, layer in weights.layers.items():
        if isinstance(layer, Layer) and path not in dora and layer.rank <= made.weights.layers[path].rank:
            made.weights.layers[path] = layer
    made.weights.metadata.update(weights.metadata)
    return made


def _weights(base: Source, wanted: set[str]) -> Iterator[tuple[str, torch.Tensor]]:
    """The base's weights of these modules, in fp32, one after the other. ModelError where it lacks one."""
    check_base(base)
    missing = set(wanted)
    for name, part in opened_parts(base).items():
        for parameter in part if name in COMPONENTS else ():
            path = canonical_path(f"{name}.{parameter.module_name}")
            if path in missing and parameter.is_weight:
                missing.discard(path)
                yield path, parameter.read().float()
    if missing:
        raise ModelError(f"{base.name} has no module {min(missing)}: give the base that the LoRA was trained on.")
