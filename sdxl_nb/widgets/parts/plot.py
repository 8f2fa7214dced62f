"""Curves over optimizer steps on a canvas of our own: values under the pointer, zoom, log scale, smoothing, rates.

In: `Line`s of any length. Out: an anywidget that draws them in JupyterLab's colours, light or dark; the kernel sends of
each line the lowest and highest value a pixel, of the part that is zoomed to. Drag to zoom, press twice to see all;
with the keyboard arrows move from step to step, + and - zoom, Esc shows all.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import traitlets

from ...runs.plots import smooth, thinned
from .hearing import HearingWidget, hear_at_once
from .plot_drawing import CSS, DRAWING

PIXELS = 1000  # across, at most: no screen shows more of a curve
SPANS = (1, 5, 10, 20, 50, 100, 200, 500)  # steps that the average may look back on; 1 is none


class Line(NamedTuple):
    """A curve: `y` at the steps `x`; `look` is faint, line or dots; `panel` is loss or rate."""

    name: str
    x: np.ndarray
    y: np.ndarray
    look: str = "line"
    panel: str = "loss"
    colour: int = 0  # a number from 0 to 5
    smoothed: bool = False  # whether it follows the slider


class Plot(HearingWidget):
    """`show` some lines; `logarithmic`, `smoothing` and `view` are what a person chose."""

    lines = traitlets.List(help="What is drawn now: of each line its points.").tag(sync=True)
    words = traitlets.Unicode(help="What the curves show, for those who do not see them.").tag(sync=True)
    extent = traitlets.List([0.0, 1.0], help="First and last step.").tag(sync=True)
    view = traitlets.List(help="First and last step that is zoomed to; empty shows all.").tag(sync=True)
    logarithmic = traitlets.Bool(False, help="Whether losses stand on a logarithmic scale.").tag(sync=True)
    smoothing = traitlets.Int(20, help="Steps that the average looks back on.").tag(sync=True)
    spans = traitlets.List(list(SPANS), help="What the slider offers.").tag(sync=True)

    _esm = DRAWING
    _css = CSS

    def __init__(self, **traits: Any):
        super().__init__(**traits)
        self._lock = threading.RLock()  # a thread shows new lines while a person zooms
        self._all: list[Line] = []
        self._averages: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}  # of the lines as they were
        self.observe(lambda change: self._draw(), ["view", "smoothing"])
        hear_at_once(self)

    def show(self, lines: Sequence[Line], words: str) -> None:
        """Draw these lines; what is zoomed to stays."""
        with self._lock:
            self._all, self.words = list(lines), words
            known = [line.x for line in lines if len(line.x)]
            low = min((float(x[0]) for x in known), default=0.0)
            self.extent = [low, max((float(x[-1]) for x in known), default=low + 1.0)]
            self._draw()

    def _draw(self) -> None:
        """What is to be seen of each line, with its lowest and highest value a pixel."""
        with self._lock:
            low, high = self.view if len(self.view) == 2 else self.extent
            self.lines = [self._sent(line, low, high) for line in self._all]

    def _sent(self, line: Line, low: float, high: float) -> dict[str, Any]:
        x, y = thinned(line.x, self._averaged(line), low, high, PIXELS)
        return line._asdict() | {"x": x.astype(np.float32).tobytes(), "y": y.astype(np.float32).tobytes()}

    def _averaged(self, line: Line) -> np.ndarray:
        """The values of a line, averaged where it follows the slider; remembered while they stay the same."""
        if not line.smoothed or self.smoothing <= 1:
            return line.y
        key = line.name, self.smoothing
        before, average = self._averages.get(key, (None, line.y))
        if before is not line.y:
            average = smooth(line.y, self.smoothing)
            self._averages = {name: known for name, known in self._averages.items() if name[0] != line.name}
            self._averages[key] = line.y, average
        return average
