"""The state of any optimizer as tensors and JSON, and back, exactly; nothing is pickled.

In: a torch Optimizer. Out: its tensors by dotted name led by `optimizer.`, and the rest as a tree for JSON.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The whole state of any optimizer: its tensors by dotted name led by `optimizer.`, and the rest for JSON."""
    tensors: Tensors = {}
    return tensors, _take_tensors(optimizer.state_dict(), "optimizer", tensors)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, rest: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`, for an optimizer made in the same way."""
    state = _put_tensors(rest, tensors)
    optimizer.load_state_dict(state)
    _keep_dtypes(optimizer, state.get("state", {}))


def _keep_dtypes(optimizer: torch.optim.Optimizer, stored: Mapping[Any, Any]) -> None:
    """Tensors in the dtype that they had: torch casts a parameter's floating-point state to the parameter's own."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for place, kept in stored.items():
        for key, value in kept.items():
            now = optimizer.state.get(parameters[place], {}).get(key)
            if isinstance(now, torch.Tensor) and isinstance(value, torch.Tensor) and now.dtype != value.dtype:
                optimizer.state[parameters[place]][key] = value.to(now.device, copy=True)


def _take_tensors(node: Any, name: str, tensors: Tensors) -> Any:
    """A copy of a state's tree in which the name of a tensor stands for it."""
    if isinstance(node, torch.Tensor):
        tensors[name] = node
        return {"tensor": name}
    if isinstance(node, dict):
        return {str(key): _take_tensors(value, f"{name}.{key}", tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        items = [_take_tensors(value, f"{name}.{number}", tensors) for number, value in enumerate(node)]
        return {"tuple": items} if isinstance(node, tuple) else items  # some compare with one
    return {"float": str(node)} if node in (math.inf, -math.inf) else node  # JSON has no infinity


def _put_tensors(node: Any, tensors: Tensors) -> Any:
    if isinstance(node, list):
        return [_put_tensors(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if set(node) == {"tensor"}:
        return tensors[node["tensor"]]
    if set(node) == {"tuple"}:
        return tuple(_put_tensors(value, tensors) for value in node["tuple"])
    if set(node) == {"float"}:
        return float(node["float"])
    return {int(key) if key.isdigit() else key: _put_tensors(value, tensors) for key, value in node.items()}
