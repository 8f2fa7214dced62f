"""Frozen layers that keep their weights in other numbers than they compute in: in 8 bits, or in a half precision.

In: linear layers and convolutions, and a precision. Out: the same layers, of a kind that makes numbers of its codes
each time it computes, forwards and backwards, and keeps none of them. 8 bits have one scale for each output channel
(int8: the largest weight is 127, so no weight is off by more than half a scale; fp8 is e4m3, its largest 448).

Why not torchao 0.18: its int8 weights are for linear layers alone (SDXL has a fifth of its U-Net in convolutions), are
tensor subclasses that cannot be stacked, split and multiplied from the left as `lora/fast.py` and its backward pass do,
and on CPUs take the layers' whole weights in fp32 along the way.
"""

import threading
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

DTYPES = {
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}
AT_ONCE = 2**20  # weights
PIECE = 2**17  # values; half a megabyte of them in fp32
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def apart(precision: str | None, dtype: torch.dtype) -> str | None:
    """The precision where it is another than that of computing, else None: then layers stay as they are."""
    return None if precision is None or DTYPES[precision] == dtype else precision


def encoded(weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(codes in the weight's shape, scales (out,) fp32): weight is about codes x scales; without scales it is codes.

    Both are new. Some rows at a time, for what is computed on the way is four times as large as the codes.
    """
    codes = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    largest = LARGEST.get(dtype)
    if largest is None:
        return codes.copy_(weight), None
    scale = torch.empty(len(weight), device=weight.device)
    many = max(1, AT_ONCE // weight[0].numel())
    for first in range(0, len(weight), many):
        rows = weight[first : first + many].to(torch.float32, copy=True)
        most = torch.linalg.vector_norm(rows.flatten(1), float("inf"), dim=1) / largest
        most = torch.where(most > 0, most, torch.ones_like(most))
        rows.div_(_by_row(most, rows))
        rows = rows.round_() if dtype == torch.int8 else rows
        codes[first : first + many] = rows.clamp_(-largest, largest).to(dtype)
        scale[first : first + many] = most
    return codes, scale


def opened(codes: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
    """(Codes as numbers to multiply with, what outputs are multiplied by then: scales, or None for nothing).

    Codes are exact in bf16 and fp32, and outputs are fewer than weights; in fp16 sums of codes would overflow. The
    numbers are good until the next call in this thread.
    """
    numbers = _scratch(codes, dtype)
    if scale is None or dtype != torch.float16:
        return numbers, scale
    return numbers.mul_(_by_row(scale, numbers)), None


_kept = threading.local()


def _scratch(codes: torch.Tensor, dtype: torch.dtype, use: str = "opened") -> torch.Tensor:
    """A copy in this dtype; on CPUs in memory that is used again, for new memory costs more than the numbers."""
    if codes.device.type != "cpu":
        return codes.to(dtype)
    name = f"{use} {dtype}"
    buffer = getattr(_kept, name, None)
    if buffer is None or buffer.numel() < codes.numel():
        buffer = torch.empty(codes.numel(), dtype=dtype)
        setattr(_kept, name, buffer)
    strides = torch.empty_like(codes, device="meta").stride()  # dense ones, also of a gradient that is one number
    return cast(torch.Tensor, buffer.as_strided(codes.shape, strides).copy_(codes))


def _by_row(scale: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return scale.view(-1, *(1,) * (weight.ndim - 1))


def _by_channel(scale: torch.Tensor, channel: int) -> torch.Tensor:
    return scale if channel == -1 else scale[:, None, None]


def scaled(values: torch.Tensor, scale: torch.Tensor | None, channel: int = -1) -> torch.Tensor:
    """Values times a scale for each of their channels, in their own dtype; good until the next call in this thread."""
    if scale is None:
        return values
    if values.device.type != "cpu":
        return (values * _by_channel(scale, channel)).to(values.dtype)
    return scale_(_scratch(values, values.dtype, "scaled"), scale, channel)


def scale_(values: torch.Tensor, scale: torch.Tensor, channel: int = -1) -> torch.Tensor:
    """Multiply in place by a scale for each channel: (..., channels), or with `channel` 1 (N, channels, h, w).

    On CPUs some rows at a time: what is computed in fp32 on the way would be new memory of twice the values' size.
    """
    factor = _by_channel(scale, channel)
    if values.device.type != "cpu":
        return values.mul_(factor)
    rows = 0 if channel == -1 else 2
    many = max(1, PIECE * values.shape[rows] // max(1, values.numel()))
    for piece in values.split(many, rows):
        piece.mul_(factor)
    return values


def is_hollow(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one number, seen as many: what a model has before it is filled."""
    return tensor.numel() > 1 and tensor.untyped_storage().nbytes() == tensor.element_size()


class Stored(nn.Module):
    """A layer with `codes` and perhaps a `scale` in the place of its weight."""

    codes: torch.Tensor
    scale: torch.Tensor | None
    computing: torch.dtype

    @property
    def weight(self) -> torch.Tensor:
        """What the codes stand for, as a new tensor; of a hollow layer a hollow one."""
        if is_hollow(self.codes):
            return torch.empty(1, dtype=self.computing, device=self.codes.device).expand(self.codes.shape)
        numbers = self.codes.to(self.computing)
        return numbers if self.scale is None else numbers.mul_(_by_row(self.scale, numbers))

    def keep(self, weight: torch.Tensor) -> None:
        """Take this weight."""
        self.codes, self.scale = encoded(weight, self.codes.dtype)

    def _dtype(self, x: torch.Tensor) -> torch.dtype:
        kind = x.device.type
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return torch.get_autocast_dtype(kind) if mixed else x.dtype


class StoredLinear(Stored, nn.Linear):  # type: ignore[override]  # frozen: nothing sets its weight
    """A linear layer: (..., in) -> (..., out)."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """An ordinary layer where peft asks for one more of the same type; without arguments a copy is made."""
        return nn.Linear(*arguments, **named) if arguments or named else super().__new__(cls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _Linear.apply(x.to(self._dtype(x)), self))


class StoredConv(Stored, nn.Conv2d):  # type: ignore[override]  # as above
    """A convolution: (N, in, h, w) -> (N, out, h', w')."""

    def __new__(cls, *arguments: Any, **named: Any) -> Any:
        """As StoredLinear's."""
        return nn.Conv2d(*arguments, **named) if arguments or named else super().__new__(cls)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _Conv.apply(x.to(self._dtype(x)), self))


def stored(layer: nn.Linear | nn.Conv2d, precision: str) -> None:
    """Make a layer one that stores its weight so, in place; a hollow one stays hollow."""
    weight, dtype = layer.weight.detach(), DTYPES[precision]
    if is_hollow(weight):
        codes = torch.empty(1, dtype=dtype, device=weight.device).expand(weight.shape)
        scale = torch.empty(1, device=weight.device).expand(len(weight)) if dtype in LARGEST else None
    else:
        codes, scale = encoded(weight, dtype)
    del layer._parameters["weight"]
    layer.__class__ = StoredLinear if isinstance(layer, nn.Linear) else StoredConv
    layer.register_buffer("codes", codes, persistent=False)
    layer.register_buffer("scale", scale, persistent=False)
    layer.computing = weight.dtype  # type: ignore[assignment]  # it is a Stored now


def store_all(model: nn.Module, precision: str | None) -> None:
    """Make every linear layer and convolution of a model one that stores its weight so; None leaves all as it is."""
    for module in list(model.modules()) if precision else ():
        if isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, Stored):
            stored(module, cast(str, precision))


