"""GEGLU, the gated activation of the U-Net's feed-forward layers, with a backward pass that keeps little."""

from typing import Any

import torch
import torch.nn.functional as F


def gated(x: torch.Tensor) -> torch.Tensor:
    """h * gelu(g) of (..., 2c) = [h, g] (GEGLU, arXiv 2002.05202)."""
    if torch.compiler.is_compiling():  # a compiler fuses it by itself, and refuses results written into views
        hidden, gate = x.chunk(2, dim=-1)
        return hidden * F.gelu(gate)
    return _Gated.apply(x)


class _Gated(torch.autograd.Function):
    """`gated`, keeping its input alone but on CPUs: elsewhere gelu(g) costs less to have again than to keep."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        hidden, gate = x.chunk(2, dim=-1)
        active = F.gelu(gate)
        ctx.save_for_backward(x, active if x.is_cpu else None)
        return active * hidden if x.is_cpu else active.mul_(hidden)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        x, active = ctx.saved_tensors
        hidden, gate = x.chunk(2, dim=-1)
        result = torch.empty_like(x)
        to_hidden, to_gate = result.chunk(2, dim=-1)
        torch.mul(grad, F.gelu(gate) if active is None else active, out=to_hidden)
        torch.mul(grad, hidden, out=to_gate)
        torch.ops.aten.gelu_backward.grad_input(to_gate, gate, grad_input=to_gate)
        return result
