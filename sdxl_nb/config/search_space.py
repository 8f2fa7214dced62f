"""What a search may change: fields of TrainConfig, each with a range or a list of values.

In: a mapping of field names, {"learning_rate": Range(1e-5, 1e-3, "log"), "rank": [4, 8, 16]}, and the configuration
that is searched around. Out: a SearchSpace whose every end and value makes a valid configuration, in the field's own
type. Who searches (here, or a service on rented GPUs) draws from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..system.errors import ConfigError
from .messages import nearest, shown
from .train_config import TrainConfig

SCALES = ("linear", "log")
FIXED = ("output_dir", "output_name", "resume_from_checkpoint", "report_to", "push_to_hub", "hub_model_id")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them; on a log scale each factor is as likely as the next.

    `whole` is the field's to say: None until a SearchSpace has looked. Raises ConfigError.
    """

    low: float
    high: float
    scale: str = "linear"
    whole: bool | None = None

    def __post_init__(self) -> None:
        for value in (self.low, self.high):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"a range goes from one number to another, not from {self.low!r} to {self.high!r}")
        if not self.low < self.high:
            raise ConfigError(f"a range must begin below its end, not go from {self.low:g} to {self.high:g}")
        if self.scale not in SCALES:
            raise ConfigError(f"the scale of a range must be linear or log, not {shown(self.scale)}")
        if self.scale == "log" and self.low <= 0:
            raise ConfigError(f"a range on a log scale must begin above 0, not at {self.low:g}")


class SearchSpace:
    """Ranges and lists of values by field, held against `config`; `fields` has them. Raises ConfigError."""

    def __init__(self, space: Mapping[str, Range | Sequence[Any]], config: TrainConfig):
        if not space:
            raise ConfigError('the search space is empty: give a field such as {"learning_rate": [1e-5, 1e-4]}')
        self.fields: dict[str, Range | list[Any]] = {}
        for name, wanted in space.items():
            _check_name(name)
            self.fields[name] = _ranged(name, wanted) if isinstance(wanted, Range) else _listed(name, wanted)
            for value in self.ends(name):
                _check_value(name, value, config)

    def ends(self, name: str) -> list[Any]:
        """The first and the last number of a range; all values of a list."""
        field = self.fields[name]
        return [field.low, field.high] if isinstance(field, Range) else field

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the values, the last field changing first. Raises ConfigError for a range."""
        for name, field in self.fields.items():
            if isinstance(field, Range):
                raise ConfigError(
                    f"a grid takes lists of values, and {name} is a range: give some of it, as [{field.low:g}, "
                    f"{field.high:g}]"
                )
        for values in product(*(self.ends(name) for name in self.fields)):
            yield dict(zip(self.fields, values, strict=True))


def _check_name(name: str) -> None:
    if name not in TrainConfig.model_fields:
        close = nearest(name, TrainConfig.model_fields)
        raise ConfigError(f"unknown field {name} in the search space" + (f": did you mean {close}?" if close else ""))
    if name in FIXED:
        raise ConfigError(f"{name} makes no LoRA better, so that it is not searched over: leave it out of the space")


def _ranged(name: str, wanted: Range) -> Range:
    """The range with the kind of number that the field takes; one that takes none has values instead."""
    kinds = TrainConfig.json_types()[name]
    if not kinds & {"integer", "number"}:
        raise ConfigError(f"{name} is no number, so that it has no range: give a list of its values")
    whole = "number" not in kinds
    if whole and any(value != int(value) for value in (wanted.low, wanted.high)):
        raise ConfigError(f"{name} is a whole number: its range must go from one to another")
    number = int if whole else float
    return Range(number(wanted.low), number(wanted.high), wanted.scale, whole)


def _listed(name: str, wanted: Any) -> list[Any]:
    if isinstance(wanted, (str, bytes)) or not isinstance(wanted, Sequence) or not wanted:
        raise ConfigError(f"{name} must have a Range or a list of values to search over, not {shown(wanted)}")
    values = list(wanted)
    if twice := [value for value in values if values.count(value) > 1]:
        raise ConfigError(f"{name} has {shown(twice[0])} twice in the search space: leave one out")
    return values


def _check_value(name: str, value: Any, config: TrainConfig) -> None:
    try:
        config.replace(**{name: value})
    except ConfigError as error:
        raise ConfigError(f"{name} cannot be {shown(value)} in this search: {error}") from None
