"""One picture large: arrow keys go on to its neighbours, Esc or a press puts it away.

In: a picture and its words, and what to do when somebody moves on. Out: a box above the small pictures; the picture
comes into view and takes the focus from what was pressed, and gives it back.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path

from ipywidgets import HTML, VBox
from PIL import Image

from .children import replace
from .pictures import PictureButton, picture_of, thumbnail

SMALL, LARGE = 512, 1024  # pixels of a picture shown large, at least and at most
WORDS = "line-height:1.4; max-height:5.6em; overflow:auto; overflow-wrap:anywhere"  # long ones scroll


class LargePicture(PictureButton):
    """A PictureButton that the focus goes to, from what was pressed and back to it; it hears arrow keys and Esc."""

    _esm = PictureButton._esm.replace(
        "export default { initialize, render };",
        """
    const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    export default { initialize, render(context) {
      const { model, el } = context, pressed = document.activeElement, clean = render(context);
      const ours = pressed && pressed.closest(".sdxl-nb"), button = el.querySelector("button");
      button.setAttribute("data-lm-suppress-shortcuts", "true");  // JupyterLab takes arrow keys otherwise
      button.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight ArrowUp ArrowDown Escape");
      button.addEventListener("keydown", (event) => {
        if (event.key === "Escape") button.click();
        else if (MOVES[event.key]) model.send({ move: MOVES[event.key] });
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      if (ours) requestAnimationFrame(() => button.focus());  // else the page is only being loaded
      return () => {
        const lost = [button, document.body, null].includes(document.activeElement);  // nobody else has it
        clean();
        if (ours && lost && pressed.isConnected) pressed.focus();
      };
    } };
    """,
    )
    _css = PictureButton._css + ".sdxl-nb-large img { max-height: 80vh !important; }"  # whole on any screen


class Viewer(VBox):
    """Shows one picture at a time; `moved(right, down)` and `closed()` are called for what is pressed."""

    def __init__(self, moved: Callable[[int, int], object], closed: Callable[[], object]):
        super().__init__()
        self._moved, self._closed = moved, closed

    def show(self, picture: Path | Image.Image, words: str, hint: str = "") -> None:
        """Show a picture in its own size, up to 1024 px; a tiny one is enlarged pixel by pixel."""
        data, side = large(picture)
        told = f"<br><small>{escape(hint)}</small>" if hint else ""
        text = f'<div style="{WORDS}" role="status">{escape(words)}{told}</div>'
        if self.children:
            shown = self.children[1]
            shown.value, shown.alt, shown.side = data, words, side
            self.children[0].value = text
            return
        shown = LargePicture(value=data, alt=words, side=side, _dom_classes=["sdxl-nb-large"])
        shown.observe(lambda change: self._closed(), "clicks")
        shown.on_msg(lambda widget, message, buffers: self._moved(*message["move"]))
        replace(self, [HTML(text), shown])

    def hide(self) -> None:
        """Put the picture away."""
        replace(self, [])


def large(picture: Path | Image.Image) -> tuple[bytes, int]:
    """A picture as WEBP, and its width in CSS pixels."""
    if isinstance(picture, Path):
        picture = picture_of(picture)
    side = min(max(*picture.size, SMALL), LARGE)
    return thumbnail(picture, side), side
