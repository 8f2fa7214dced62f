"""Optimizers by name, each from the library that keeps it, or any class by its dotted path.

In: a TrainConfig, the FlatParameters and their Groups. Out: a torch Optimizer, one parameter group for each Group.
A new one is a line in KINDS, its name in checks.OPTIMIZERS, its size in disk.STATES and counting.STATE_BYTES and, where
it has a package of its own, a line in machine.OPTIMIZERS and in the extra `optimizers` of pyproject.toml.
"""

import contextlib
import importlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...config.train_config import TrainConfig
from ...models.sources import first_line
from ...system.errors import ConfigError
from ..state.parameters import FlatParameters
from .adamw import AdamW
from .dotted import load_class, try_out
from .groups import Group, groups
from .muon import muon

ADAM = ("adam_beta1", "adam_beta2", "adam_weight_decay", "adam_epsilon")
ParameterGroups = list[dict[str, Any]]
Options = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """`make(parameter groups, options)`; `matrices`: it looks at their shapes, so that a long vector would not do."""

    make: Callable[[ParameterGroups, Options], torch.optim.Optimizer]
    options: Callable[[TrainConfig], Options]
    matrices: bool = False
    one_rate: bool = False  # it finds the step size of all together
    takes: tuple[str, ...] = ADAM  # of the adam_ settings


def make_optimizer(
    config: TrainConfig, flat: FlatParameters, parts: Sequence[Group] | None = None, remarks: list[str] | None = None
) -> torch.optim.Optimizer:
    """The optimizer that config.optimizer_name() names; the trainer sets its rates before every step.

    ConfigError for what it does not take or cannot do; what is worth a word is added to `remarks`.
    """
    parts = groups(config, flat) if parts is None else parts
    name = config.optimizer_name()
    remarks = [] if remarks is None else remarks
    kind = KINDS.get(name) or _dotted(config, flat, remarks)
    remarks += _unheard(kind, config)
    if kind.one_rate and len({part.rate for part in parts}) > 1:
        raise ConfigError(
            f"optimizer {name} finds one step size for all layers, and these settings ask for several rates: use "
            "--optimizer prodigy_schedulefree, or drop unet_lr, text_encoder_lr, lr_pattern and loraplus_lr_ratio"
        )
    made = _made(kind, name, _parameter_groups(config, flat, parts, kind.matrices), config)
    return _training(made)


def _parameter_groups(
    config: TrainConfig, flat: FlatParameters, parts: Sequence[Group], matrices: bool
) -> ParameterGroups:
    made: ParameterGroups = []
    for part in parts:
        own = [flat.parameters[place] for place in part.members] if matrices else flat.vectors(part.members)
        apart = {"weight_decay": part.decay} if config.adam_weight_decay_text_encoder is not None else {}
        made.append({"params": own, "lr": part.rate, **apart})
    return made


