"""The course of the learning rate: a pure function of the optimizer step, counted once for all processes.

In: a TrainConfig, the number of steps and of processes. Out: the rate at a step. Names and results are those of
diffusers' and transformers' schedules where they have them. A new one is a line in SHAPES, and its name in
fields.Schedule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...config.train_config import TrainConfig

LAST = 1e-7  # diffusers' lr_end of polynomial, where lr_min_ratio says nothing else


@dataclass(frozen=True)
class Course:
    """What a shape looks at, beside how much of the time after warm-up is done: the numbers of a configuration."""

    cycles: int
    power: float
    decay: float  # share of the time after warm-up in which warmup_stable_decay decays


Shape = Callable[[float, Course], float]


def learning_rates(config: TrainConfig, steps: int, processes: int) -> Callable[[int], float]:
    """The learning rate as a pure function of the optimizer step (from 0).

    `constant` has no warm-up, as in diffusers; every other schedule rises from 0 in `warmup_steps`, then goes from
    the full rate to `lr_min_ratio` of it.
    """
    peak, warmup, course = config.scaled_learning_rate(processes), warmup_steps(config, steps), _course(config, steps)
    shape = SHAPES[config.lr_scheduler]
    lowest = config.lr_min_ratio * peak or (LAST if config.lr_scheduler == "polynomial" else 0.0)

    def rate(step: int) -> float:
        if config.lr_scheduler == "constant":
            return peak
        if step < warmup:
            return peak * step / max(1, warmup)
        return (peak - lowest) * shape((step - warmup) / max(1, steps - warmup), course) + lowest

    return rate


def warmup_steps(config: TrainConfig, steps: int) -> int:
    """The optimizer steps of warm-up, of a run of so many."""
    if config.lr_warmup_ratio is None:
        return config.lr_warmup_steps
    return math.ceil(config.lr_warmup_ratio * steps)  # as transformers' Trainer counts


def remarks(config: TrainConfig, steps: int) -> list[str]:
    """What of a configuration's schedule has no effect in a run of so many steps, a sentence each."""
    said, name = [], config.lr_scheduler
    if name != "constant" and warmup_steps(config, steps) >= steps:
        setting = "lr_warmup_steps" if config.lr_warmup_ratio is None else "lr_warmup_ratio"
        said.append(
            f"{setting} {getattr(config, setting)} is no less than the {steps} steps of this run, so the "
            "learning rate never reaches learning_rate: lower it."
        )
    for setting, default, users in OF_SOME:
        if getattr(config, setting) != default and name not in users:
            said.append(f"{setting} has no effect with lr_scheduler {name}: it is for {' and '.join(users)}.")
    if name == "cosine_with_restarts" and config.lr_num_cycles == 1:
        said.append("cosine_with_restarts with lr_num_cycles 1 never restarts: raise lr_num_cycles.")
    after = steps - warmup_steps(config, steps)
    if name == "cosine_with_restarts" and config.lr_num_cycles > max(1, after // 2):
        said.append(
            f"lr_num_cycles {config.lr_num_cycles} leaves its cycles no two steps each of the {max(0, after)} after "
            "warm-up, so the learning rate jumps about: lower it."
        )
    if name == "constant" and config.lr_warmup_steps not in (0, TrainConfig.model_fields["lr_warmup_steps"].default):
        said.append("lr_warmup_steps has no effect with lr_scheduler constant: constant_with_warmup has it.")
    return said


def _course(config: TrainConfig, steps: int) -> Course:
    after = max(1, steps - warmup_steps(config, steps))
    decay = min(after, round(config.lr_decay_ratio * steps)) / after
    return Course(config.lr_num_cycles, config.lr_power, decay)


def _cosine(done: float, course: Course | None = None) -> float:
    return max(0.0, 0.5 * (1 + math.cos(math.pi * done)))


def _restarting(done: float, course: Course) -> float:
    """SGDR (arXiv 1608.03983): a cosine that begins anew `cycles` times."""
    return 0.0 if done >= 1 else _cosine(course.cycles * done % 1)


def _polynomial(done: float, course: Course) -> float:
    return 0.0 if done > 1 else float((1 - done) ** course.power)


def _stable(done: float, course: Course) -> float:
    """Warm-up, stable, decay (arXiv 2404.06395): the full rate, at last a cosine, as transformers' get_wsd_schedule."""
    first = 1 - course.decay
    return 1.0 if done < first or not course.decay else _cosine(min(1.0, (done - first) / course.decay))


def _rex(done: float, course: Course) -> float:
    """REX (arXiv 2107.04197), its own numbers: above the linear schedule, and steeper at the end."""
    left = max(0.0, 1 - done)
    return left / (0.5 + 0.5 * left)


SHAPES: dict[str, Shape] = {  # from 1 to 0 while the time after warm-up passes
    "constant": lambda done, course: 1.0,
    "constant_with_warmup": lambda done, course: 1.0,
    "linear": lambda done, course: max(0.0, 1 - done),
    "cosine": _cosine,
    "cosine_with_restarts": _restarting,
    "polynomial": _polynomial,
    "warmup_stable_decay": _stable,
    "rex": _rex,
}
FALLING = tuple(name for name in SHAPES if not name.startswith("constant"))
OF_SOME = (  # settings that only some schedules look at: their defaults, and which
    ("lr_num_cycles", 1, ("cosine_with_restarts",)),
    ("lr_power", 1.0, ("polynomial",)),
    ("lr_decay_ratio", 0.1, ("warmup_stable_decay",)),
    ("lr_min_ratio", 0.0, FALLING),
    ("lr_warmup_ratio", None, tuple(name for name in SHAPES if name != "constant")),
)
