"""The few settings that a person with pictures asks for, in plain words; all the others are one fold away.

In: a form. Out: a box whose fields and the form's are the same values, shown twice: what is typed in one is in the
other.
"""

from html import escape
from typing import Any

from ipywidgets import HTML, Dropdown, HBox, Layout, Text, Textarea, VBox

from ...config import presets
from ..form.form import GIVEN, ConfigForm
from ..parts.fold import Fold
from ..parts.hearing import hear_at_once

WORDS = {"trigger_word": "Trigger word", "validation_prompt": "Draw while it learns", "max_train_steps": "Steps"}
HINTS = {
    "trigger_word": "A rare word, such as zarko: training puts it before every caption, and it calls the LoRA later.",
    "validation_prompt": "One prompt a line: with the trigger word, and one of something that is in no picture.",
    "max_train_steps": "How long. More is not better: beyond some point it knows your pictures by heart.",
}


class Few(VBox):
    """A preset, the word, the prompts and the steps."""

    def __init__(self, form: ConfigForm, reasons: list[str]):
        self._form, self._hushed = form, False
        look: dict[str, Any] = {"style": {"description_width": "150px"}, "layout": Layout(width="430px")}
        options = [("as it was left", GIVEN), *((name, name) for name in presets.names())]
        self.preset = Dropdown(options=options, description="Train on", **look)
        self.fields: dict[str, Any] = {
            "trigger_word": Text(placeholder="none", continuous_update=False),
            "validation_prompt": Textarea(rows=3, placeholder="nothing is drawn", continuous_update=False),
            "max_train_steps": Text(continuous_update=False),
        }
        for name, field in self.fields.items():
            field.description, field.style.description_width, field.layout.width = WORDS[name], "150px", "430px"
            field.tooltip = HINTS[name]
            field.observe(lambda change, name=name: self._typed(name), "value")
        self._about = HTML()
        self.preset.observe(lambda change: self._hushed or form.set_trait("preset", change["new"]), "value")
        hear_at_once(self.preset, *self.fields.values())  # as Start is: what is typed before it is pressed comes first
        self._rows = {name: _row(field, HTML(_hint(HINTS[name]))) for name, field in self.fields.items()}
        rows = [_row(self.preset, self._about), *self._rows.values()]
        self._why = HTML()
        self.give(reasons)
        super().__init__([self._why, *rows, Fold("All settings", [form])])
        form.observe(lambda change: self.look(), ["value", "preset", "edits", "problems"])
        self.look()

    def give(self, reasons: list[str]) -> None:
        """Say why these settings are proposed."""
        self._why.value = "".join(_hint(escape(reason)) for reason in reasons)

    def look(self) -> None:
        """Show what the form has."""
        self._hushed = True
        try:
            self.preset.value = self._form.preset
            known = self._form.preset != GIVEN
            self._about.value = _hint(presets.describe(self._form.preset) if known else "The settings of this project.")
            for name, field in self.fields.items():
                field.value = self._form._editors[name].input.value
                self._mark(name, self._form.problems.get(name))
        finally:
            self._hushed = False

    def _mark(self, name: str, problem: str | None) -> None:
        """Say beside the field what is wrong with it, or else what it is for."""
        row = self._rows[name]
        said = HINTS[name] if problem is None else problem.replace(name, WORDS[name])
        row.children[1].value = _hint(said, wrong=problem is not None)
        (row.add_class if problem else row.remove_class)("sdxl-nb-wrong")

    def _typed(self, name: str) -> None:
        if not self._hushed:
            self._form._editors[name].input.value = self.fields[name].value


def _row(field: Any, hint: HTML) -> HBox:
    hint.layout.flex = "1 1 240px"
    row = HBox([field, hint], layout=Layout(flex_flow="row wrap", grid_gap="0 12px"))
    row.add_class("sdxl-nb-row")
    return row


def _hint(text: str, wrong: bool = False) -> str:
    if wrong:
        return f'<div class="sdxl-nb-hint sdxl-nb-error" role="alert">⚠ {escape(text)}</div>'
    return f'<div class="sdxl-nb-hint">{text}</div>'
