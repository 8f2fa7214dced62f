"""A search space: for each setting the values to choose from, or a range of numbers, linear or logarithmic.

    Space.of(config, {"rank": [8, 16], "learning_rate": {"min": 1e-5, "max": 1e-3, "log": True}})

In: a TrainConfig and such a mapping. Out: a Space whose every value the configuration takes; it knows nothing of how it
is searched, here or elsewhere.
"""

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ValidationError, create_model

from ..config.fields import about
from ..config.messages import nearest, refusal, shown, unknown
from ..system.errors import ConfigError

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

MOST = 10_000  # combinations of a grid
DIGITS = 4  # of a number that is drawn
KEYS = ("min", "max", "log")


@dataclass(frozen=True)
class Range:
    """The numbers from low to high, both among them; `log` spreads them evenly over orders of magnitude.

    `whole` is whether they are whole numbers, which the setting decides.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float:
        """The number at a share in [0, 1) of the range, with DIGITS digits."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        if self.whole:
            return min(int(value), int(self.high))
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def as_json(self) -> dict[str, Any]:
        """As it may be given again."""
        return {"min": self.low, "max": self.high, "log": self.log}


@dataclass(frozen=True)
class Choices:
    """Values to choose from: numbers, texts, lists, true and false."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1)."""
        return self.values[int(share * len(self.values))]

    def as_json(self) -> list[Any]:
        """As they may be given again."""
        return list(self.values)


class Space:
    """`parameters` maps the name of a setting to its Range or Choices."""

    def __init__(self, parameters: Mapping[str, Range | Choices]):
        self.parameters = dict(parameters)

    @classmethod
    def of(cls, config: "TrainConfig", space: "Mapping[str, Any] | Space") -> "Space":
        """The Space of a mapping, every end and choice taken by the configuration. Raises ConfigError."""
        given = space.parameters if isinstance(space, Space) else space
        if not isinstance(given, Mapping) or not given:
            raise ConfigError('the search space must map settings to values, such as {"rank": [8, 16]}')
        return cls({name: _parameter(config, name, value) for name, value in given.items()})

    @property
    def is_finite(self) -> bool:
        """Whether a grid can be made of it."""
        return all(isinstance(one, Choices) for one in self.parameters.values())

    def grid(self) -> list[dict[str, Any]]:
        """Every combination, the last setting changing fastest. Raises ConfigError for a range, or too many."""
        ranges = [name for name, one in self.parameters.items() if isinstance(one, Range)]
        if ranges:
            raise ConfigError(f"a grid needs values for {ranges[0]}, not a range: list some, or use sampler='random'")
        if math.prod(map(len, self._values())) > MOST:
            raise ConfigError(f"a grid of more than {MOST} combinations never ends: use sampler='random'")
        return [dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*self._values())]

    def _values(self) -> Iterator[tuple[Any, ...]]:
        return (one.values for one in self.parameters.values() if isinstance(one, Choices))

    def random(self, seed: int, number: int) -> dict[str, Any]:
        """Trial `number` of a random search: a function of the seed and its number, whatever was drawn before."""
        generator = np.random.default_rng([seed, number])
        return {name: one.at(generator.random()) for name, one in self.parameters.items()}

    def as_json(self) -> dict[str, Any]:
        """As it may be given again."""
        return {name: one.as_json() for name, one in self.parameters.items()}


def _parameter(config: "TrainConfig", name: str, given: Any) -> Range | Choices:
    fields = type(config).model_fields
    if name not in fields:
        raise unknown(name, fields, where=" in the search space")
    if not about(fields[name])["weights"]:
        raise ConfigError(f"the search space holds {name}, which changes nothing that is learnt: leave it out")
    if isinstance(given, Range | Mapping):
        return _range(config, name, given if isinstance(given, Range) else _of_mapping(name, given))
    if isinstance(given, str) or not isinstance(given, list | tuple | range | Choices | np.ndarray):
        raise ConfigError(f"{name} must be a list of values or a range such as {_EXAMPLE}, not {shown(given)}")
    values = given.values if isinstance(given, Choices) else given.tolist() if isinstance(given, np.ndarray) else given
    taken = [_taken(config, name, value) for value in values]
    if not taken or len({json.dumps(value) for value in taken}) != len(taken):
        raise ConfigError(f"the values of {name} in the search space must be different ones, and at least one")
    return Choices(tuple(taken))


_EXAMPLE = '{"min": 1e-5, "max": 1e-3, "log": True}'


def _of_mapping(name: str, given: Mapping[str, Any]) -> Range:
    for key in given:
        if key not in KEYS:
            close = nearest(str(key), KEYS)
            advice = f"did you mean {close}?" if close else f"write {_EXAMPLE}"
            raise ConfigError(f"the range of {name} has an unknown {key}: {advice}")
    if "min" not in given or "max" not in given or not isinstance(given.get("log", False), bool):
        raise ConfigError(f"the range of {name} must be such as {_EXAMPLE}, not {shown(dict(given))}")
    return Range(given["min"], given["max"], given.get("log", False))


def _range(config: "TrainConfig", name: str, one: Range) -> Range:
    types = config.json_types()[name] - {"null"}
    if not types <= {"integer", "number"}:
        raise ConfigError(f"{name} takes no range, for it is no number: list its values")
    whole = types == {"integer"}
    for end in (one.low, one.high):
        kinds = int if whole else int | float
        if isinstance(end, bool) or not isinstance(end, kinds) or not math.isfinite(end):
            what = "whole numbers" if whole else "finite numbers"
            raise ConfigError(f"the range of {name} must lie between {what}, not at {shown(end)}")
    if one.low >= one.high:
        raise ConfigError(f"the range of {name} must rise: {one.low} is not below {one.high}")
    if one.log and one.low <= 0:
        raise ConfigError(f"a logarithmic range must begin above 0, and that of {name} begins at {one.low}")
    for end in (one.low, one.high):
        _taken(config, name, end)
    return Range(one.low, one.high, one.log, whole)


def _taken(config: "TrainConfig", name: str, value: Any) -> Any:
    """The value as the setting stores it, other settings left aside; ConfigError where it does not take it."""
    try:
        return _alone(type(config), name)(**{name: value}).model_dump(mode="json")[name]
    except ValidationError as error:
        raise ConfigError(f"the search space cannot have {name} = {shown(value)}: {refusal(error)}") from error


@functools.cache
def _alone(kind: "type[TrainConfig]", name: str) -> type[BaseModel]:
    """A model of this setting and no other, which knows no combination."""
    fields: dict[str, Any] = {name: (kind.model_fields[name].annotation, kind.model_fields[name])}
    return create_model("Alone", **fields)


def written(value: Any) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
