"""The pictures of a run while it goes on: the newest beside those before training, or of any step on a slider.

In: a Run, at every look. Out: a box of small pictures that can be pressed; a large one has arrow keys for the step
before or after and for the prompts. What stays the same is the same widget, so that nothing flickers.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ipywidgets import HTML, HBox, Layout, VBox

from ...runs.run import Run
from ..parts.caption import caption
from ..parts.children import replace
from ..parts.hearing import hear_at_once
from ..parts.pictures import PictureButton, thumbnail
from ..parts.viewer import Viewer
from .stepper import Stepper

SHOWN, SIDE = 8, 164  # pictures at most, and their side in CSS pixels: 160 and a frame
MOVES = "← → another step, ↑ ↓ another prompt, Esc puts it away"


class Newest(VBox):
    """`show` a run; `step` is the one that is looked at, None for the newest whichever it is."""

    def __init__(self, guard: Callable[[Callable[..., Any]], Callable[..., Any]]):
        self._guard, self._lock = guard, threading.RLock()  # a thread looks while a person moves
        self._drawn: dict[int, dict[str, Path]] = {}
        self._prompts: list[str] = []
        self._large_of: tuple[int, str] | None = None  # the step and file of the picture shown large
        self.step: int | None = None
        self._tiles = HBox(layout=Layout(flex_flow="row wrap", grid_gap="8px", margin="6px 2px"))
        self._stepper = Stepper()
        self._stepper.layout.display = "none"
        self._stepper.observe(guard(lambda change: self._choose(change["new"])), "place")
        self._large = Viewer(guard(self._move), self._put_away)
        hear_at_once(self._stepper)
        super().__init__([self._stepper, self._large, self._tiles])

    @property
    def tiles(self) -> tuple["Tile", ...]:
        """The small pictures that are shown."""
        return tuple(self._tiles.children)

    def show(self, run: Run) -> None:
        """The pictures of a run as they are now."""
        with self._lock:
            self._drawn = {step: {p.name: p for p in paths} for step, paths in run.pictures().items() if paths}
            if self._drawn:
                self._prompts = list({each.number: each.line for each in run.config.drawings()}.values())
            if self.step not in self._drawn:
                self.step = None
            self._offer()
            self._fill()
            if self._large_of is not None and self._path(*self._large_of) is None:
                self._put_away()

    def _path(self, step: int, name: str) -> Path | None:
        return self._drawn.get(step, {}).get(name)

    def _offer(self) -> None:
        """The slider, once there is something to choose from."""
        steps = [step for step in self._drawn if step]
        self._stepper.layout.display = None if len(steps) > 1 else "none"
        if steps:
            self._stepper.offer(steps, len(steps) - 1 if self.step is None else steps.index(self.step))

    def _choose(self, place: int) -> None:
        """Look at another step; the last one is the newest, also when there is a newer one."""
        with self._lock:
            steps = self._stepper.steps
            wanted = None if place >= len(steps) - 1 else steps[place]
            if wanted != self.step:
                self.step = wanted
                self._fill()

    def _fill(self) -> None:
        step = max(self._drawn, default=0) if self.step is None else self.step
        names = list(self._drawn.get(step, ()))[:SHOWN]
        shown = [(name, step > 0 and self._path(0, name) is not None) for name in names]
        if shown != [(tile.name, tile.before is not None) for tile in self.tiles]:
            replace(self._tiles, [Tile(name, before, self._guard(self.look_at)) for name, before in shown])
        for tile in self.tiles:
            tile.show(step, self._prompt(tile.name), self._drawn[step][tile.name], self._path(0, tile.name))

    def _prompt(self, name: str) -> str:
        number = int(name.split("-")[0])
        return self._prompts[number] if number < len(self._prompts) else f"prompt {number}"

    def look_at(self, step: int, name: str) -> None:
        """Show one picture large, above the others."""
        with self._lock:
            if (path := self._path(step, name)) is None:
                return
            self._large_of = step, name
            when = f"step {step:,}" if step else "before training"
            self._large.show(path, f"{self._prompt(name)}, {when}, seed {_seed(name)}", MOVES)
            hear_at_once(self._large.children[1])

    def _move(self, right: int, down: int) -> None:
        """Go on to the next picture there is in this direction; at the edge nothing happens."""
        with self._lock:
            if self._large_of is None:
                return
            step, name = self._large_of
            steps, names = [s for s in self._drawn if name in self._drawn[s]], list(self._drawn[step])
            if right:
                step = steps[min(max(steps.index(step) + right, 0), len(steps) - 1)]
            else:
                name = names[min(max(names.index(name) + down, 0), len(names) - 1)]
            self.look_at(step, name)

    def _put_away(self) -> None:
        with self._lock:
            self._large_of = None
            self._large.hide()


class Tile(VBox):
    """One prompt and seed: its picture before training where there is one, and that of a step; words below."""

    def __init__(self, name: str, with_before: bool, press: Callable[[int, str], object]):
        self.name, self._step = name, 0
        self.before = PictureButton(side=SIDE) if with_before else None
        self.now, self._words = PictureButton(side=SIDE), HTML()
        both = [self.before, self.now] if self.before else [self.now]
        self.now.observe(lambda change: press(self._step, name), "clicks")
        if self.before:
            self.before.observe(lambda change: press(0, name), "clicks")
        hear_at_once(*both)
        super().__init__([HBox(both, layout=Layout(grid_gap="4px")), self._words])
        if self.before:
            self.add_class("sdxl-nb-both")

    def show(self, step: int, prompt: str, path: Path, before: Path | None) -> None:
        """The picture of this step."""
        self._step, seed = step, _seed(self.name)
        if self.before is not None and before is not None:
            _put(self.before, before, f"{prompt}, before training, seed {seed}")
        at = f"step {step:,}" if step else "before training"
        _put(self.now, path, f"{prompt}, {at}, seed {seed}")
        when = f"before training → {at}" if self.before is not None else at
        self._words.value = caption(prompt, f"{when}, seed {seed}")


def _seed(name: str) -> str:
    return Path(name).stem.split("-")[1]


def _put(button: PictureButton, path: Path, alt: str) -> None:
    with button.hold_sync():
        button.value, button.alt = small(path, path.stat().st_mtime_ns), alt


@lru_cache(512)
def small(path: Path, written: int) -> bytes:
    """A small copy of a picture that was written then: some kB, kept for who goes back and forth."""
    return thumbnail(path, 256)
