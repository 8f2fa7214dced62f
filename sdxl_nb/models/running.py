"""How the layers of unet.py are computed: the `Run` that a forward pass is told, and what has no weights.

GEGLU, the gated activation of the feed-forward layers, has a backward pass that keeps little.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from .unet import Attention, Resnet


class Run(Protocol):
    """How layers are computed in one forward pass."""

    def __call__(self, x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
        """Each layer's own output."""
        ...

    def heads(self, x: torch.Tensor, *layers: nn.Module) -> Sequence[torch.Tensor]:
        """The same of an attention's projections."""
        ...

    def text(self, attention: "Attention", prompt: torch.Tensor) -> Sequence[torch.Tensor]:
        """k and v of an attention over the prompt."""
        ...

    def onto(self, y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        """A layer's output and y together."""
        ...

    def narrowed(self, y: torch.Tensor, wide: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        """y and a layer's output for `gated` of what is wide, together."""
        ...

    def shifted(self, x: torch.Tensor, embedding: torch.Tensor, resnet: "Resnet") -> torch.Tensor:
        """The first convolution of a residual block, moved by what it makes of the timestep's embedding."""
        ...


class Plain:
    """Layer by layer."""

    def __call__(self, x: torch.Tensor, *layers: nn.Module) -> list[torch.Tensor]:
        return [layer(x) for layer in layers]

    heads = __call__

    def text(self, attention: "Attention", prompt: torch.Tensor) -> list[torch.Tensor]:
        return [attention.to_k(prompt), attention.to_v(prompt)]

    def onto(self, y: torch.Tensor, x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        return cast(torch.Tensor, layer(x) + y)

    def narrowed(self, y: torch.Tensor, wide: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        return self.onto(y, gated(wide), layer)

    def shifted(self, x: torch.Tensor, embedding: torch.Tensor, resnet: "Resnet") -> torch.Tensor:
        return cast(torch.Tensor, resnet.conv1(x) + resnet.time_emb_proj(embedding)[:, :, None, None])


plain = Plain()


def sinusoid(values: torch.Tensor, width: int) -> torch.Tensor:
    """Cosines, then sines, of each value at `width / 2` frequencies (arXiv 1706.03762): (N,) -> (N, width) fp32."""
    half = width // 2
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values[:, None].float() * torch.exp(exponents / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


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
        return gated_back(grad, *ctx.saved_tensors)


def gated_back(grad: torch.Tensor, x: torch.Tensor, active: torch.Tensor | None) -> torch.Tensor:
    """The gradient of `gated`'s input x from that of its output; `active` is gelu(g) where it was kept."""
    hidden, gate = x.chunk(2, dim=-1)
    result = torch.empty_like(x)
    to_hidden, to_gate = result.chunk(2, dim=-1)
    if active is None:  # both factors, then both products at once
        torch.ops.aten.gelu.out(gate, out=to_hidden)
        torch.ops.aten.gelu_backward.grad_input(hidden, gate, grad_input=to_gate)
        return result.unflatten(-1, (2, -1)).mul_(grad.unsqueeze(-2)).flatten(-2)
    torch.mul(grad, active, out=to_hidden)
    torch.mul(grad, hidden, out=to_gate)
    torch.ops.aten.gelu_backward.grad_input(to_gate, gate, grad_input=to_gate)
    return result
