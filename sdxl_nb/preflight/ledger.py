"""Tensors without memory, and what is done with them: bytes alive, FLOPs and operations of any code on the meta device.

Out: `Ledger`, a dispatch mode that follows every storage from birth to death, and `Device`, a function mode that makes
the meta device compute as another one. Both are on while what is to be counted runs.
"""

import weakref
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
FREE = {"detach", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "alias", "lift_fresh"}


class Layout(NamedTuple):
    """How a tensor lies in memory."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class Results:
    """What operations give on the meta device, worked out once for the same shapes: torch does it in Python, slowly.

    An operation that writes gives back what it wrote to; one that makes something new, new tensors of the same layout.
    Views and whatever else shares a storage are left to torch every time.
    """

    SHARING = frozenset({"_unsafe_view", "lift_fresh", "detach", "alias", "set_"})  # their schemas do not say it

    def __init__(self) -> None:
        self._layouts: dict[Any, Any] = {}

    def of(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What `func(*args, **kwargs)` gives, without values."""
        key = (func, _described(args), _described(tuple(kwargs.items())))
        if func._overloadpacket.__name__ in self.SHARING or "out" in kwargs:
            return func(*args, **kwargs)
        if (known := self._layouts.get(key)) is None:
            out = func(*args, **kwargs)
            changed = _described(args) != key[1]  # resized, turned
            self._layouts[key] = "shared" if changed else _layout(func, out, (args, kwargs))
            return out
        if known == "itself":
            return args[0]
        return func(*args, **kwargs) if known == "shared" else _made(known)


def _described(value: Any) -> Any:
    """What of an argument the shape of a result can depend on, to be looked up by."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else (type(value), value)


def _layout(func: Any, out: Any, given: Any) -> Any:
    """The Layout of a new tensor, or of each; "itself" for the first argument, "shared" for all else."""
    if out is given[0][0] if given[0] else False:
        return "itself"
    made = out if isinstance(out, list | tuple) else [out]
    storages = {leaf.untyped_storage()._cdata for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)}
    layouts: list[Layout | None] = []
    for tensor in made:
        if tensor is None:
            layouts.append(None)
            continue
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "meta":
            return "shared"
        layout = Layout(tuple(tensor.shape), tensor.stride(), tensor.dtype)
        layouts.append(layout)
        whole = _made(layout).untyped_storage().nbytes()
        if tensor.untyped_storage()._cdata in storages or tensor.untyped_storage().nbytes() != whole:
            return "shared"
    return type(out)(layouts) if isinstance(out, list | tuple) else layouts[0]


def _made(layout: Any) -> Any:
    """New tensors of a layout, without memory."""
    if isinstance(layout, Layout):
        shape, strides, dtype = layout
        return torch.ops.aten.empty_strided.default(shape, strides, dtype=dtype, device=META)
    return None if layout is None else type(layout)(map(_made, layout))


RESULTS = Results()


class Ledger(TorchDispatchMode):
    """Follows storages while it is on: `now` and `peak` bytes, and FLOPs and operations dispatched."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = self.flops = self.operations = 0
        self._alive: dict[int, Any] = {}

    def begin(self) -> None:
        """Count anew; what is alive stays known."""
        self.peak, self.flops, self.operations = self.now, 0, 0

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until it is gone."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._alive:
            return
        size = storage.nbytes()
        self._alive[storage._cdata] = weakref.finalize(storage, self._drop, storage._cdata, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        self._alive.pop(key, None)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = RESULTS.of(func, args, kwargs or {})
        name = func._overloadpacket.__name__
        returns = func._schema.returns
        view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
        self.operations += not view and name not in FREE
        if counted := flop_registry.get(func._overloadpacket):
            self.flops += counted(*args, **(kwargs or {}), out_val=out)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


class _Attention(torch.autograd.Function):
    """Fused attention as every device has it: keeps q, k, v, its output and one number a query."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ledger: Ledger) -> torch.Tensor:
        out, sums = torch.empty_like(q), torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        ctx.save_for_backward(q, k, v, out, sums)
        ctx.ledger, ctx.flops = ledger, 4 * q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * q.shape[3]
        ledger.flops, ledger.operations = ledger.flops + ctx.flops, ledger.operations + 1
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, _, _ = ctx.saved_tensors
        ctx.ledger.flops += ctx.flops * 5 // 2  # five products instead of two
        ctx.ledger.operations += 1
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


class Device(TorchFunctionMode):
    """Makes the meta device compute as the one that is meant: fused attention, and autocast to `dtype` where given.

    `norms_in_fp32` as CUDA's autocast has it (the CPU's has not). Casts of weights are kept until the end, as there.
    """

    PRODUCTS = (F.linear, F.conv2d, torch.matmul, torch.bmm)
    NORMS = (F.group_norm, F.layer_norm, torch.group_norm, torch.layer_norm)

    def __init__(self, ledger: Ledger, dtype: torch.dtype | None, norms_in_fp32: bool):
        super().__init__()
        self.ledger, self.dtype, self.norms_in_fp32 = ledger, dtype, norms_in_fp32
        self._casts: dict[int, torch.Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*(self._cast(t, self.dtype) for t in args[:3]), self.ledger)
        if func in self.PRODUCTS:
            args = [self._cast(value, self.dtype) for value in args]
        elif func in self.NORMS and self.norms_in_fp32:
            args = [self._cast(value, torch.float32) for value in args]
            kwargs = {name: self._cast(value, torch.float32) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    def _cast(self, value: Any, dtype: torch.dtype | None) -> Any:
        if not isinstance(value, torch.Tensor) or dtype is None or not value.is_floating_point():
            return value
        if value.dtype == dtype or not (value.is_leaf and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self._casts:
            self._casts[id(value)] = value.to(dtype)
        return self._casts[id(value)]
