"""One picture of a ValidationGrid in its own size, above the table, with all that it was drawn from.

In: the grid, whose `enlarged` says which. Out: a viewer; its arrow keys go on to the stage before or after, and to the
prompt above or below.
"""

from typing import TYPE_CHECKING

from ...runs.stages import Row
from ..parts.viewer import Viewer

if TYPE_CHECKING:
    from .grid import ValidationGrid


class Enlarged(Viewer):
    """The picture that a grid shows large, and its words; nothing while it shows none."""

    def __init__(self, grid: "ValidationGrid"):
        super().__init__(grid.guard(self._move), lambda: grid.set_trait("enlarged", ()))
        self._grid = grid
        grid.observe(lambda change: self._show(*change["new"]), "enlarged")

    def _show(self, step: int | None = None, row: Row | None = None) -> None:
        if step is None or row is None:
            return self.hide()
        grid = self._grid
        words = f"{row.prompt}, seed {row.seed}, step {step}, scale {grid.scale:g}"
        hint = "← → another step, ↑ ↓ another prompt, Esc puts it away"
        return self.show(grid.stages.path(step, row, grid.scale), words, hint)

    def _move(self, right: int, down: int) -> None:
        """Go on to the next picture there is in this direction; at the edge nothing happens."""
        if not self._grid.enlarged:
            return
        (step, row), view = self._grid.enlarged, self._grid._shown
        steps, rows = (
            [s for s in view.steps if (s, row) in view.present],
            [r for r in view.rows if (step, r) in view.present],
        )
        if right:
            place = steps.index(step) + right
            self._grid.enlarge(steps[min(max(place, 0), len(steps) - 1)], row)
        else:
            place = rows.index(row) + down
            self._grid.enlarge(step, rows[min(max(place, 0), len(rows) - 1)])
