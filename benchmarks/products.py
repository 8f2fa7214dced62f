"""bf16 products on a CPU that has none of its own: multiplied in fp32 and rounded once, as one that has them does.

    python benchmarks/products.py MODULE ARGUMENT ...

In: a module that is run as `python -m` does. torch's own bf16 products take up to seventy times as long as these where
the CPU has none, which hides what else takes time. A weight is copied to fp32 in parts: whole it is 118 MB for SDXL's
largest, and oneDNN makes another of it. Copies below 32 MB have a place that the next product uses again: taken
from glibc's heap each time, they left it with 1.5 GB of holes. No CPU with bf16 of its own has either. It changes the
process for good, so it is for benchmarks alone.
"""

import math
import runpy
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

LIBRARY = torch.library.Library("aten", "IMPL")
aten = torch.ops.aten
rooms: dict[int, torch.Tensor] = {}  # where copies lie: in 0 the last operand's, then those before it, in 3 the result
PART = 2**21  # numbers of a weight that are multiplied at once
MAPPED = 2**23  # numbers; glibc maps what is as large by itself, and gives it back at once


def needed() -> bool:
    """Whether this CPU lacks bf16 products."""
    return not torch.ops.mkldnn._is_mkldnn_bf16_supported()


def product(name: str, shape: Any) -> Any:
    """aten's product of this name, `shape` that of its result; what is not bf16 goes where it went before.

    A matrix is multiplied in groups of columns, so that its copy stays small.
    """

    def multiplied(*given: Any, **named: Any) -> Any:
        *others, last = given
        size = shape(*given)
        if others[0].dtype != torch.bfloat16:
            return getattr(aten, name).out(*given, **named, out=others[0].new_empty(size))
        out, columns = room(3, size), last.shape[-1]
        *bias, first = up(torch.bfloat16, (*others, None))[:-1]
        many = math.ceil(last.numel() / PART) if last.ndim == 2 else 1
        for part in range(many):
            some = slice(part * columns // many, (part + 1) * columns // many)
            high = _raised(0, last[..., some])
            getattr(aten, name).out(*(each[..., some] for each in bias), first, high, **named, out=out[..., some])
        return out.to(torch.bfloat16)

    return multiplied


def room(number: int, shape: Sequence[int]) -> torch.Tensor:
    """A place for so many numbers in fp32, until it is asked for again."""
    many = math.prod(shape)
    if many >= MAPPED:
        return torch.empty(shape)
    if number not in rooms or rooms[number].numel() < many:
        rooms[number] = torch.empty(many)
    return rooms[number][:many].view(shape)


def up(dtype: torch.dtype, given: Any) -> list[Any]:
    """Tensors in fp32 if this is bf16."""
    if dtype != torch.bfloat16:
        return list(given)
    last = len(given) - 1
    return [_raised(last - at, each) if isinstance(each, torch.Tensor) else each for at, each in enumerate(given)]


def _raised(number: int, tensor: torch.Tensor) -> torch.Tensor:
    """A copy in fp32 that lies as the tensor does, so that no product has to turn it."""
    if tensor.is_contiguous() or (tensor.ndim == 2 and tensor.stride(1) == 1):
        return room(number, tensor.shape).copy_(tensor)
    if tensor.ndim == 2 and tensor.stride(0) == 1:
        return room(number, tensor.shape[::-1]).copy_(tensor.t()).t()
    return tensor.float()


def convolution(x: Any, weight: Any, bias: Any, *options: Any) -> Any:
    """As aten::convolution, in so many groups of output channels that a weight's copy stays small."""
    transposed, groups = options[3], options[5]
    many = math.ceil(weight.numel() / PART) if x.dtype == torch.bfloat16 and groups == 1 else 1
    biases = (None,) * many if bias is None else bias.chunk(many)
    high = up(x.dtype, (x, None, None))[0]
    parts = []
    for of_weight, of_bias in zip(weight.chunk(many, int(transposed)), biases, strict=True):
        _, *own = up(x.dtype, (None, of_weight, of_bias))
        parts.append(aten._convolution(high, *own, *options, False, False, True, True).to(x.dtype))
    return torch.cat(parts, 1) if many > 1 else parts[0]


def convolution_backward(
    grad: Any, x: Any, weight: Any, sizes: Any, stride: Any, padding: Any, dilation: Any, *options: Any
) -> Any:
    """As aten's, of a frozen convolution, whose input's gradient is a transposed convolution."""
    transposed, _, groups, wanted = options
    if list(wanted) != [True, False, False] or transposed:
        raise NotImplementedError("a convolution that is trained")
    pairs = zip(x.shape[2:], grad.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
    more = [size - ((out - 1) * s - 2 * p + d * (k - 1) + 1) for size, out, s, p, d, k in pairs]
    back = convolution(grad, weight, None, stride, padding, dilation, True, more, groups)
    return back, None, None


def install() -> None:
    """Put them in torch's place for the rest of the process."""
    products = {
        "mm": product("mm", lambda a, b: (a.shape[0], b.shape[1])),
        "addmm": product("addmm", lambda bias, a, b: (a.shape[0], b.shape[1])),
        "bmm": product("bmm", lambda a, b: (a.shape[0], a.shape[1], b.shape[2])),
        "convolution": convolution,
        "convolution_backward": convolution_backward,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced
        for name, function in products.items():
            LIBRARY.impl(name, function, "CPU")


if __name__ == "__main__":
    install()
    del sys.path[0]  # this folder, whose modules have common names
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
