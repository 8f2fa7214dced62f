"""An optimizer that a person names by its path, such as torch.optim.RAdam: imported, and tried out before a run.

In: the path, which comes from flags and our own configuration files alone (config/header.py sees to that, because
importing runs code). Out: the class, and remarks; ConfigError with one sentence for what cannot train a LoRA here.
"""

import contextlib
import copy
import importlib
import io
import json
from collections.abc import Callable, Sequence

import torch

from ...models.sources import first_line
from ...system.errors import ConfigError
from ..state.parameters import FlatParameters
from .stored_state import optimizer_state, restore_optimizer

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
SIDE = 4  # of the matrices that it is tried out with


def load_class(path: str) -> type[torch.optim.Optimizer]:
    """The class at a dotted path; ConfigError when there is none, or it is no torch Optimizer."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise ConfigError(
            f"optimizer {path} cannot be imported ({first_line(error).rstrip('.')}): check the name, or install its "
            "package"
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ConfigError(f"optimizer {path} is no class of torch.optim.Optimizer: name one that is")
    return found


def try_out(path: str, make: Make, flat: FlatParameters) -> list[str]:
    """Three steps with small matrices of the trained layers' kinds, on their device; remarks, or ConfigError."""
    dimensions = sorted({parameter.ndim for parameter in flat.parameters})
    straight = _tensors(dimensions, flat.weights.device)
    again = copy.deepcopy(straight)
    places = [parameter.data_ptr() for parameter in straight]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _steps(make(straight), straight, range(3))
            first = make(again)
            _steps(first, again, range(1))
            tensors, rest = optimizer_state(first)
            kept = json.loads(json.dumps(rest, allow_nan=False)), {name: t.clone() for name, t in tensors.items()}
            second = make(again)
            restore_optimizer(second, kept[1], kept[0])
            _steps(second, again, range(1, 3))
    except ConfigError:
        raise
    except Exception as error:  # theirs, of every kind
        raise ConfigError(
            f"optimizer {path} cannot train a LoRA here ({first_line(error).rstrip('.') or type(error).__name__}): "
            "use another one"
        ) from error
    if places != [parameter.data_ptr() for parameter in straight]:
        raise ConfigError(f"optimizer {path} puts new tensors in the weights' place: use one that changes them")
    if all(torch.equal(one, other) for one, other in zip(straight, again, strict=True)):
        return []
    return [
        f"Optimizer {path} does not go on exactly from what its state says: a run that is resumed will not end bit "
        "for bit as one that was not interrupted."
    ]


def _tensors(dimensions: Sequence[int], device: torch.device) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(SIDE,) * min(ndim, 2) + (1,) * (ndim - 2) for ndim in dimensions]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]


def _steps(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        optimizer.step()
