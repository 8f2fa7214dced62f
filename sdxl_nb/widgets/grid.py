"""ValidationGrid: what a run drew at every stage, at any LoRA scale; enlarge one picture, ship one stage.

In: a Run, going on or over. Out: a widget whose columns are steps (0, the base, first) and whose rows are prompts and
seeds, held-out loss below each column. `grid.figure()` is the same without a widget.
"""

from pathlib import Path
from typing import Any

import traitlets
from ipywidgets import HTML, Button, Dropdown, GridBox, HBox, Label, Layout, Text, VBox

from ..run import Run
from ..stages import FULL, Row, Stages
from .downloads import DownloadButton
from .pictures import PictureButton, thumbnail
from .theme import style_sheet
from .twin import Twin
from .watching import Notice, Worker, watched

SCALES = (0.25, 0.5, 0.75, FULL, 1.25, 1.5)
MOST = 8  # columns at once
SIDE = 128


class ValidationGrid(Twin, VBox):
    """Prompt x stage x scale of a run; see the module. `scale` and `chosen`, a step, are its state."""

    scale = traitlets.Float(FULL, help="LoRA scale of the pictures shown.")
    chosen = traitlets.Int(None, allow_none=True, help="The step that was shipped last.")
    enlarged = traitlets.Tuple(help="(step, row) of the picture shown large, or empty.")

    def __init__(self, run: Run | str, scale: float = FULL, base: Any = None):
        self.run = run if isinstance(run, Run) else Run.open(run)
        self.stages, self.base, self._shown = Stages(self.run), base, None
        self._notice, self._work = Notice(), Worker()
        self._scales = Dropdown(
            options=[(f"{value:g}", value) for value in sorted({*SCALES, scale})],
            value=scale,
            description="LoRA scale",
            style={"description_width": "initial"},
            layout=Layout(width="170px"),
        )
        self._folder = Text(
            value=str(Path(self.run.folder).parent / f"{self.run.config.lora_name()}-chosen"),
            description="Ship to",
            layout=Layout(width="420px"),
            tooltip="A new folder for the LoRA that is shipped",
        )
        self._table, self._large = VBox(layout=Layout(overflow="auto")), VBox()  # many steps scroll
        self._download = DownloadButton("Download grid", "grid.png", self._png, self._notice.fail)
        tools = HBox([self._scales, self._folder, self._download], layout=Layout(flex_flow="row wrap"))
        super().__init__([style_sheet(), tools, self._table, self._large, self._notice])
        self.add_class("sdxl-nb")
        traitlets.link((self, "scale"), (self._scales, "value"))
        self.observe(self._notice.guard(lambda change: self._rescale()), "scale")
        self.scale = scale
        self.refresh()
        watched(self, self.run, self.refresh)

    def refresh(self) -> None:
        """Look again at what the run has drawn; the table is built anew only when there is more of it."""
        self.run.refresh()
        found = self._found()
        if found != self._shown:
            self._shown = found
            self._build(*found)

    def _found(self) -> tuple[Any, ...]:
        """What is on disk, as a value that can be compared."""
        steps = _spread(self.stages.steps())
        rows = self.stages.rows()
        present = {(s, r) for s in steps for r in rows if self.stages.path(s, r, self.scale).is_file()}
        return steps, rows, present, self.stages.heldout(), frozenset(self.stages.steps_with_lora()), self.scale

    def _build(self, steps, rows, present, heldout, kept, scale) -> None:
        if not steps or not rows:
            why = "No validation picture yet." if rows else "This run draws no pictures: it has no validation_prompt."
            self._table.children = [HTML(f"<i>{why}</i>")]
            return
        cells = [Label(), *(_middle(f"step {step}" if step else "base") for step in steps)]
        for row in rows:
            cells.append(_prompt(row))
            cells += [self._picture(step, row, (step, row) in present) for step in steps]
        if heldout:
            cells.append(Label("held-out loss"))
            cells += [_middle(f"{heldout[step]:.4f}" if step in heldout else "") for step in steps]
        cells.append(Label())
        cells += [self._ship_button(step, step in kept) for step in steps]
        columns = f"150px repeat({len(steps)}, {SIDE}px)"
        self._table.children = [
            GridBox(cells, layout=Layout(grid_template_columns=columns, grid_gap="4px 8px", align_items="center"))
        ]

    def _picture(self, step: int, row: Row, there: bool) -> Any:
        alt = f"{row.prompt}, seed {row.seed}, step {step}" if there else "not drawn"
        path = self.stages.path(step, row, self.scale)
        button = PictureButton(value=thumbnail(path) if there else b"", alt=alt, side=SIDE)
        if there:
            button.observe(self._notice.guard(lambda change: self.enlarge(step, row)), "clicks")
        return button

    def _ship_button(self, step: int, there: bool) -> Button:
        tooltip = f"Copy the LoRA of step {step} with its card" if there else "The LoRA of this step was not kept"
        button = Button(description="Ship", tooltip=tooltip, disabled=not there, layout=Layout(width=f"{SIDE}px"))
        button.on_click(self._notice.guard(lambda _: self.ship(step)))
        return button

    def enlarge(self, step: int, row: Row) -> None:
        """Show one picture large below the table; pressing it puts it away."""
        large = PictureButton(
            value=thumbnail(self.stages.path(step, row, self.scale), 512),
            alt=f"{row.prompt}, seed {row.seed}, step {step}, scale {self.scale:g}",
            side=384,
        )
        large.observe(lambda change: self._put_away(), "clicks")
        self._large.children = [Label(large.alt), large]
        self.enlarged = (step, row)

    def _put_away(self) -> None:
        self._large.children, self.enlarged = [], ()

    def ship(self, step: int, folder: str | None = None) -> Path:
        """Copy the LoRA of this step with its card into a new folder. Raises SdxlNbError."""
        goal = self.stages.ship(step, folder or self._folder.value)
        self.chosen = step
        self._notice.say(f"The LoRA of step {step} is in {goal}.")
        return goal

    def _rescale(self) -> None:
        """Show another scale, drawing in the background what was never drawn at it."""
        self._put_away()
        self.refresh()
        if self.stages.missing(self.scale):
            self._work.start(self._notice.guard(lambda: self._draw(self.scale)))

    def _draw(self, scale: float) -> None:
        self._notice.say(f"Drawing at scale {scale:g} ...")
        made = self.stages.draw(scale, self.base, lambda done, total: self._drawn(scale, done, total))
        self._notice.say(f"{len(made)} pictures drawn at scale {scale:g}.")

    def _drawn(self, scale: float, done: int, total: int) -> None:
        self._notice.say(f"Drawing at scale {scale:g}: step {done} of {total} steps done ...")
        self.refresh()

    def figure(self) -> Any:
        """The same as a matplotlib Figure, for papermill, nbconvert and GitHub."""
        return self.stages.grid(self.scale, _spread(self.stages.steps())).figure()

    def _png(self) -> bytes:
        return self.figure()._repr_png_()


def _spread(steps: list[int]) -> list[int]:
    """At most MOST of the steps, evenly chosen, first and last among them."""
    if len(steps) <= MOST:
        return steps
    return [steps[round(i * (len(steps) - 1) / (MOST - 1))] for i in range(MOST)]


def _middle(text: str) -> Label:
    return Label(text, layout=Layout(justify_content="center", width=f"{SIDE}px"))


def _prompt(row: Row) -> HTML:
    from html import escape

    return HTML(f"<div style='line-height:1.3'>{escape(row.prompt)}<br><small>seed {row.seed}</small></div>")
