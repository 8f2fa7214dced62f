"""Frozen weights and the LoRA of the layers that share them, laid out so that one product computes both.

In: LoRA layers of one width, rank and scale, as LoraFast knows them. Out: matrices of which the layers' own weights
become views, so that nothing is kept twice. A and B are copied in before each forward pass (`LoraFast.begin`).

Of one layer it is  M = [W  B b/s]  so that  x M' = [x W', x A'] and g M = [g W, g B]:  what comes in meets W and A at
                        [A  0  0 ]  once, what comes back W and B. Of several it is [W; A] alone, all W before all A.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ...models.stored import Stored
from ...system.memory import trim
from ..kinds.plain import ADAPTER

if TYPE_CHECKING:
    from ..fast import LoraFast

EVEN = 16  # rows and columns begin at multiples of it: 64 bytes of fp32, as vector registers and GPUs want them
LARGE = 2**20  # bytes


class Kind(NamedTuple):
    """What layers must have in common."""

    inputs: int
    width: int
    rank: int
    scale: float


def kind(layer: nn.Module) -> Kind | None:
    """The kind of a plain linear layer with LoRA; None for what is computed another way."""
    base: Any = getattr(layer, "base_layer", None)
    known: Any = layer
    if base is None or not isinstance(base, nn.Linear) or isinstance(base, Stored) or not known.scaling[ADAPTER]:
        return None
    return Kind(base.in_features, base.out_features, known.r[ADAPTER], known.scaling[ADAPTER])


def even(size: int) -> int:
    return -(-size // EVEN) * EVEN


class One:
    """One layer; see the module."""

    def __init__(self, fast: "LoraFast", layer: Any):
        inputs, width, rank, self.scale = found = _known(kind(layer))
        base, extra = layer.base_layer, even(rank + 1)
        whole = base.weight.new_zeros(even(width) + extra, even(inputs) + extra)
        place = whole[:width, :inputs]
        move([base.weight], [place])
        if base.bias is not None:
            whole[:width, inputs + rank] = base.bias / self.scale
        self.kind = found
        self.weight_t = place.t()
        down = whole[width : width + rank, :inputs]
        up = whole[:width, inputs : inputs + rank]
        self.both_t = whole[: even(width + rank), :inputs].t()  # W and A
        self.back = whole[:width, : even(inputs + rank)]  # W and B
        self.down, self.up, self.up_t = down, up, up.t()
        self.down_and_one_t = whole[width : width + extra, :inputs].t()
        self.up_and_bias_t = whole[:width, inputs : inputs + extra].t()
        self.one = whole.new_zeros(extra)
        self.one[rank] = 1
        self.down_grad = fast.places_of([layer.lora_A[ADAPTER]])[1]
        self.up_grad = fast.places_of([layer.lora_B[ADAPTER]])[1]
        fast.copy_in([down, up], [layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight])


class Several:
    """Layers of one kind that share an input. `ups` (k, width, rank) are their B, `grads` where gradients go."""

    def __init__(self, fast: "LoraFast", layers: Sequence[Any]):
        inputs, width, rank, self.scale = self.kind = _known(kind(layers[0]))
        self.count = count = len(layers)
        self.widths, self.ranks = count * width, count * rank
        base = layers[0].base_layer.weight
        whole = base.new_zeros(even(self.widths + self.ranks), inputs)
        move([layer.base_layer.weight for layer in layers], whole[: self.widths].split(width))
        self.both_t = whole.t()
        self.back = whole[: self.widths + self.ranks]
        self.ups = base.new_empty(count, width, rank)
        self.ups_t = self.ups.transpose(1, 2)
        downs = whole[self.widths : self.widths + self.ranks].split(rank)
        a, b = ([each[ADAPTER] for each in (getattr(layer, n) for layer in layers)] for n in ("lora_A", "lora_B"))
        self.down_grad, self.up_grad = _together(fast, a), _together(fast, b)
        self.down_grads = [fast.places_of([each])[1] for each in a] if self.down_grad is None else []
        self.up_grads = [fast.places_of([each])[1] for each in b] if self.up_grad is None else []
        fast.copy_in([*downs, *self.ups], [each.weight for each in (*a, *b)])

    def columns(self, whole: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of rows that begin with what belongs to W and A: (k, n, width) and (k, n, rank), as views."""
        count, (rows, far), (_, width, rank, _) = self.count, (len(whole), whole.stride(0)), self.kind
        wide = whole.as_strided((count, rows, width), (width, far, 1))
        return wide, whole.as_strided((count, rows, rank), (rank, far, 1), whole.storage_offset() + self.widths)


def _known(found: Kind | None) -> Kind:
    assert found is not None
    return found


def _together(fast: "LoraFast", modules: Sequence[Any]) -> torch.Tensor | None:
    """Where the gradients of several matrices lie, (k, ...), when they do so side by side."""
    try:
        grads = fast.places_of(modules)[1]
    except ValueError:
        return None
    return grads.view(len(modules), -1, grads.shape[-1])


@torch.no_grad()
def move(owners: Sequence[torch.Tensor], places: Sequence[torch.Tensor]) -> None:
    """Copy weights to where they will lie, of which they become views, one by one: little is in memory twice."""
    moved = 0
    for owner, place in zip(owners, places, strict=True):
        place.copy_(owner)
        moved += owner.nbytes
        owner.data = place
        if place.is_cpu and moved > 64 * LARGE:
            trim()  # else what they took stays a hole
            moved = 0
    if places[0].is_cpu and sum(place.nbytes for place in places) > LARGE:
        trim()


def alike(layers: Sequence[nn.Module]) -> bool:
    """Whether these can be computed as one."""
    kinds = {kind(layer) for layer in layers}
    return len(kinds) == 1 and None not in kinds and not any(_bias(layer) for layer in layers)


def _bias(layer: Any) -> bool:
    return layer.base_layer.bias is not None


def texts(attentions: Sequence[Any]) -> Iterator[list[Any]]:
    """Attentions over the prompt whose k and v are of one kind, in their order, so that all k and v are one product."""
    groups: dict[Kind, list[Any]] = {}
    for attention in attentions:
        if alike([attention.to_k, attention.to_v]):
            groups.setdefault(_known(kind(attention.to_k)), []).append(attention)
    yield from groups.values()
