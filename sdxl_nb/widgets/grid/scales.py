"""The LoRA scales that a ValidationGrid can be shown at.

In: the grid, whose `scale` is what is chosen. Out: a list to choose from; a scale that code has set comes into it.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import traitlets
from ipywidgets import Dropdown, Layout

if TYPE_CHECKING:
    from .grid import ValidationGrid

SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


class Scales(Dropdown):
    """Offers the usual scales and the grid's."""

    def __init__(self, grid: "ValidationGrid"):
        self._offered = {*SCALES, grid.scale}
        super().__init__(
            options=_options(self._offered),
            value=grid.scale,
            description="LoRA scale",
            style={"description_width": "initial"},
            layout=Layout(width="170px"),
        )
        grid.observe(lambda change: self._offer(change["new"]), "scale")  # before it is chosen
        self._linked = traitlets.link((grid, "scale"), (self, "value"))

    def _offer(self, scale: float) -> None:
        if scale not in self._offered:
            self._offered.add(scale)
            self._linked.unlink()  # new options alone would choose the first of them
            self.options = _options(self._offered)
            self._linked.link()


def _options(scales: Iterable[float]) -> list[tuple[str, float]]:
    return [(f"{scale:g}", scale) for scale in sorted(scales)]
