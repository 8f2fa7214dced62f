"""A heading that unfolds what is below it, for the keyboard as well as for the mouse.

In: a title and widgets, or a function that makes them. Out: a `Fold`: a button, which Tab reaches and Enter or Space
presses, and below it the widgets while it is unfolded; until then the browser builds none of them, and the function is
not called. ipywidgets' Accordion hears the mouse alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import traitlets
from ipywidgets import Button, Layout, VBox

LINE = "1px solid var(--jp-border-color1, #bdbdbd)"
COLOURS = {False: "var(--jp-ui-font-color1, inherit)", True: "var(--jp-error-color1, #d32f2f)"}


class Fold(VBox):
    """Widgets below a button that carries their title and shows or hides them."""

    title = traitlets.Unicode(help="What the heading says.")
    unfolded = traitlets.Bool(False, help="Whether the widgets are shown.")
    wrong = traitlets.Bool(False, help="Whether something inside is to be mended; the heading is red then.")

    def __init__(self, title: str, children: Sequence[Any] | Callable[[], Sequence[Any]]):
        look = Layout(width="auto", height="34px", margin="4px 2px 0", padding="0 14px", border=LINE)
        look.display, look.align_items, look.justify_content = "flex", "center", "flex-start"  # the title on the left
        self._head = Button(layout=look, style={"font_weight": "600"})
        made = () if callable(children) else children
        self._make = children if callable(children) else None
        self._body = VBox(made, layout=Layout(margin="0 2px", padding="6px 10px 8px", border=LINE))
        super().__init__(layout=Layout(flex="0 0 auto"))
        self.add_class("sdxl-nb-fold")
        self._head.on_click(lambda button: self.set_trait("unfolded", not self.unfolded))
        self.observe(self._draw, ["title", "unfolded", "wrong"])
        self.title = title

    def mark(self, title: str, wrong: bool) -> None:
        """Show another title, and whether something inside is wrong; it unfolds when that is new."""
        self.title = title
        if wrong and not self.wrong:
            self.unfolded = True
        self.wrong = wrong

    def _draw(self, change: Any) -> None:
        if self.unfolded and self._make:
            self._body.children, self._make = self._make(), None
        self._head.description = f"{'▾' if self.unfolded else '▸'} {self.title}"
        self._head.style.text_color = COLOURS[self.wrong]
        (self.add_class if self.unfolded else self.remove_class)("sdxl-nb-unfolded")
        self.children = [self._head, self._body] if self.unfolded else [self._head]
