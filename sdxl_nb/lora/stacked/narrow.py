"""Gated values, the frozen layer that narrows them, its bias and what they are added to: one product.

In: a linear layer without LoRA, and what feed-forward layers hand it. Out: their sum. The bias is a column beside W,
which meets a column of ones beside the gated values; those are written into a buffer that is used again and again, for
nothing of a frozen layer's input is kept for the backward pass.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from ...models.running import gated_back
from .matrices import even, move


class Narrow:
    """[W b] of one layer, of which its weight becomes a view."""

    def __init__(self, layer: nn.Linear):
        self.inputs, self.width = layer.in_features, layer.out_features
        whole = layer.weight.new_zeros(self.width, even(self.inputs + 1))
        self.weight = whole[:, : self.inputs]
        move([layer.weight], [self.weight])
        whole[:, self.inputs] = layer.bias.detach()
        self.whole_t = whole.t()


class Narrowing:
    """The layers of a U-Net of this kind, and the buffers that their inputs are written into, one for each width."""

    def __init__(self, wanted: bool):
        self.wanted = wanted
        self.found: dict[nn.Module, Narrow | None] = {}
        self.rooms: dict[int, torch.Tensor] = {}

    def of(self, layer: nn.Module) -> Narrow | None:
        """What there is of a layer: of a plain frozen one with a bias."""
        if layer not in self.found:
            plain = type(layer) is nn.Linear and layer.bias is not None and not layer.weight.requires_grad
            self.found[layer] = Narrow(cast(nn.Linear, layer)) if self.wanted and plain else None
        return self.found[layer]

    def room(self, like: torch.Tensor, inputs: int) -> torch.Tensor:
        """A buffer of as many rows, whose column behind the inputs is ones."""
        room = self.rooms.get(inputs)
        if room is None or len(room) < len(like) or room.dtype != like.dtype or room.device != like.device:
            room = self.rooms[inputs] = like.new_zeros(len(like), even(inputs + 1))
            room[:, inputs] = 1
        return room[: len(like)]

    def __call__(self, y: torch.Tensor, wide: torch.Tensor, narrow: Narrow) -> torch.Tensor:
        """y + gated(wide) W' + b."""
        values = _Gate.apply(wide, narrow.inputs, self.room)  # type: ignore[no-untyped-call]  # torch says no types
        return cast(torch.Tensor, _Sum.apply(y, values, narrow))  # type: ignore[no-untyped-call]  # no types


class _Gate(torch.autograd.Function):
    """`gated`, in a room; gelu of the gates is kept on CPUs, where it costs more to have again."""

    @staticmethod
    def forward(ctx: Any, wide: torch.Tensor, inputs: int, room: Callable[..., torch.Tensor]) -> torch.Tensor:
        rows = wide.reshape(-1, 2 * inputs)
        hidden, gate = rows.chunk(2, dim=-1)
        values = room(rows, inputs)[:, :inputs]
        active = F.gelu(gate)
        torch.mul(active, hidden, out=values)
        ctx.save_for_backward(rows, active if rows.is_cpu else None)
        ctx.shape = wide.shape
        return values

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gated_back(grad, *ctx.saved_tensors).view(ctx.shape), None, None


class _Sum(torch.autograd.Function):
    """y + [values 1] [W b]'; apart from `_Gate`, for recomputing ends with what that keeps, and needs no product."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, values: torch.Tensor, narrow: Narrow) -> torch.Tensor:
        ctx.narrow = narrow
        with_ones = values.as_strided((len(values), len(narrow.whole_t)), values.stride())
        return torch.addmm(y.reshape(-1, narrow.width), with_ones, narrow.whole_t).view(y.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        return grad, torch.mm(grad.reshape(-1, ctx.narrow.width), ctx.narrow.weight), None
