"""How long a sweep may take: "2 h", "90 min", "1 h 30 min" or seconds. In: that. Out: seconds."""

import math
import re

from ..config.messages import shown
from ..system.errors import ConfigError

WORDS = {1: ("s", "sec", "second"), 60: ("m", "min", "minute"), 3600: ("h", "hour"), 86400: ("d", "day")}
UNITS = {word: length for length, words in WORDS.items() for word in words}
PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?(?=[\s\d]|$)", re.IGNORECASE)


def seconds(budget: str | float | None) -> float:
    """Seconds; infinite for None. Raises ConfigError."""
    if budget is None:
        return math.inf
    if isinstance(budget, int | float) and not isinstance(budget, bool) and budget > 0 and math.isfinite(budget):
        return float(budget)
    if isinstance(budget, str) and (found := _read(budget)):
        return found
    raise ConfigError(f'budget must be a time such as "2 h", "90 min" or seconds, not {shown(budget)}')


def _read(text: str) -> float | None:
    total, at = 0.0, 0
    while at < len(text.rstrip()):
        part = PART.match(text, at)
        unit = UNITS.get(part[2].lower()) if part else None
        if part is None or unit is None:
            return None
        total, at = total + float(part[1]) * unit, part.end()
    return total or None
