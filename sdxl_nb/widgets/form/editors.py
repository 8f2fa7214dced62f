"""One setting in the form: its input, and beside it its sentence, or what is wrong with the value.

In: a field of TrainConfig. Out: an `Editor` for it: a switch, a list of choices, or text. Numbers are typed as text and
judged by TrainConfig itself: number inputs would clamp a wrong value in silence, and show 1e-4 as 0.00. Its widgets are
made when they are asked for: those of all settings are 1,400 models, which a page would wait for.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from functools import cache
from html import escape
from typing import Any, NamedTuple

from ipywidgets import HTML, Checkbox, Combobox, Dropdown, HBox, Layout, Text, Textarea

from ...config.checks import EMBEDDED, MODULE_PRESETS, OPTIMIZERS
from ...config.train_config import TrainConfig
from ..parts.hearing import hear_at_once

NOT_SET = "not set"  # how the form says null
NAME, INPUT, HINT = "260px", "540px", "1 1 240px"  # widths: of the names, of names with inputs, of what stands beside
PATTERN = re.compile(r"[*+?|^$()\[\]\\]")
SUGGESTED = {**EMBEDDED, "target_modules": MODULE_PRESETS, "optimizer": OPTIMIZERS}
LINES = {
    "validation_prompt": "one prompt a line",
    "sample_prompts": "a file, or one prompt a line with --w 832 --h 1216",
    "base_lora": "one FILE or FILE:SCALE a line",
    "prior_prompts": "one prompt a line",
}  # may hold blanks


class Parts(NamedTuple):
    """The widgets of a row."""

    input: Any
    hint: HTML
    row: HBox


class Editor:
    """The row of one field; `read()` is the value typed, and `changed(name)` is called when it is another one."""

    def __init__(self, name: str, changed: Callable[[str], object]):
        self.name, self._changed, self._hushed = name, changed, False
        self.types = TrainConfig.json_types()[name]
        self.sentence = re.sub(r"\bnull\b", NOT_SET, TrainConfig.model_fields[name].description or "")
        self._value: Any = None
        self._edited, self._shown = False, True
        self._problem: str | None = None
        self._parts: Parts | None = None
        self._lock = threading.RLock()  # marked by a worker while a person unfolds it

    @property
    def input(self) -> Any:
        return self._made().input

    @property
    def hint(self) -> HTML:
        return self._made().hint

    @property
    def row(self) -> HBox:
        return self._made().row

    @property
    def shown(self) -> bool:
        """Whether the row is seen where it stands."""
        return self._shown

    @shown.setter
    def shown(self, shown: bool) -> None:
        with self._lock:
            self._shown = shown
            if self._parts is not None:
                self._parts.row.layout.display = None if shown else "none"

    def holds(self, words: Iterable[str]) -> bool:
        """Whether name and sentence hold each of these words, which are in small letters."""
        text = f"{self.name} {self.name.replace('_', ' ')} {self.sentence}".lower()
        return all(word in text for word in words)

    def _made(self) -> Parts:
        """The widgets, made now where they are not there yet, as the field stands."""
        with self._lock:
            if self._parts is None:
                box, hint = self._input(), HTML(layout=Layout(flex=HINT))
                hear_at_once(box)  # as Start is: what is typed before it is pressed comes first
                row = HBox([box, hint], layout=Layout(flex_flow="row wrap", grid_gap="0 12px"))
                row.add_class("sdxl-nb-row")
                self._parts = Parts(box, hint, row)
                self.show(self._value)
                self.mark(edited=self._edited, problem=self._problem)
                self.shown = self._shown
                box.observe(self._on_value, "value")
            return self._parts

    def _input(self) -> Any:
        look = {
            "description": self.name,
            "tooltip": self.sentence,
            "style": {"description_width": NAME},
            "layout": Layout(width=INPUT, max_width="100%", min_width="0"),  # a text area would not shrink below 100%
        }
        null = [(NOT_SET, "")] if "null" in self.types else []
        if "boolean" in self.types and null:
            return Dropdown(options=[*null, ("yes", "true"), ("no", "false")], **look)
        if "boolean" in self.types:
            return Checkbox(description=self.name, tooltip=self.sentence, indent=False, layout=look["layout"])
        if choices := _choices().get(self.name):
            return Dropdown(options=[*null, *((choice, choice) for choice in choices)], **look)
        look["placeholder"] = NOT_SET if null else ""
        if self.name in LINES:
            return Textarea(rows=3, **look | {"placeholder": f"{NOT_SET}: {LINES[self.name]}"})
        if self.name in SUGGESTED:
            return Combobox(options=SUGGESTED[self.name], ensure_option=False, **look)
        return Text(**look)

    def read(self) -> Any:
        """The value as it is typed; text where the field is a number, None where it may be null and is empty."""
        value = self.input.value
        if isinstance(value, bool):
            return value
        if self.name in LINES:
            return [line.strip() for line in value.splitlines() if line.strip()] or None
        if not value.strip() and "null" in self.types:
            return None
        if "array" in self.types and not PATTERN.search(value):
            return value.split() or value
        return value.strip()

    def show(self, value: Any) -> None:
        """Show a value without reporting it as a change; what is typed stays as it is typed if it means the same."""
        with self._lock:
            self._value = value
            if self._parts is None or same(self.read(), value):
                return
            self._hushed = True
            try:
                separator = "\n" if isinstance(self.input, Textarea) else " "
                self.input.value = value if isinstance(self.input, Checkbox) else written(value, separator)
            finally:
                self._hushed = False

    def _on_value(self, change: Any) -> None:
        if not self._hushed:
            self._changed(self.name)

    def mark(self, *, edited: bool, problem: str | None) -> None:
        """Show whether the value was changed, and its problem instead of the sentence."""
        with self._lock:
            self._edited, self._problem = edited, problem
            if self._parts is None:
                return
        text = escape(problem or self.sentence)
        kind, role = ("sdxl-nb-hint sdxl-nb-error", "alert") if problem else ("sdxl-nb-hint", "note")
        self.hint.value = f'<div class="{kind}" role="{role}">{"⚠ " if problem else ""}{text}</div>'
        for name, on in (("sdxl-nb-changed", edited), ("sdxl-nb-wrong", bool(problem))):
            (self.row.add_class if on else self.row.remove_class)(name)


def written(value: Any, separator: str = " ") -> str:
    """A value as one types it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return separator.join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same when typed."""
    return written(one) == written(other)


@cache
def _choices() -> dict[str, list[str]]:
    """The fields with a list of choices, and their choices."""
    properties = TrainConfig.model_json_schema()["properties"].items()
    parts = {name: [part for part in schema.get("anyOf", [schema]) if "enum" in part] for name, schema in properties}
    return {name: found[0]["enum"] for name, found in parts.items() if found}
