"""ValidationGrid: a run at every stage, at any LoRA scale: enlarge and draw pictures, ship or download a LoRA.

In: a Run, going on or over. Out: a widget whose columns are steps with pictures or a LoRA (0, the base, first) and
whose rows are prompts and seeds, held-out loss below each column. `grid.figure()` is the same without a widget.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import HTML, HBox, Layout, Text, VBox

from ...runs.run import GOING_ON, Run
from ...runs.stages import FULL, Row, Stages, lowest
from ...system.errors import SdxlNbError
from ..parts.children import replace
from ..parts.downloads import DownloadButton
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, Worker, check_traits, run_of, watched
from .columns import Columns
from .enlarged import Enlarged
from .filling import Filling
from .scales import Scales
from .table import NOTHING, Table, View

if TYPE_CHECKING:
    from ...system.figures import Sheet

NOT_BEGUN = "The run has not begun yet: its pictures come here as soon as it draws some."
NO_PICTURE = "No validation picture yet."
NO_PROMPT = "This run draws no pictures: it has no validation_prompt."


class ValidationGrid(Filling, Twin, VBox):
    """Prompt x stage x scale of a run; see the module. `scale` and `chosen`, a step, are its state."""

    scale = traitlets.Float(FULL, help="LoRA scale of the pictures shown.")
    chosen = traitlets.Int(None, allow_none=True, help="The step that was shipped last.")
    enlarged = traitlets.Tuple(help="(step, row) of the picture shown large, or empty.")

    _goes_on = False
    _over: threading.Event | None = None  # what ends the looking, once it has begun

    def __init__(self, run: Run | str, scale: float = FULL, base: Any = None, **traits: Any):
        check_traits(type(self), traits, also=("run", "base"))
        self.run = run_of(type(self), run)
        self.stages, self.base, self._shown = Stages(self.run), base, NOTHING
        self._notice, self._work, self._lock = Notice(), Worker(), threading.RLock()
        self.guard, self.fail = self._notice.guard, self._notice.fail
        super().__init__()
        self._controls()
        self.observe(self.guard(lambda change: self._rescale()), "scale")
        self._columns.observe(self.guard(lambda change: self._rescale()), "page")
        self.refresh()
        for name, value in {"scale": scale, **traits}.items():
            setattr(self, name, value)
        self._over = watched(self, self.run, self.refresh)

    def _controls(self) -> None:
        self._scales = Scales(self)
        self._folder = Text(description="Ship to", style={"description_width": "initial"}, layout=Layout(width="330px"))
        self._folder.tooltip = "A new folder for the LoRA that is shipped"
        self._columns, self._large = Columns(), Enlarged(self)
        self._shelf = VBox(layout=Layout(overflow="auto"))  # many steps scroll
        self._paper = DownloadButton("Download grid", "grid.png", self._png, self.fail)
        self._paper.layout.margin = "2px"  # as the other controls have it
        tools = [self._scales, self._draw_button(), self._folder, self._paper]
        tools = HBox(tools, layout=Layout(flex_flow="row wrap"))
        self.children = [style_sheet(), tools, self._columns, self._notice, self._large, self._shelf]
        self.add_class("sdxl-nb")

    def refresh(self) -> None:
        """Look again at what the run has drawn and kept; only what is new in the table is built anew."""
        with self._lock:
            if self.comm is None:
                return  # it was closed
            self.run.refresh()
            if self._base is not None and not self._work.busy and self.run.status in GOING_ON:
                self._release()  # the run needs the memory
            view = self._look()
            if view != self._shown:
                self._show(view)
            self._offer_to_draw()
            went_on, self._goes_on = self._goes_on, self.run.status in GOING_ON
        if went_on and not self._goes_on:
            self.renew()  # what a page without a kernel shows from now on

    def _look(self) -> View:
        """What the run has drawn and kept, of the stages that are shown now."""
        stages, heldout = self.stages, self.stages.heldout()
        drawn, rows, kept = stages.steps(), stages.rows(), set(stages.steps_with_lora())
        shown = self._columns.of(drawn, kept, {lowest(heldout, kept), lowest(heldout, {*drawn, *kept})})
        written = {(step, row): stages.written(step, row, self.scale) for step in shown for row in rows}
        present = {place: when for place, when in written.items() if when is not None}
        heldout = {step: loss for step, loss in heldout.items() if step in shown}
        return View(stages.begun, shown, rows, present, heldout, kept.intersection(shown), self.scale)

    def _show(self, view: View) -> None:
        if view.begun and not self._folder.value:
            self._folder.value = str(Path(self.run.folder).parent / f"{self.run.config.lora_name()}-chosen")
        if self.enlarged and view.present.get(self.enlarged) != self._shown.present.get(self.enlarged):
            self.enlarged = ()  # it is no longer what the run has there
        draws = None if view.rows or not view.begun else "none"
        self._scales.layout.display = self._draws.layout.display = self._paper.layout.display = draws
        shown = []
        if why := NOT_BEGUN if not view.begun else NO_PROMPT if not view.rows else "" if view.steps else NO_PICTURE:
            shown.append(HTML(f"<i>{why}</i>"))
        if view.steps:
            table = next((old for old in self._shelf.children if isinstance(old, Table)), None) or Table(self)
            table.show(view)
            shown.append(table)
        replace(self._shelf, shown)
        self._shown = view

    def enlarge(self, step: int, row: Row) -> None:
        """Show one picture large above the table; pressing it puts it away."""
        self.enlarged = (step, row)

    def _rescale(self) -> None:
        """Show another scale, or other steps, and draw in the background what lacks of a scale that no run draws at."""
        self.enlarged = ()
        self.refresh()
        scale, steps = self.scale, self._shown.steps
        if scale != FULL and self._shown.missing:
            self._work.start(self.guard(lambda: self._draw(scale, steps)))

    def lora(self, step: int) -> bytes:
        """The LoRA of this step as one file for ComfyUI, AUTOMATIC1111, Forge and diffusers. Raises SdxlNbError."""
        return self.stages.lora_file(step).read_bytes()

    def ship(self, step: int, folder: str | None = None) -> Path:
        """Copy the LoRA of this step with its card into a new folder. Raises SdxlNbError."""
        goal = self.stages.ship(step, folder or self._folder.value)
        self.chosen = step
        self._notice.say(f"The LoRA of step {step} is in {goal}.")
        return goal

    def figure(self) -> "Sheet":
        """The same as a matplotlib Figure, for papermill, nbconvert and GitHub."""
        if not (steps := self._look().steps):
            raise SdxlNbError("The run has drawn no picture yet, and kept no LoRA.")
        return self.stages.figure(steps, self.scale)

    def _png(self) -> bytes:
        return self.figure().png()

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
