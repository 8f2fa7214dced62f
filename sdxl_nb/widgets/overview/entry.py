"""One run of the list: its newest picture, its state in a line, what sets it apart, and what can be done with it.

In: a Glance and the settings that differ, at every look. Out: a row; its picture and its size are filled in later.
"""

import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, Checkbox, HBox, Layout, VBox

from ...runs.glance import FOREIGN, UNREADABLE, Glance
from ...runs.overview import size
from ...system.errors import in_python
from ..monitor.readings import SIGNS
from ..monitor.sights import image
from ..parts.pictures import thumbnail

SIDE = 84  # CSS pixels of the picture
NONE = f"<div class='sdxl-nb-none' style='width:{SIDE}px; height:{SIDE}px; line-height:{SIDE}px'>no picture</div>"
STATES = SIGNS | {FOREIGN: "○ No run of ours", UNREADABLE: "✗ Unreadable"}
LONGEST = 60  # letters of a setting's value


class Entry(HBox):
    """`show` a glance, then `fill` it; `compared(on)` and `opened()` are called for what is pressed."""

    def __init__(self, name: str, compared: Callable[[bool], object], opened: Callable[[], object]):
        self._picture, self._words = HTML(NONE), HTML(layout=Layout(flex="1 1 auto", min_width="0"))
        self.compare = Checkbox(description="compare", indent=False, layout=Layout(width="104px"))
        self.compare.tooltip = f"Lay {name} beside another run"
        self.watch = Button(description="Open", icon="eye", tooltip=f"Watch {name}", layout=Layout(width="104px"))
        self._picture.layout.flex = "0 0 auto"
        self.compare.observe(lambda change: compared(change["new"]), "value")
        self.watch.on_click(lambda button: opened())
        tools = VBox([self.compare, self.watch], layout=Layout(flex="0 0 auto"))
        super().__init__([self._picture, self._words, tools])
        self.layout.align_items, self.layout.grid_gap = "flex-start", "12px"
        self.add_class("sdxl-nb-entry")
        self.glance: Glance | None = None
        self._bytes: int | None = None
        self._filled: object = None
        self._differs: Mapping[str, Any] = {}

    def show(self, glance: Glance, differs: Mapping[str, Any]) -> None:
        """What a look has found."""
        if (glance, differs) == (self.glance, self._differs):
            return
        self.glance, self._differs = glance, differs
        there = glance.status not in (FOREIGN, UNREADABLE)
        self.compare.disabled, self.watch.disabled = not there, not there
        self._draw()

    def fill(self) -> None:
        """Its picture and its size, which take a moment; a picture that cannot be read is said."""
        seen = self.glance
        if seen is None or seen == self._filled:
            return
        self._bytes = size(seen.folder)
        if seen.picture:
            self._picture.value = _small(seen.picture, f"{seen.name}, step {seen.drawn}")
        self._filled = seen
        self._draw()

    def _draw(self) -> None:
        if seen := self.glance:
            self._words.value = words(seen, self._differs, self._bytes)


def _small(path: Path, said: str) -> str:
    return image(
        "webp", thumbnail(path, 2 * SIDE), said, f"width:{SIDE}px; height:{SIDE}px; object-fit:contain; display:block"
    )


def words(seen: Glance, differs: Mapping[str, Any], bytes_: int | None) -> str:
    """All that the list says of a run, as HTML; what a run or a person wrote is escaped."""
    parts = [f"<b>{escape(STATES.get(seen.status, seen.status))}</b>"]
    if seen.steps:
        parts.append(f"step {seen.step:,} of {seen.steps:,}")
    if seen.heldout is not None:
        parts.append(f"held-out loss {seen.heldout:.4f}{_lowest(seen)}")
    if bytes_ is not None:
        parts.append(_amount(bytes_))
    if seen.begun:
        parts.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.begun)))
    kind = "error" if seen.status in ("failed", "interrupted", UNREADABLE) else "hint"
    why = f'<div class="sdxl-nb-{kind}">{escape(in_python(seen.said))}</div>' if seen.said else ""
    apart = "".join(f"<span>{escape(name)} <b>{escape(_short(value))}</b></span>" for name, value in differs.items())
    return (
        f'<div class="sdxl-nb-run"><div class="sdxl-nb-name">{escape(seen.name)}</div><div>{" · ".join(parts)}</div>'
        f'{why}<div class="sdxl-nb-apart">{apart}</div></div>'
    )


def _amount(bytes_: int) -> str:
    units = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B"))
    size, unit = next((size, unit) for size, unit in units if bytes_ >= size or size == 1)
    return f"{bytes_ / size:.3g} {unit}"


def _lowest(seen: Glance) -> str:
    if seen.lowest is None or seen.lowest[0] == seen.heldout:
        return ""
    return f" (lowest {seen.lowest[0]:.4f} at step {seen.lowest[1]:,})"


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
