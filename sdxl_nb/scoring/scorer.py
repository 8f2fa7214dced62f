"""What a scorer is: a function of a stage's pictures, a name, and which way is better. Anyone can register one.

    @scorer("redness", better="higher")
    def redness(evidence):
        return [[np.asarray(picture)[..., 0].mean() for picture in row] for row in evidence.pictures]

In: an Evidence. Out: values [prompt][seed], or those and a remark of one sentence. It is one more column of the table,
with its interval, and chooses the best checkpoint. What it `needs` besides drawn pictures says when it cannot be had.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..config.messages import unknown
from ..system.errors import ConfigError, SdxlNbError

if TYPE_CHECKING:
    from .evidence import Evidence
    from .intervals import Values

    Function = Callable[[Evidence], Values | tuple[Values, str]]

NEEDS = ("pictures", "plain", "training", "two training", "two seeds", "image", "text", "aesthetic", "heldout")


@dataclass(frozen=True)
class Scorer:
    """A metric: `function` makes its values, `better` is higher or lower, `sentence` says what it is."""

    name: str
    function: "Function"
    better: Literal["higher", "lower"] = "higher"
    needs: tuple[str, ...] = ("pictures",)
    sentence: str = ""
    ours: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"a scorer's name must be a word such as redness, not {self.name!r}")
        if self.better not in ("higher", "lower"):
            raise ConfigError(f"scorer {self.name}: better must be higher or lower, not {self.better!r}")
        for need in self.needs:
            if need not in NEEDS:
                raise unknown(need, NEEDS, kind="need", where=f" of scorer {self.name}", advice=", ".join(NEEDS))

    def code(self) -> str:
        """A digest that changes with the function's text: what is kept of another function is not this one's."""
        try:
            text = inspect.getsource(self.function)
        except (OSError, TypeError):  # made by exec, or an object that is called
            text = repr(getattr(getattr(self.function, "__code__", None), "co_code", self.name))
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]

    def values(self, evidence: "Evidence") -> tuple[list[list[float]], str]:
        """The values, checked, and the remark. Raises SdxlNbError for a scorer that gives something else."""
        found = self.function(evidence)
        given, remark = found if isinstance(found, tuple) else (found, "")
        try:
            values = [[float(value) for value in row] for row in given]
        except (TypeError, ValueError):
            raise SdxlNbError(f"Scorer {self.name} must return lists of numbers, one a prompt, one a seed.") from None
        if not values or not all(values):
            raise SdxlNbError(f"Scorer {self.name} returned no value for a prompt: return one for each picture.")
        if not np.isfinite(np.concatenate(values)).all():
            raise SdxlNbError(f"Scorer {self.name} returned a value that is no finite number at step {evidence.step}.")
        return values, remark


REGISTERED: dict[str, Scorer] = {}


def scorer(
    name: str,
    better: Literal["higher", "lower"] = "higher",
    needs: Iterable[str] = ("pictures",),
    sentence: str = "",
    ours: bool = False,
) -> Callable[["Function"], "Function"]:
    """Register a function as a scorer under a name, for every `score_run` of this process; see the module."""

    def register(function: "Function") -> "Function":
        known = REGISTERED.get(name)
        if known and known.ours and not ours:
            raise ConfigError(f"{name} is a metric already: give the scorer another name")
        REGISTERED[name] = Scorer(name, function, better, tuple(needs), sentence or first_line(function), ours)
        return function

    return register


def first_line(function: "Function") -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]
