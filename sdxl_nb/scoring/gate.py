"""A gate: thresholds in a file, and what of them a LoRA falls short of.

    stage = "best"        # best (the starred one), last, or a step
    confident = false     # true: the worse end of the interval counts, not the mean

    [likeness]
    min = 0.55
    above_base = 0.05     # more than the bare base has; below_base for what should be low

    [copying]
    max = 0.1

In: such a TOML, or JSON with the same names. Out: a Gate; a sentence for each threshold that is missed.
"""

import json
import math
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.messages import nearest
from ..system.errors import ConfigError
from .intervals import Score, number

if TYPE_CHECKING:
    from .asked import Asked
    from .scores import Scores

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("min", "max", "above_base", "below_base")
SETTINGS = ("stage", "confident")


class Limit(NamedTuple):
    """One threshold: a metric, one of KINDS, and the number."""

    metric: str
    kind: str
    value: float

    def missed(self, score: Score, base: Score | None, confident: bool) -> str | None:
        """By how much the score misses it, in words; None where it holds."""
        upper = self.kind in ("max", "below_base")
        end = score.high if upper else score.low
        found = end if confident and end is not None else score.mean
        if self.kind in ("min", "max"):
            by, bound = found - self.value, number(self.value)
        elif base is None:
            return f"{self.metric} was not measured on the bare base"
        else:
            by = found - base.mean - (-self.value if upper else self.value)
            bound = f"the base's {number(base.mean)} {'-' if upper else '+'} {number(self.value)}"
        if by <= 0 if upper else by >= 0:
            return None
        return f"{self.metric} {number(found)} is {number(abs(by))} {'above' if upper else 'below'} {bound}"


class Gate(NamedTuple):
    """Thresholds for one stage: best, last, or a step."""

    limits: Sequence[Limit]
    stage: str | int = "best"
    confident: bool = False

    def check(self, asked: "Asked", steps: Collection[int]) -> None:
        """Raise ConfigError for a metric that does not exist or is not measured, and for a step without a LoRA."""
        for limit in self.limits:
            _check_metric(limit.metric, asked.scorers, asked.lacking)
        if isinstance(self.stage, int) and (self.stage not in steps or not self.stage):
            kept = ", ".join(str(step) for step in sorted(steps) if step) or "none"
            raise ConfigError(f"the gate asks for step {self.stage}, which has no LoRA: there are those of {kept}")

    def shortfalls(self, scores: "Scores") -> list[str]:
        """What the LoRA falls short of, a sentence each; nothing where it passes."""
        step = {"best": scores.best, "last": max(scores.steps)}.get(str(self.stage), self.stage)
        if not isinstance(step, int) or not step:
            return ["there is no LoRA to judge"]
        found, base = scores[step], scores[0]
        missed = []
        for limit in self.limits:
            if limit.metric not in found:
                missed.append(f"{limit.metric} was not measured at step {step}")
            elif said := limit.missed(found[limit.metric], base.get(limit.metric), self.confident):
                missed.append(f"{said}, at step {step}")
        return missed


def read_gate(file: str | os.PathLike[str]) -> Gate:
    """The Gate in a TOML or JSON file. Raises ConfigError, with a did-you-mean where a name is misspelt."""
    path = Path(file).expanduser()
    if path.suffix not in (".toml", ".json"):
        raise ConfigError(f"the gate {path} must end in .toml or .json")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the gate {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the gate {path} must hold metrics with their thresholds, not a {type(content).__name__}")
    limits = [one for name, value in content.items() if name not in SETTINGS for one in _limits(name, value)]
    if not limits:
        raise ConfigError(f"the gate {path} holds no threshold: write [likeness] and min = 0.5 for example")
    return Gate(limits, _stage(content.get("stage", "best")), _confident(content.get("confident", False)))


def _limits(metric: str, value: Any) -> list[Limit]:
    if not isinstance(value, Mapping) or not value:
        advice = f"did you mean {near}?" if (near := nearest(metric, SETTINGS)) else "write min, max, above_base ..."
        raise ConfigError(f"the gate's {metric} must hold thresholds such as min = 0.5: {advice}")
    return [_limit(metric, kind, bound) for kind, bound in value.items()]


def _limit(metric: str, kind: str, bound: Any) -> Limit:
    if kind not in KINDS:
        close = nearest(kind, KINDS)
        advice = f"did you mean {close}?" if close else f"there are {', '.join(KINDS)}"
        raise ConfigError(f"the gate's {metric} has an unknown threshold {kind}: {advice}")
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
        raise ConfigError(f"the gate's {metric}.{kind} must be a finite number, not {bound!r}")
    if kind.endswith("base") and bound < 0:
        raise ConfigError(f"the gate's {metric}.{kind} must be 0 or more, not {bound}")
    return Limit(metric, kind, float(bound))


def _stage(value: Any) -> str | int:
    if value in ("best", "last") or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        known: str | int = value
        return known
    raise ConfigError(f"the gate's stage must be best, last or a step, not {value!r}")


def _confident(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"the gate's confident must be true or false, not {value!r}")
    return value


def _check_metric(name: str, known: Collection[str], lacking: Mapping[str, str]) -> None:
    if name in lacking:
        raise ConfigError(f"the gate asks for {name}, which cannot be measured: {lacking[name]}")
    if name not in known:
        close = nearest(name, [*known, *lacking])
        advice = f"did you mean {close}?" if close else f"there are {', '.join(known)}"
        raise ConfigError(f"the gate names an unknown metric {name}: {advice}")
