"""One picture of a ValidationGrid in its own size, above the table, with all that it was drawn from.

In: the grid, whose `enlarged` says which. Out: a box whose picture comes into view and takes the focus when somebody
pressed the small one, and gives the focus back when it is put away.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ipywidgets import HTML, VBox
from PIL import Image

from ...runs.stages import Row
from ..parts.children import replace
from ..parts.pictures import PictureButton, thumbnail

if TYPE_CHECKING:
    from .grid import ValidationGrid

SMALL, LARGE = 512, 1024  # pixels of an enlarged picture, at least and at most


class LargePicture(PictureButton):
    """A PictureButton that the focus goes to, from what was pressed and back to it."""

    _esm = PictureButton._esm.replace(
        "export default { render };",
        """
    export default { render(context) {
      const pressed = document.activeElement, clean = render(context);
      const ours = pressed && pressed.closest(".sdxl-nb");  // else the page is only being loaded
      if (ours) requestAnimationFrame(() => context.el.querySelector("button")?.focus());
      return () => {
        const button = context.el.querySelector("button");
        const lost = [button, document.body, null].includes(document.activeElement);  // nobody else has it
        clean();
        if (ours && lost && pressed.isConnected) pressed.focus();
      };
    } };
    """,
    )
    _css = PictureButton._css + ".sdxl-nb-large img { max-height: 80vh !important; }"  # whole on any screen


def large(path: Path, alt: str) -> LargePicture:
    """A picture in its own size, up to 1024 px; those of the tiny base are enlarged pixel by pixel."""
    with Image.open(path) as opened:
        side = min(max(*opened.size, SMALL), LARGE)
    picture = LargePicture(value=thumbnail(path, side), alt=alt, side=side)
    picture.add_class("sdxl-nb-large")
    return picture


class Enlarged(VBox):
    """The picture that a grid shows large, and its words; nothing while it shows none."""

    def __init__(self, grid: "ValidationGrid"):
        super().__init__()
        self._grid = grid
        grid.observe(lambda change: self._show(*change["new"]), "enlarged")

    def _show(self, step: int | None = None, row: Row | None = None) -> None:
        if step is None or row is None:
            return replace(self, [])
        grid = self._grid
        words = f"{row.prompt}, seed {row.seed}, step {step}, scale {grid.scale:g}"
        picture = large(grid.stages.path(step, row, grid.scale), words)
        picture.observe(lambda change: grid.set_trait("enlarged", ()), "clicks")
        long = "line-height:1.4; max-height:5.6em; overflow:auto; overflow-wrap:anywhere"  # it scrolls
        replace(self, [HTML(f'<div style="{long}">{escape(words)}</div>'), picture])
