"""Parallel coordinates of a sweep: an upright axis for each setting and one for the loss, a line for each trial.

In: the search space and rows. Out: a matplotlib Figure. The better a trial, the darker its line; pruned ones dash.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps

from ..system.figures import Sheet
from .ledger import Row
from .space import Range, Space, written

WIDTH = 1.7  # inches between two axes
TICKS = 5


class Axis:
    """One upright line: `place` of a value between 0 and 1, and the ticks' places and texts."""

    def __init__(self, name: str, values: Sequence[Any], parameter: Any = None):
        self.name = name
        self.numeric = isinstance(parameter, Range) or parameter is None
        self.log = isinstance(parameter, Range) and parameter.log
        if self.numeric:
            self._low, self._high = min(map(self._scaled, values)), max(map(self._scaled, values))
            marks = np.linspace(self._low, self._high, TICKS if self._high > self._low else 1)
            texts = [f"{10**mark if self.log else mark:.3g}" for mark in marks]
            self.ticks = [(self._between(mark), text) for mark, text in zip(marks, texts, strict=True)]
        else:
            self._order = [json.dumps(value) for value in parameter.values]
            self.ticks = [(self.place(value), written(value)) for value in parameter.values]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _between(self, scaled: float) -> float:
        return (scaled - self._low) / (self._high - self._low) if self._high > self._low else 0.5

    def place(self, value: Any) -> float:
        """Where the value lies on the axis, 0 below and 1 above."""
        if self.numeric:
            return self._between(self._scaled(value))
        return (self._order.index(json.dumps(value)) + 0.5) / len(self._order)


def parallel_coordinates(space: Space, rows: Sequence[Row], loss: str, best: Row | None) -> Sheet:
    """A line for each trial that has a loss; the best one is thick."""
    shown = [row for row in rows if row.loss is not None and math.isfinite(row.loss)]
    figure = Sheet(figsize=(WIDTH * (len(space.parameters) + 1.6), 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    if not shown:
        axes.text(0.5, 0.5, "no trial with a loss yet", ha="center", va="center", transform=axes.transAxes)
        return figure
    named = space.parameters.items()
    uprights = [Axis(name, [row.values[name] for row in shown], parameter) for name, parameter in named]
    uprights.append(Axis(loss, [row.loss for row in shown]))
    for at, upright in enumerate(uprights):
        axes.plot([at, at], [0, 1], color="#808080", linewidth=1)
        axes.text(at, 1.08, upright.name, ha="center", va="bottom", fontsize=9, parse_math=False)
        for place, text in upright.ticks:
            axes.text(at - 0.04, place, text, ha="right", va="center", fontsize=8, parse_math=False)
    for row in shown:
        places = [*(one.place(row.values[one.name]) for one in uprights[:-1]), uprights[-1].place(row.loss)]
        (line,) = axes.plot(range(len(uprights)), places, linewidth=2.5 if row == best else 1.0, alpha=0.85)
        line.set(color=colormaps["viridis"](0.9 * places[-1]), linestyle="--" if row.state == "pruned" else "-")
    axes.set(xlim=(-0.6, len(uprights) - 0.8), ylim=(-0.06, 1.2))
    return figure
