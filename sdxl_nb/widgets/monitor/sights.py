"""What the monitor lets one see of a run's numbers: its curves, with words for who does not see them.

In: a Run, at every look. Out: a widget that is sent what is new.
"""

import base64
import time
from html import escape
from typing import Any

import numpy as np
from ipywidgets import Layout

from ...runs.plots import gapped, smooth
from ...runs.run import GOING_ON, Run
from ..parts.plot import Line, Plot

SHARE = 0.02  # the part of one core that preparing the curves may take


class Curve(Plot):
    """The losses and rates, sent when there is more of them: seldom while the run goes on, at once when it is over."""

    def __init__(self) -> None:
        super().__init__(layout=Layout(max_width="960px", width="100%", display="none"))
        self._next = time.monotonic()
        self._upto: tuple[object, ...] | None = None

    def follow(self, run: Run, status: str) -> None:
        """Show the curves of a run if it is time for it; before the first step there is none."""
        upto = run.info.get("id"), run.step, run.heldout()
        self.layout.display = None if run.step else "none"
        early = status in GOING_ON and time.monotonic() < self._next
        if upto == self._upto or early or not run.step:
            return
        begun = time.thread_time()
        self.show(curves(run), in_words(run))
        self._upto = upto
        self._next = time.monotonic() + (time.thread_time() - begun) / SHARE


def image(kind: str, data: bytes, words: str, style: str) -> str:
    """An <img> with its bytes in it, and words for who does not see it, which `ipywidgets.Image` cannot have."""
    content = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{content}" alt="{escape(words)}" style="{style}">'


def curves(run: Run) -> list[Line]:
    """The loss of each step and its average, the held-out loss, and every learning rate."""
    events = list(run.events("step"))
    steps = np.array([event["step"] for event in events], dtype=float)
    losses = gapped(event["train_loss"] for event in events)
    at, heldout = run.heldout()
    lines = [Line("each step", steps, losses, look="faint"), Line("smoothed", steps, losses, smoothed=True)]
    if at:
        lines.append(Line("held out", np.array(at, dtype=float), np.array(heldout), look="dots", colour=1))
    return lines + rates(events, steps)


def rates(events: list[dict[str, Any]], steps: np.ndarray) -> list[Line]:
    """The learning rate by step, or that of each group of weights where there are several."""
    names = list(dict.fromkeys(name for event in events for name in event.get("rates", ())))
    groups = [(f"rate of {name}", [event.get("rates", {}).get(name) for event in events]) for name in names]
    known = groups or [("learning rate", [event.get("lr") for event in events])]
    return [
        Line(name, steps, gapped(values), panel="rate", colour=2 + number % 4)
        for number, (name, values) in enumerate(known)
    ]


def in_words(run: Run) -> str:
    """The newest losses of the curve in a sentence."""
    steps, losses = run.losses()
    at, heldout = run.heldout()
    said = f"Curve of the loss up to step {run.step}"
    known = [loss for loss in losses[-100:] if loss is not None]
    if known:
        said += f": training loss, smoothed, {smooth(np.array(known))[-1]:.4f} at step {steps[-1]}"
    return said + (f", held-out loss {heldout[-1]:.4f} at step {at[-1]}" if at else "")