def linear(rows: torch.Tensor, codes: torch.Tensor, scale: Any, bias: torch.Tensor | None) -> torch.Tensor:
    """rows W' + b of (n, in) rows."""
    numbers, factor = opened(codes, scale, rows.dtype)
    bias = None if bias is None else bias.to(rows.dtype)
    if factor is None:
        return F.linear(rows, numbers, bias)
    y = scale_(torch.mm(rows, numbers.t()), factor)
    return y if bias is None else y.add_(bias)


def linear_back(grad: torch.Tensor, codes: torch.Tensor, scale: Any) -> torch.Tensor:
    """The gradient of (n, in) rows from that of `linear`'s output."""
    numbers, factor = opened(codes, scale, grad.dtype)
    return torch.mm(scaled(grad, factor), numbers)


def conv(x: torch.Tensor, codes: torch.Tensor, scale: Any, bias: torch.Tensor | None, options: Any) -> torch.Tensor:
    """A convolution with stride, padding, dilation and perhaps groups as `options`."""
    numbers, factor = opened(codes, scale, x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    if factor is None:
        return F.conv2d(x, numbers, bias, *options)
    y = scale_(F.conv2d(x, numbers, None, *options), factor, 1)
    return y if bias is None else y.add_(bias[:, None, None])


def conv_back(grad: torch.Tensor, x: torch.Tensor, codes: torch.Tensor, scale: Any, options: Any) -> torch.Tensor:
    """The gradient of a convolution's input `x`, of which only the shape counts."""
    numbers, factor = opened(codes, scale, grad.dtype)
    stride, padding, dilation, *groups = options
    arguments = (stride, padding, dilation, False, (0, 0), *(groups or (1,)), (True, False, False))
    back = torch.ops.aten.convolution_backward(scaled(grad, factor, 1), x, numbers, None, *arguments)
    return cast(torch.Tensor, back[0])


class _Linear(torch.autograd.Function):
    """A StoredLinear; frozen, so its codes are all that the backward pass needs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: StoredLinear) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        y = linear(x.reshape(-1, x.shape[-1]), layer.codes, layer.scale, layer.bias)
        return y.view(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        layer = ctx.layer
        return linear_back(grad.reshape(-1, grad.shape[-1]), layer.codes, layer.scale).view(ctx.shape), None


class _Conv(torch.autograd.Function):
    """A StoredConv; of its input the backward pass needs the shape."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: StoredConv) -> torch.Tensor:
        ctx.layer, ctx.x = layer, x.detach().new_empty(1).expand(x.shape)
        return conv(x, layer.codes, layer.scale, layer.bias, _options(layer))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        layer = ctx.layer
        return conv_back(grad, ctx.x, layer.codes, layer.scale, _options(layer)), None


def _options(layer: StoredConv) -> tuple[Any, ...]:
    return layer.stride, layer.padding, layer.dilation, layer.groups
