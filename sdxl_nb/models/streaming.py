"""A part's weights, tensor by tensor from safetensors files to where they compute: nothing is in memory twice.

In: files, and a model made on the meta device. Out: the same model, first hollow (tensors with shape and dtype but of
one number each, so that LoRA can be put on it), then filled. What is read of a file is copied and the file's mapped
pages are let go, for a mapped page counts as memory as long as the file is open.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .checkpoint_names import Place
from .stored import Stored, stored

LET_GO = 2**25  # bytes read before a file is opened anew
META = torch.device("meta")


class Hollow(TorchFunctionMode):
    """Within the block modules of this thread are shapes alone, on the meta device, and torch.nn.init does nothing."""

    def __enter__(self) -> "Hollow":
        META.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        META.__exit__(*exception)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class Weights:
    """The tensors of some safetensors files; SafetensorError or OSError for one that is broken."""

    def __init__(self, files: Iterable[Path]):
        self.files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._opened: tuple[Path, Any] | None = None
        self._read = 0
        for path in files:
            file = self._open(path)
            for name in file.keys():  # noqa: SIM118  # safetensors' own, which is no mapping
                self.files[name], self.shapes[name] = path, tuple(file.get_slice(name).get_shape())
        self.let_go()

    def _open(self, path: Path) -> Any:
        from safetensors import safe_open

        if self._opened is None or self._opened[0] != path or self._read > LET_GO:
            self.let_go()
            self._opened, self._read = (path, safe_open(path, framework="pt")), 0
        return self._opened[1]

    def read(self, place: Place) -> torch.Tensor:
        """A tensor as the file has it, mapped: copy it before the next is read."""
        file = self._open(self.files[place.key])
        if place.third is None:
            found = file.get_tensor(place.key)
        else:
            rows = self.shapes[place.key][0] // 3
            found = file.get_slice(place.key)[place.third * rows : (place.third + 1) * rows]
        self._read += found.nbytes
        mapped: torch.Tensor = found.T if place.transposed else found
        return mapped

    def let_go(self) -> None:
        """Close what is open, and with it the pages read so far."""
        self._opened = None


Change = Callable[[str, torch.Tensor], torch.Tensor]  # a parameter's name and values -> what it is to be


class Slot(NamedTuple):
    """A tensor that a model wants: where it goes, and where it comes from."""

    name: str
    module: nn.Module
    leaf: str
    place: Place
    shape: torch.Size


class Filling:
    """A model on the meta device, made hollow here, and what `fill` puts into it.

    `place(name)` says where the files keep a parameter. `precision` is that of stored.py, of linear layers and
    convolutions; None keeps them in `dtype`. `change` makes other values of what is read, before it is stored. KeyError
    where the files lack a tensor or have it in another shape.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        place: Callable[[str], Place],
        dtype: torch.dtype,
        precision: str | None = None,
        change: Change | None = None,
    ):
        self.model, self.weights, self.dtype, self.change = model, weights, dtype, change
        self.slots = [self._slot(name, parameter, place(name)) for name, parameter in model.named_parameters()]
        for slot in self.slots:
            self._hollow(slot, precision)

    def _slot(self, name: str, parameter: torch.Tensor, place: Place) -> Slot:
        if place.inner(self.weights.shapes[place.key]) != tuple(parameter.shape):
            raise KeyError(name)
        module, _, leaf = name.rpartition(".")
        return Slot(name, self.model.get_submodule(module), leaf, place, parameter.shape)

    def _hollow(self, slot: Slot, precision: str | None) -> None:
        empty = torch.empty(1, dtype=self.dtype).expand(slot.shape)
        setattr(slot.module, slot.leaf, nn.Parameter(empty, requires_grad=False))
        if precision and slot.leaf == "weight" and isinstance(slot.module, nn.Linear | nn.Conv2d):
            stored(slot.module, precision)

    def fill(self, device: torch.device | None = None) -> None:
        """Read every tensor, the next when the one before is where it stays."""
        device = device or torch.device("cpu")
        for slot in self.slots:
            layer, mapped = slot.module, self.weights.read(slot.place).reshape(slot.shape)
            mapped = self.change(slot.name, mapped) if self.change else mapped
            if isinstance(layer, Stored) and slot.leaf == "weight":
                layer.keep(mapped.to(device))
            else:
                copied = mapped.to(device, self.dtype, copy=True, memory_format=torch.contiguous_format)
                getattr(layer, slot.leaf).data = copied
        self.weights.let_go()
