"""The table of a ValidationGrid: a column for each stage, a row for each prompt and seed, and what can be done below.

In: a `View`, what the run has drawn and kept, and the grid whose methods the buttons call. Out: a box of cells. Shown
again, a cell that stays the same is the same widget, so that nothing flickers or loses the focus.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ipywidgets import HTML, Button, GridBox, Label, Layout

from ...runs.stages import FULL, Row, lowest
from ..parts import children
from ..parts.caption import caption
from ..parts.downloads import DownloadButton
from ..parts.pictures import PictureButton, thumbnail

if TYPE_CHECKING:
    from .grid import ValidationGrid

SIDE, LEAST, WORDS = 128, 100, 164  # CSS pixels of a picture, at most and at least, and of the words beside a row
EMPTY = """<div style="aspect-ratio:1; display:flex; align-items:center; justify-content:center; box-sizing:border-box;
border:1px dashed var(--jp-border-color2); color:var(--jp-ui-font-color2)">not drawn</div>"""


class View(NamedTuple):
    """What is on disk, as a value that can be compared."""

    begun: bool
    steps: list[int]
    rows: list[Row]
    present: dict[tuple[int, Row], int]  # when each picture was written, in nanoseconds
    heldout: dict[int, float]
    kept: set[int]
    scale: float

    @property
    def missing(self) -> list[int]:
        """The steps that lack a picture and have a LoRA to draw it with."""
        lacking = [step for step in self.steps if not all((step, row) in self.present for row in self.rows)]
        return [step for step in lacking if step and step in self.kept]


NOTHING = View(False, [], [], {}, {}, set(), math.nan)  # what a new grid shows; no other is equal to it


class Table(GridBox):
    """`show` a View; the grid has `stages`, `guard`, `fail`, and does what the buttons say."""

    def __init__(self, grid: "ValidationGrid"):
        super().__init__(layout=Layout(grid_gap="4px 8px", align_items="center"))
        self._grid = grid
        self._cells: dict[tuple[object, ...], Any] = {}

    def show(self, view: View) -> None:
        """The pictures of these steps with their held-out loss, and the buttons that take a LoRA out."""
        old, self._cells = self._cells, {}

        def cell(make: Callable[..., Any], *about: Any) -> None:
            key = make, *about
            self._cells[key] = old[key] if key in old else make(*about)

        cell(_label, "")
        for step in view.steps:
            cell(_middle, f"step {step}" if step else "base", step)
        for row in view.rows:
            cell(_prompt, row)
            for step in view.steps:
                cell(self._picture, step, row, view.scale, view.present.get((step, row)))
        if view.heldout:
            cell(_label, "held-out loss" if view.scale == FULL else f"held-out loss, at scale {FULL:g}")
            best = lowest(view.heldout, view.kept)
            for step in view.steps:
                mark = "lowest " if step == best else ""  # a star is what a person gives
                cell(_middle, f"{mark}{view.heldout[step]:.4f}" if step in view.heldout else "", step)
        taking_out = (("to the folder above", self._ship), ("to your computer", self._download))
        for words, make in taking_out if any(view.steps) else ():  # the base alone has nothing to take
            cell(_label, words)
            for step in view.steps:
                cell(make, step, step in view.kept)
        self.layout.grid_template_columns = f"{WORDS}px repeat({len(view.steps)}, minmax({LEAST}px, {SIDE}px))"
        children.replace(self, list(self._cells.values()))

    def _picture(self, step: int, row: Row, scale: float, written: int | None) -> Any:
        """The picture at this scale; an empty place where it was not drawn."""
        if written is None:
            return HTML(EMPTY, layout=Layout(margin="0"))
        picture = thumbnail(self._grid.stages.path(step, row, scale))
        button = PictureButton(value=picture, alt=f"{row.prompt}, seed {row.seed}, step {step}", side=SIDE)
        button.observe(self._grid.guard(lambda change: self._grid.enlarge(step, row)), "clicks")
        return button

    def _ship(self, step: int, there: bool) -> Any:
        if not step:
            return Label()  # the base has no LoRA
        tooltip = f"Copy the LoRA of step {step} with its card" if there else "The LoRA of this step was not kept"
        place = Layout(width="auto", margin="0")
        button = Button(description=f"Ship {step}", tooltip=tooltip, disabled=not there, layout=place)
        button.on_click(self._grid.guard(lambda _: self._grid.ship(step)))
        return button

    def _download(self, step: int, there: bool) -> Any:
        """The file that ComfyUI, AUTOMATIC1111, Forge and diffusers read; its bytes are read when it is pressed."""
        if not step:
            return Label()
        name, grid = f"{self._grid.run.config.lora_name()}-step{step}.safetensors", self._grid
        return DownloadButton(f"Download {step}", name, lambda: grid.lora(step), grid.fail, not there, "auto")


def _label(text: str) -> Label:
    return Label(text)


def _middle(text: str, step: int) -> Label:
    return Label(text, layout=Layout(justify_content="center", width="auto"))


def _prompt(row: Row) -> HTML:
    return HTML(caption(row.prompt, f"seed {row.seed}"))
