"""The products of matrices.py, forwards and backwards: two operations and four, where layers apart take three and five.

In: the input, the pass's token, and a One or a Several. Out: outputs; gradients are added where they belong in the
flat buffer.
"""

from typing import Any

import torch

from .matrices import One, Several


class Single(torch.autograd.Function):
    """x W' + s (x A') B' of one layer without a bias: (..., in) -> (..., out), rows apart in memory."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, token: torch.Tensor, one: One) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        _, width, rank, scale = one.kind
        both = torch.mm(rows, one.both_t)
        out, low = both[:, :width], both[:, width : width + rank]
        out.addmm_(low, one.up_t, alpha=scale)
        ctx.save_for_backward(rows, low)
        ctx.one, ctx.shape = one, x.shape
        return out.view(*x.shape[:-1], width)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        rows, low = ctx.saved_tensors
        return _back(ctx.one, grad, rows, low, ctx.needs_input_grad[0], ctx.shape), None, None


class Onto(torch.autograd.Function):
    """y + x W' + b + s (x A') B' of one layer; the bias comes in with B, as that of a column of ones beside x A'."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, token: torch.Tensor, one: One) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = torch.addmm(one.one, rows, one.down_and_one_t)
        out = torch.addmm(y.reshape(-1, y.shape[-1]), rows, one.weight_t)
        out.addmm_(low, one.up_and_bias_t, alpha=one.scale)
        ctx.save_for_backward(rows, low)
        ctx.one, ctx.shape = one, x.shape
        return out.view(y.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low = ctx.saved_tensors
        low = low[:, : ctx.one.kind.rank]
        return grad, _back(ctx.one, grad, rows, low, ctx.needs_input_grad[1], ctx.shape), None, None


def _back(
    one: One, grad: torch.Tensor, rows: torch.Tensor, low: torch.Tensor, wanted: bool, shape: torch.Size
) -> torch.Tensor | None:
    """The gradients of A and B, added in place, and that of the input."""
    inputs, width, rank, scale = one.kind
    grad = grad.reshape(-1, width)
    back = torch.mm(grad, one.back) if wanted else None
    low_grad = torch.mm(grad, one.up) if back is None else back[:, inputs : inputs + rank]
    one.up_grad.addmm_(grad.t(), low, alpha=scale)
    one.down_grad.addmm_(low_grad.t(), rows, alpha=scale)
    return None if back is None else back[:, :inputs].addmm_(low_grad, one.down, alpha=scale).view(shape)


class Multiple(torch.autograd.Function):
    """Several layers at once: (..., in) -> one (..., out) for each, columns of one matrix."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, token: torch.Tensor, several: Several) -> tuple[torch.Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        both = torch.mm(rows, several.both_t)
        outs, lows = several.columns(both)
        outs.baddbmm_(lows, several.ups_t, alpha=several.scale)
        ctx.save_for_backward(rows, both)
        ctx.several, ctx.shape = several, x.shape
        return tuple(out.view(*x.shape[:-1], several.kind.width) for out in outs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        rows, both = ctx.saved_tensors
        several, wanted = ctx.several, ctx.needs_input_grad[0]
        _, lows = several.columns(both)
        every = rows.new_empty(len(rows), several.widths + several.ranks)
        parts = [grad.reshape(-1, several.kind.width) for grad in grads]
        torch.cat(parts, dim=1, out=every[:, : several.widths])
        outs, low_grads = several.columns(every)
        torch.baddbmm(low_grads, outs, several.ups, beta=0, alpha=several.scale, out=low_grads)
        _up(several, outs.transpose(1, 2), lows)
        _down(several, every[:, several.widths :].t(), rows)
        return torch.mm(every, several.back).view(ctx.shape) if wanted else None, None, None


def _up(several: Several, grads: torch.Tensor, lows: torch.Tensor) -> None:
    """Add the gradients of B, (k, out, n) x (k, n, rank)."""
    if several.up_grad is not None:
        several.up_grad.baddbmm_(grads, lows, alpha=several.scale)
    else:
        torch._foreach_add_(several.up_grads, list(torch.bmm(grads, lows)), alpha=several.scale)


def _down(several: Several, low_grads: torch.Tensor, rows: torch.Tensor) -> None:
    """Add the gradients of A, (k rank, n) x (n, in)."""
    if several.down_grad is not None:
        several.down_grad.view(-1, rows.shape[1]).addmm_(low_grads, rows)
    else:
        torch._foreach_add_(several.down_grads, list(torch.mm(low_grads, rows).split(several.kind.rank)))
