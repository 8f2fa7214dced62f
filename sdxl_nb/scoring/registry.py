"""The scorers that there are, and what a person means by one: a name, a function, or MODULE:FUNCTION.

In: what was given. Out: Scorers.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config.messages import nearest
from ..system.errors import ConfigError
from . import metrics as metrics  # registers ours
from .scorer import REGISTERED, Scorer, first_line

if TYPE_CHECKING:
    from .scorer import Function


def registered() -> Mapping[str, Scorer]:
    """Every scorer by name, ours first."""
    return dict(sorted(REGISTERED.items(), key=lambda item: not item[1].ours))


def as_scorer(given: "Scorer | str | Function") -> Scorer:
    """A Scorer, the name of a registered one, MODULE:FUNCTION, or a function, as a Scorer. Raises ConfigError."""
    if isinstance(given, Scorer):
        return given
    if isinstance(given, str):
        return _by_path(given) if ":" in given else _by_name(given)
    for known in registered().values():
        if known.function is given:
            return known
    if not callable(given):
        raise ConfigError(f"a scorer is a function, or the name of one, not {given!r}")
    return Scorer(getattr(given, "__name__", type(given).__name__), given, sentence=first_line(given))


def _by_name(name: str) -> Scorer:
    known = registered()
    if name in known:
        return known[name]
    close = nearest(name, known)
    raise ConfigError(f"unknown scorer {name}: " + (f"did you mean {close}?" if close else "give MODULE:FUNCTION"))


def _by_path(path: str) -> Scorer:
    """The function that a person named on the command line; nothing read from a file of a LoRA comes here."""
    module, _, function = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"scorer {path} cannot be imported ({error}): give MODULE:FUNCTION") from error
    return as_scorer(found)
