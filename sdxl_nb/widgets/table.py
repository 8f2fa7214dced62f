"""The table of a ValidationGrid: a column for each stage, a row for each prompt and seed, and what can be done below.

In: a `View`, what the run has drawn and kept, and the grid whose methods the buttons call. Out: a box of cells. Shown
again, a cell that stays the same is the same widget, so that nothing flickers or loses the focus.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ipywidgets import HTML, Button, GridBox, Label, Layout
from PIL import Image

from ..stages import Row
from . import children
from .downloads import DownloadButton
from .pictures import PictureButton, thumbnail

SIDE = 128  # CSS pixels of a picture
SMALL, LARGE = 512, 1024  # pixels of an enlarged one, at least and at most


class View(NamedTuple):
    """What is on disk, as a value that can be compared."""

    begun: bool
    steps: list[int]
    rows: list[Row]
    present: set[tuple[int, Row]]
    heldout: dict[int, float]
    kept: set[int]
    scale: float


class Table(GridBox):
    """`show` a View; the grid has `stages`, `guard`, `fail`, and does what the buttons say."""

    def __init__(self, grid: Any):
        super().__init__(layout=Layout(grid_gap="4px 8px", align_items="center"))
        self._grid, self._cells = grid, {}

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
                cell(self._picture, step, row, view.scale if (step, row) in view.present else None)
        if view.heldout:
            cell(_label, "held-out loss")
            for step in view.steps:
                cell(_middle, f"{view.heldout[step]:.4f}" if step in view.heldout else "", step)
        for words, make in (("to the folder above", self._ship), ("to your computer", self._download)):
            cell(_label, words)
            for step in view.steps:
                cell(make, step, step in view.kept)
        self.layout.grid_template_columns = f"150px repeat({len(view.steps)}, {SIDE}px)"
        children.replace(self, list(self._cells.values()))

    def _picture(self, step: int, row: Row, scale: float | None) -> PictureButton:
        """The picture at this scale; without one it was not drawn."""
        if scale is None:
            return PictureButton(alt="not drawn", side=SIDE)
        picture = thumbnail(self._grid.stages.path(step, row, scale))
        button = PictureButton(value=picture, alt=f"{row.prompt}, seed {row.seed}, step {step}", side=SIDE)
        button.observe(self._grid.guard(lambda change: self._grid.enlarge(step, row)), "clicks")
        return button

    def _ship(self, step: int, there: bool) -> Button:
        tooltip = f"Copy the LoRA of step {step} with its card" if there else "The LoRA of this step was not kept"
        button = Button(description="Ship", tooltip=tooltip, disabled=not there, layout=Layout(width=f"{SIDE}px"))
        button.on_click(self._grid.guard(lambda _: self._grid.ship(step)))
        return button

    def _download(self, step: int, there: bool) -> DownloadButton:
        """The file that ComfyUI, AUTOMATIC1111, Forge and diffusers read; its bytes are read when it is pressed."""
        name, grid = f"{self._grid.run.config.lora_name()}-step{step}.safetensors", self._grid
        return DownloadButton("Download", name, lambda: grid.lora(step), grid.fail, not there, f"{SIDE}px")


def _label(text: str) -> Label:
    return Label(text)


def _middle(text: str, step: int) -> Label:
    return Label(text, layout=Layout(justify_content="center", width=f"{SIDE}px"))


def _prompt(row: Row) -> HTML:
    return HTML(f"<div style='line-height:1.3'>{escape(row.prompt)}<br><small>seed {row.seed}</small></div>")


def large(path: Path, alt: str) -> PictureButton:
    """A picture in its own size, up to 1024 px; those of the tiny base are enlarged pixel by pixel."""
    with Image.open(path) as picture:
        side = min(max(*picture.size, SMALL), LARGE)
    return PictureButton(value=thumbnail(path, side), alt=alt, side=side)
