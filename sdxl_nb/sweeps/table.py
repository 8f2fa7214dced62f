"""What came of a sweep: its trials as a table, the best one, its configuration, and a plot of parallel coordinates.

In: rows. Out: `Sweep`, which prints and shows itself in a notebook. Nothing in it tells how often it was interrupted.
"""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runs.run import Run
from ..system.errors import SdxlNbError
from .ledger import Row
from .space import Space, written

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig
    from ..system.figures import Sheet

CELL = "text-align:left;padding:2px 8px"
NAMES = {"heldout_loss": "held-out loss", "train_loss": "training loss"}


class Sweep:
    """`rows` of all trials that are over, by number; `best` the one of lowest loss, None where none has any."""

    def __init__(
        self, config: "TrainConfig", space: Space, folder: Path, by: str, rows: Sequence[Row], notes: Sequence[str] = ()
    ):
        self.base, self.space, self.folder, self.by = config, space, folder, by
        self.rows, self.notes = sorted(rows), list(notes)

    @property
    def best(self) -> Row | None:
        """The completed trial of lowest loss; of equal ones the earliest."""
        known = [row for row in self.rows if row.state == "completed" and row.loss is not None]
        return min(known, key=lambda row: (row.loss, row.number), default=None)

    def _row(self, number: int | None) -> Row:
        found = self.best if number is None else next((row for row in self.rows if row.number == number), None)
        if found is None:
            raise SdxlNbError("No trial is completed yet." if number is None else f"There is no trial {number}.")
        return found

    def config(self, number: int | None = None) -> "TrainConfig":
        """The configuration of a trial, by default the best one's. Raises SdxlNbError where there is none."""
        return self.base.replace(**self._row(number).values)

    def run(self, number: int | None = None) -> Run:
        """The run of a trial, by default the best one's."""
        return Run.open(self.folder / f"trial-{self._row(number).number:03d}")

    def figure(self) -> "Sheet":
        """Parallel coordinates: a line for each trial over its settings and its loss."""
        from .plot import parallel_coordinates

        return parallel_coordinates(self.space, self.rows, NAMES[self.by], self.best)

    def _heads(self) -> list[str]:
        return ["trial", *self.space.parameters, NAMES[self.by], "at step", ""]

    def _cells(self, row: Row) -> list[str]:
        star = " ★" if row == self.best else ""
        values = [written(row.values.get(name)) for name in self.space.parameters]
        loss = "–" if row.loss is None else f"{row.loss:.4f}"
        step = "–" if row.step is None else str(row.step)
        return [f"{row.number}{star}", *values, loss, step, row.error or row.state]

    def __str__(self) -> str:
        rows = [self._heads(), *map(self._cells, self.rows)]
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        best = self.best
        return f"Sweep({self.folder}: {len(self.rows)} trials" + (f", best {best.number})" if best else ")")

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f'<{tag} style="{CELL}">{html.escape(cell)}</{tag}>' for cell in cells) + "</tr>"

        body = line(self._heads(), "th") + "".join(line(self._cells(row), "td") for row in self.rows)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f'<div><table style="color:inherit;background:none">{body}</table><ul>{notes}</ul></div>'
