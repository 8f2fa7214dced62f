"""What a ValidationGrid draws itself: another scale of the stages shown, and stages that the run drew nothing at.

In: what the grid shows now, and the run's base, which stays loaded from one drawing to the next. Out: picture files in
the run folder, which the grid then finds. A part of the grid: `draw` is a method of it.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import Button, Layout

from ...drawing.generation import load_base
from ...runs.run import GOING_ON, Run
from ...runs.stages import FULL, Stages, loaded
from ...system.errors import SdxlNbError
from ...system.memory import give_back
from ..parts.watching import Notice, Worker
from .table import View


class Filling:
    """Mixed into the grid, which has all this."""

    run: Run
    stages: Stages
    base: Any  # a name, or a ready pipeline; None is the run's own
    scale: float
    guard: Callable[..., Any]
    refresh: Callable[[], None]
    comm: Any
    _shown: View
    _work: Worker
    _notice: Notice

    _base: Any = None  # a ready pipeline, once something was drawn

    def _draw_button(self) -> Button:
        self._drawing = threading.Lock()  # a button and a cell may both ask
        self._draws = Button(description="Draw what is missing", icon="paint-brush", layout=Layout(width="190px"))
        self._draws.on_click(self.guard(lambda _: self._work.start(self.guard(self.draw))))
        return self._draws

    def _offer_to_draw(self) -> None:
        """The button can be pressed when there is something to draw; what it says of itself tells why not."""
        why = self._why_not()
        many = len(self._shown.missing)
        self._draws.disabled = bool(why) or self._drawing.locked()
        self._draws.tooltip = why or f"Draw the {many} of these stages that lack pictures at scale {self.scale:g}"

    def _why_not(self) -> str:
        """Why nothing can be drawn now, in a sentence."""
        if not self._shown.rows:
            return "There is no validation_prompt to draw, and no sample_prompts."
        if self.scale == FULL and (status := self.run.status) in GOING_ON:
            return f"The run is {status} and draws at scale 1 itself: draw what is missing when it is over."
        if not self._shown.missing:
            return f"Of the stages shown, each with a LoRA has its pictures at scale {self.scale:g}."
        return ""

    def draw(self) -> list[Path]:
        """Draw the stages shown that have a LoRA and lack pictures at this scale; returns the new pictures.

        Nothing is missing: an empty list. Raises SdxlNbError while a run draws at scale 1 itself, and without prompts.
        """
        self.refresh()
        if why := self._why_not():
            if self._shown.missing or not self._shown.rows:
                raise SdxlNbError(why)
            self._notice.say(why)
            return []
        return self._draw(self.scale, self._shown.steps)

    def _draw(self, scale: float, steps: list[int]) -> list[Path]:
        """Draw what is missing of these steps; the base stays for the next time."""
        with self._drawing:
            self._notice.say(f"Drawing at scale {scale:g} ...")
            if self._base is None:
                self._base = loaded(self.run.config) if self.base is None else load_base(self.base)
            try:
                made = self.stages.draw(scale, self._base, lambda done, of: self._drawn(scale, done, of), steps)
                self._notice.say(f"{len(made)} pictures drawn at scale {scale:g}.")
                return made
            finally:
                if self.comm is None:  # closed meanwhile
                    self._release()

    def _drawn(self, scale: float, done: int, total: int) -> None:
        if self.comm is None:
            raise SdxlNbError("The grid was closed, so nothing more is drawn.")
        self._notice.say(f"Drawing at scale {scale:g}: step {done} of {total} steps done ...")
        self.refresh()

    def _release(self) -> None:
        if self._base is not None:
            self._base = None
            give_back()
