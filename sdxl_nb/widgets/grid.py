"""ValidationGrid: what a run drew at every stage, at any LoRA scale; enlarge one picture, ship or download one LoRA.

In: a Run, going on or over. Out: a widget whose columns are steps (0, the base, first) and whose rows are prompts and
seeds, held-out loss below each column. `grid.figure()` is the same without a widget.
"""

import threading
from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import HTML, Dropdown, HBox, Label, Layout, Text, VBox

from ..errors import SdxlNbError
from ..generation import load_base, release_memory
from ..run import GOING_ON, Run
from ..stages import FULL, Row, Stages, loaded
from .children import replace
from .columns import Columns
from .downloads import DownloadButton
from .table import Table, View, large
from .theme import style_sheet
from .twin import Twin
from .watching import Notice, Worker, watched

SCALES = (0.25, 0.5, 0.75, FULL, 1.25, 1.5)
NOT_BEGUN = "The run has not begun yet: its pictures come here as soon as it draws some."
NO_PICTURE = "No validation picture yet."
NO_PROMPT = "This run draws no pictures: it has no validation_prompt."


class ValidationGrid(Twin, VBox):
    """Prompt x stage x scale of a run; see the module. `scale` and `chosen`, a step, are its state."""

    scale = traitlets.Float(FULL, help="LoRA scale of the pictures shown.")
    chosen = traitlets.Int(None, allow_none=True, help="The step that was shipped last.")
    enlarged = traitlets.Tuple(help="(step, row) of the picture shown large, or empty.")

    _over: threading.Event | None = None  # what ends the looking, once it has begun

    def __init__(self, run: Run | str, scale: float = FULL, base: Any = None):
        self.run = run if isinstance(run, Run) else Run.open(run)
        self.stages, self.base, self._base, self._shown = Stages(self.run), base, None, None
        self._notice, self._work, self._lock = Notice(), Worker(), threading.RLock()
        self.guard, self.fail = self._notice.guard, self._notice.fail
        super().__init__()
        self._controls(scale)
        traitlets.link((self, "scale"), (self._scales, "value"))
        self.observe(self.guard(lambda change: self._rescale()), "scale")
        self._columns.observe(self.guard(lambda change: self._rescale()), "page")
        self.scale = scale
        self.refresh()
        self._over = watched(self, self.run, self.refresh)

    def _controls(self, scale: float) -> None:
        self._scales = Dropdown(
            options=[(f"{value:g}", value) for value in sorted({*SCALES, scale})],
            value=scale,
            description="LoRA scale",
            style={"description_width": "initial"},
            layout=Layout(width="170px"),
        )
        self._folder = Text(
            description="Ship to",
            style={"description_width": "initial"},
            layout=Layout(width="420px"),
            tooltip="A new folder for the LoRA that is shipped",
        )
        self._columns, self._large = Columns(), VBox()
        self._shelf = VBox(layout=Layout(overflow="auto"))  # many steps scroll
        download = DownloadButton("Download grid", "grid.png", self._png, self.fail)
        tools = HBox([self._scales, self._folder, download], layout=Layout(flex_flow="row wrap"))
        self.children = [style_sheet(), tools, self._columns, self._shelf, self._large, self._notice]
        self.add_class("sdxl-nb")

    def refresh(self) -> None:
        """Look again at what the run has drawn; the table is built anew only when there is more of it."""
        with self._lock:
            if self.comm is None:
                return  # it was closed
            self.run.refresh()
            if self._base is not None and not self._work.busy and self.run.status in GOING_ON:
                self._release()  # the run needs the memory
            view = self._look()
            if view != self._shown:
                self._show(view)
                self._shown = view

    def _look(self) -> View:
        """What the run has drawn and kept, of the stages that are shown now."""
        stages, heldout = self.stages, self.stages.heldout()
        steps, rows, kept = stages.steps(), stages.rows(), set(stages.steps_with_lora())
        best = min((step for step in steps if step in heldout), key=heldout.get, default=None)
        shown = self._columns.of(steps, kept, best)
        present = {(s, row) for s in shown for row in rows if stages.path(s, row, self.scale).is_file()}
        heldout = {step: loss for step, loss in heldout.items() if step in shown}
        return View(stages.begun, shown, rows, present, heldout, kept.intersection(shown), self.scale)

    def _show(self, view: View) -> None:
        if view.begun and not self._folder.value:
            self._folder.value = str(Path(self.run.folder).parent / f"{self.run.config.lora_name()}-chosen")
        if view.steps and view.rows:
            shown = next(iter(self._shelf.children), None)
            table = shown if isinstance(shown, Table) else Table(self)
            table.show(view)
            replace(self._shelf, [table])
        else:
            why = NOT_BEGUN if not view.begun else NO_PICTURE if view.rows else NO_PROMPT
            replace(self._shelf, [HTML(f"<i>{why}</i>")])

    def enlarge(self, step: int, row: Row) -> None:
        """Show one picture large below the table; pressing it puts it away."""
        alt = f"{row.prompt}, seed {row.seed}, step {step}, scale {self.scale:g}"
        picture = large(self.stages.path(step, row, self.scale), alt)
        picture.observe(self.guard(lambda change: self._put_away()), "clicks")
        replace(self._large, [Label(alt), picture])
        self.enlarged = (step, row)

    def lora(self, step: int) -> bytes:
        """The LoRA of this step as one file for ComfyUI, AUTOMATIC1111, Forge and diffusers. Raises SdxlNbError."""
        return self.stages.lora_file(step).read_bytes()

    def _put_away(self) -> None:
        replace(self._large, [])
        self.enlarged = ()

    def ship(self, step: int, folder: str | None = None) -> Path:
        """Copy the LoRA of this step with its card into a new folder. Raises SdxlNbError."""
        goal = self.stages.ship(step, folder or self._folder.value)
        self.chosen = step
        self._notice.say(f"The LoRA of step {step} is in {goal}.")
        return goal

    def _rescale(self) -> None:
        """Show another scale, or other steps, drawing in the background what was never drawn."""
        self._put_away()
        self.refresh()
        scale, steps = self.scale, self._shown.steps
        if scale == FULL and self.run.status in GOING_ON:
            return  # the run draws these itself
        if self.stages.missing(scale, steps):
            self._work.start(self.guard(lambda: self._draw(scale, steps)))

    def _draw(self, scale: float, steps: list[int]) -> None:
        """Draw what is missing; the base stays for the next time."""
        self._notice.say(f"Drawing at scale {scale:g} ...")
        if self._base is None:
            self._base = loaded(self.run.config) if self.base is None else load_base(self.base)
        try:
            made = self.stages.draw(scale, self._base, lambda done, total: self._drawn(scale, done, total), steps)
            self._notice.say(f"{len(made)} pictures drawn at scale {scale:g}.")
        finally:
            if self.comm is None:  # closed meanwhile
                self._release()

    def _drawn(self, scale: float, done: int, total: int) -> None:
        if self.comm is None:
            raise SdxlNbError("The grid was closed, so nothing more is drawn.")
        self._notice.say(f"Drawing at scale {scale:g}: step {done} of {total} steps done ...")
        self.refresh()

    def figure(self) -> Any:
        """The same as a matplotlib Figure, for papermill, nbconvert and GitHub."""
        pictures = self.stages.grid(self.scale, self._look().steps)
        if not pictures.pictures:
            raise SdxlNbError("The run has drawn no picture yet.")
        return pictures.figure()

    def _png(self) -> bytes:
        return self.figure()._repr_png_()

    def _release(self) -> None:
        if self._base is not None:
            self._base = None
            release_memory()

    def close(self) -> None:
        """Stop looking, and give back the memory of the base; the run goes on."""
        if self.comm is None:
            return
        if self._over:
            self._over.set()
        with self._lock:
            self._release()
            replace(self, [])
            self.layout.close()
            super().close()