def _made(kind: Kind, name: str, parameters: ParameterGroups, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer; what its own library objects to is one sentence, what it prints stays unsaid."""
    options = {"lr": config.learning_rate, **kind.options(config), **config.optimizer_arguments()}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return kind.make(parameters, options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        given = f" with optimizer_args {' '.join(config.optimizer_args)}" if config.optimizer_args else ""
        why = first_line(error).rstrip(".") or type(error).__name__
        raise ConfigError(f"optimizer {name}{given} cannot be made ({why}): change or drop optimizer_args") from error


def _dotted(config: TrainConfig, flat: FlatParameters, remarks: list[str]) -> Kind:
    """A class by its path. It sees the matrices: whether it looks at shapes is not known. It is tried out first."""
    path = config.optimizer_name()
    found = load_class(path)
    kind = Kind(lambda parameters, options: found(parameters, **options), lambda config: {}, matrices=True, takes=())

    def make(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return _training(_made(kind, path, [{"params": parameters, "lr": config.learning_rate}], config))

    remarks += try_out(path, make, flat)
    return kind


def _unheard(kind: Kind, config: TrainConfig) -> list[str]:
    """A remark for adam_ settings that this kind does not look at."""
    ignored = [name for name in _given(config) if name not in kind.takes]
    if not ignored:
        return []
    return [f"{', '.join(ignored)} does not reach optimizer {config.optimizer_name()}: use --optimizer_args."]


# What the named ones are given.


def _adam(config: TrainConfig) -> Options:
    return {**_betas(config), "eps": config.adam_epsilon}


def _betas(config: TrainConfig) -> Options:
    return {"betas": (config.adam_beta1, config.adam_beta2), "weight_decay": config.adam_weight_decay}


def _where_given(config: TrainConfig) -> Options:
    """What adam_ settings say where they are not the defaults, which are AdamW's; else the library's own hold."""
    given, options = set(_given(config)), Options()
    if given & {"adam_beta1", "adam_beta2"}:
        options["betas"] = (config.adam_beta1, config.adam_beta2)
    if "adam_weight_decay" in given:
        options["weight_decay"] = config.adam_weight_decay
    return options | ({"eps": config.adam_epsilon} if "adam_epsilon" in given else {})


def _given(config: TrainConfig) -> list[str]:
    return [name for name in ADAM if getattr(config, name) != TrainConfig.model_fields[name].default]


def _prodigy_options(config: TrainConfig) -> Options:
    """Finds its own step size (arXiv 2306.06101); learning_rate is a factor on it, best left at 1."""
    return _adam(config) | {
        "beta3": config.prodigy_beta3,
        "decouple": config.prodigy_decouple,
        "use_bias_correction": config.prodigy_use_bias_correction,
        "safeguard_warmup": config.prodigy_safeguard_warmup,
    }


def _lion_options(config: TrainConfig) -> Options:
    """Signs alone (arXiv 2302.06675); it wants a third to a tenth of AdamW's rate. It has no epsilon."""
    options = _where_given(config)
    options.pop("eps", None)
    return options


def _came_options(config: TrainConfig) -> Options:
    """Factored moments with a confidence (arXiv 2307.02047); its third beta and two epsilons are its own."""
    options = _lion_options(config)
    return options | ({"betas": (*options["betas"], 0.9999)} if "betas" in options else {})


def _adafactor_options(config: TrainConfig) -> Options:
    """Second moments as a row and a column of each matrix (arXiv 1804.04235), at the learning rate that is given."""
    options: Options = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return options | {"weight_decay": config.adam_weight_decay}


def _muon_options(config: TrainConfig) -> Options:
    """Momentum alone, made orthogonal; of the adam_ settings it has the weight decay."""
    return {"weight_decay": config.adam_weight_decay}


def _adamw(parameters: ParameterGroups, options: Options) -> torch.optim.Optimizer:
    other = options.keys() & {"foreach", "fused", "capturable", "differentiable"}
    return AdamW(parameters, **(options if other else options | {"fused": True}))


def _eight_bits(name: str) -> Callable[[ParameterGroups, Options], torch.optim.Optimizer]:
    """Moments in 8 bits, each block of 256 with a scale of its own (arXiv 2110.02861)."""

    def make(parameters: ParameterGroups, options: Options) -> torch.optim.Optimizer:
        try:
            import bitsandbytes

            kind = getattr(bitsandbytes.optim, name)
            tried = torch.nn.Parameter(torch.zeros(4096, device=parameters[0]["params"][0].device))  # smaller ones
            tried.grad = torch.zeros_like(tried)  # are not quantised
            kind([tried]).step()
        except Exception as error:  # what it lacks, a library for this CUDA say, it tells at the first step
            raise ConfigError(
                f"optimizer {NAMES_OF_8_BITS[name]}: bitsandbytes does not work here "
                f"({first_line(error).rstrip('.')}): install a version for this CUDA, or drop it, AdamW in fp32 is "
                "the default"
            ) from error
        optimizer: torch.optim.Optimizer = kind(parameters, **options)
        return optimizer

    return make


NAMES_OF_8_BITS = {"AdamW8bit": "adamw8bit", "PagedAdamW8bit": "paged_adamw8bit"}


def _of(module: str, name: str) -> Callable[[ParameterGroups, Options], torch.optim.Optimizer]:
    """A class of a library, imported when it is used."""

    def make(parameters: ParameterGroups, options: Options) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(importlib.import_module(module), name)(parameters, **options)
        return optimizer

    return make


KINDS = {
    "adamw": Kind(_adamw, _adam),
    "adamw8bit": Kind(_eight_bits("AdamW8bit"), _adam),
    "paged_adamw8bit": Kind(_eight_bits("PagedAdamW8bit"), _adam),
    "prodigy": Kind(_of("prodigyopt", "Prodigy"), _prodigy_options, one_rate=True),
    "adafactor": Kind(
        _of("transformers.optimization", "Adafactor"), _adafactor_options, matrices=True, takes=("adam_weight_decay",)
    ),
    "lion": Kind(_of("lion_pytorch", "Lion"), _lion_options, takes=ADAM[:3]),
    "came": Kind(_of("came_pytorch", "CAME"), _came_options, matrices=True, takes=ADAM[:3]),
    "muon": Kind(muon, _muon_options, matrices=True, takes=("adam_weight_decay",)),
    "adamw_schedulefree": Kind(_of("schedulefree", "AdamWScheduleFree"), _where_given),
    "radam_schedulefree": Kind(_of("schedulefree", "RAdamScheduleFree"), _where_given),
    "prodigy_schedulefree": Kind(_of("prodigyplus", "ProdigyPlusScheduleFree"), _where_given, matrices=True),
}


# What is asked of one that there is.


def evaluates_apart(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is drawn and measured with other weights than it trains, as ScheduleFree's (arXiv 2405.15682)."""
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


def _training(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer with the weights that it trains."""
    if evaluates_apart(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    return optimizer


@contextlib.contextmanager
def evaluating(optimizer: torch.optim.Optimizer, flat: FlatParameters) -> Iterator[None]:
    """Inside, the model has the weights to evaluate with; afterwards its own again, bit for bit."""
    own = flat.weights.detach().clone()
    optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
        flat.weights.data.copy_(own)  # its own way back rounds


@contextlib.contextmanager
def without(optimizer: torch.optim.Optimizer, still: Sequence[bool]) -> Iterator[None]:
    """Inside, the parameter groups that stand still have no parameters: a rate of 0 would not stop every optimizer."""
    kept = [group["params"] for group in optimizer.param_groups]
    for group, stands in zip(optimizer.param_groups, still, strict=True):
        group["params"] = [] if stands else group["params"]
    try:
        yield
    finally:
        for group, parameters in zip(optimizer.param_groups, kept, strict=True):
            group["params"] = parameters


def found_sizes(optimizer: torch.optim.Optimizer) -> list[float]:
    """The step size d of each parameter group, of an optimizer that finds it by itself; else nothing."""
    return [float(group["d"]) for group in optimizer.param_groups if "d" in group]
