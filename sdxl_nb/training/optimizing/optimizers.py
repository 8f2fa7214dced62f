"""Optimizers by name, each from the library that keeps it, and their state as tensors and JSON.

In: a TrainConfig and the FlatParameters. Out: a torch Optimizer. A new one is one function in MAKERS, its name in
fields.Optimizer and, where it has a package of its own, a line in machine.PACKAGES.
"""

import contextlib
import io
import math
from typing import Any

import torch

from ...config.train_config import TrainConfig
from ...models.sources import first_line
from ...system.errors import ConfigError
from ..state.parameters import FlatParameters

Tensors = dict[str, torch.Tensor]


def make_optimizer(config: TrainConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    """The optimizer that config.optimizer_name() names; the trainer sets its rate before every step."""
    return MAKERS[config.optimizer_name()](config, flat)


def _adam_options(config: TrainConfig) -> dict[str, Any]:
    return {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }


def _adamw(config: TrainConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW([flat.weights], fused=True, **_adam_options(config))


def _adamw8bit(config: TrainConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    """Moments in 8 bits, each block of 256 with a scale of its own (arXiv 2110.02861)."""
    try:
        import bitsandbytes

        tried = torch.nn.Parameter(torch.zeros(4096, device=flat.weights.device))  # smaller ones are not quantised
        tried.grad = torch.zeros_like(tried)
        bitsandbytes.optim.AdamW8bit([tried]).step()
    except Exception as error:  # what it lacks, a library for this CUDA say, it tells at the first step
        raise ConfigError(
            f"optimizer adamw8bit: bitsandbytes does not work here ({first_line(error).rstrip('.')}): install a "
            "version for this CUDA, or drop it, AdamW in fp32 is the default"
        ) from error
    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit([flat.weights], **_adam_options(config))
    return optimizer


def _prodigy(config: TrainConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    """Finds its own step size (arXiv 2306.06101); learning_rate is a factor on it, best left at 1."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what decoupled weight decay is
        optimizer: torch.optim.Optimizer = Prodigy(
            [flat.weights],
            beta3=config.prodigy_beta3,
            decouple=config.prodigy_decouple,
            use_bias_correction=config.prodigy_use_bias_correction,
            safeguard_warmup=config.prodigy_safeguard_warmup,
            **_adam_options(config),
        )
    return optimizer


def _adafactor(config: TrainConfig, flat: FlatParameters) -> torch.optim.Optimizer:
    """Second moments as a row and a column of each matrix (arXiv 1804.04235), at the learning rate that is given.

    It sees the matrices themselves, which are views of the flat vector: a vector could not be factored.
    """
    from transformers.optimization import Adafactor

    options: dict[str, Any] = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    options |= {"lr": config.learning_rate, "weight_decay": config.adam_weight_decay}
    optimizer: torch.optim.Optimizer = Adafactor(flat.parameters, **options)
    return optimizer


MAKERS = {"adamw": _adamw, "adamw8bit": _adamw8bit, "prodigy": _prodigy, "adafactor": _adafactor}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[Tensors, dict[str, Any]]:
    """The whole state of any optimizer: its tensors by dotted name led by `optimizer.`, and the rest for JSON."""
    tensors: Tensors = {}
    return tensors, _take_tensors(optimizer.state_dict(), "optimizer", tensors)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, rest: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`, for an optimizer made in the same way."""
    optimizer.load_state_dict(_put_tensors(rest, tensors))


def _take_tensors(node: Any, name: str, tensors: Tensors) -> Any:
    """A copy of a state's tree in which the name of a tensor stands for it."""
    if isinstance(node, torch.Tensor):
        tensors[name] = node
        return {"tensor": name}
    if isinstance(node, dict):
        return {str(key): _take_tensors(value, f"{name}.{key}", tensors) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_take_tensors(value, f"{name}.{number}", tensors) for number, value in enumerate(node)]
    return {"float": str(node)} if node in (math.inf, -math.inf) else node  # JSON has no infinity


def _put_tensors(node: Any, tensors: Tensors) -> Any:
    if isinstance(node, list):
        return [_put_tensors(value, tensors) for value in node]
    if not isinstance(node, dict):
        return node
    if set(node) == {"tensor"}:
        return tensors[node["tensor"]]
    if set(node) == {"float"}:
        return float(node["float"])
    return {int(key) if key.isdigit() else key: _put_tensors(value, tensors) for key, value in node.items()}
