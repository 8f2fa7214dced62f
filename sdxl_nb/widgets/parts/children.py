"""What a box shows, exchanged for something else: ipywidgets never closes a child that is taken out.

In: a box and its new children. Out: the box with them; the old ones, which kernel, page and stored notebook would keep
for ever, are closed with their layout and style.
"""

from collections.abc import Sequence
from typing import Any

PARTS = ("layout", "style")


def replace(box: Any, children: Sequence[Any]) -> None:
    """Show these children; those of the old ones that are not among them are closed and cannot be shown again."""
    gone = [old for old in box.children if old not in children]
    box.children = tuple(children)
    for old in gone:
        close(old)


def close(widget: Any) -> None:
    """Close a widget and everything below it. A Layout or Style that others share must not be among that."""
    for child in getattr(widget, "children", ()):
        close(child)
    parts = [getattr(widget, name, None) for name in PARTS]
    widget.close()
    for part in filter(None, parts):
        part.close()
