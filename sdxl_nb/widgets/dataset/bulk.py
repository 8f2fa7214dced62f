"""Many captions changed at once: a text in front or behind, a word replaced, a tag removed; pictures left out.

In: a browser. Out: a folded box below its tools, for the pictures that are ticked, or, where none is, for all that are
shown. Files change only in the folder; a picture that is left out stays where it is, on a list.
"""

import os
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, Button, Dropdown, HBox, Layout, Text, VBox

from ...data.editing import save_caption
from ...data.sources.leaving_out import leave_out
from ...system.errors import DataError
from ..parts.fold import Fold
from . import selection
from .cards import Card

if TYPE_CHECKING:
    from .mending import Mending

FRONT, BEHIND, REPLACE, REMOVE, OUT, BACK = (
    "put in front",
    "put behind",
    "replace",
    "remove the tag",
    "leave out",
    "bring back",
)


def changed(caption: str, what: str, text: str, by: str = "") -> str:
    """The caption, changed; a tag is what stands between commas."""
    if what == FRONT:
        return ", ".join(filter(None, (text, caption)))
    if what == BEHIND:
        return ", ".join(filter(None, (caption, text)))
    if what == REPLACE:
        return caption.replace(text, by)
    tags = [tag.strip() for tag in caption.split(",")]
    return ", ".join(tag for tag in tags if tag and tag != text.strip())


class Bulk(Fold):
    """The folded box; `apply` is what its button does."""

    def __init__(self, browser: "Mending"):
        self._browser = browser
        self.what = Dropdown(options=[FRONT, BEHIND, REPLACE, REMOVE, OUT, BACK], layout=Layout(width="150px"))
        self.what.tooltip = "What to do with the captions"
        self.text = Text(placeholder="text", tooltip="The text", layout=Layout(width="220px"))
        self.by = Text(placeholder="by", tooltip="By what it is replaced", layout=Layout(width="220px"))
        apply = Button(description="Apply", tooltip="To the ticked pictures, or to all that are shown")
        apply.on_click(browser._notice.guard(lambda button: self.apply()))
        self.what.observe(lambda change: self._look(), "value")
        self._fields = HBox(layout=Layout(flex_flow="row wrap"))
        self._apply = apply
        super().__init__(
            "Change several at once",
            [
                VBox(
                    [self._fields, HTML("<small>To the ticked pictures; where none is, to all that are shown.</small>")]
                )
            ],
        )
        self._head.layout.height, self._head.layout.margin = "28px", "2px"  # as the buttons beside it
        self._look()

    def _look(self) -> None:
        texts = (
            []
            if self.what.value in (OUT, BACK)
            else [self.text, self.by]
            if self.what.value == REPLACE
            else [self.text]
        )
        self._fields.children = [self.what, *texts, self._apply]

    def names(self) -> list[str]:
        """The ticked pictures of the page, or all that are shown."""
        browser: Any = self._browser
        ticked = [card.name for card in browser._cards.children if isinstance(card, Card) and card.chosen]
        return ticked or [selection.words_of(browser.dataset, item)[0] for item in browser._shown]

    def apply(self) -> int:
        """Change the captions; returns how many were. Raises DataError."""
        browser, what, names = self._browser, self.what.value, self.names()
        if what in (OUT, BACK):
            settings = browser.settings
            place = os.path.expanduser(settings.train_data_dir or settings.dataset_name or "")
            leave_out(place, names, out=what == OUT)
            done = len(names)
        else:
            if not self.text.value:
                raise DataError("There is no text yet: say which.")
            done = self._rewrite(what, names)
        for card in browser._cards.children:
            if isinstance(card, Card):
                card.chosen = False
        browser.reopen()
        verb = {OUT: "left out; their files stay", BACK: "brought back"}.get(what, "changed")
        browser._notice.say(f"{done} of {len(names)} pictures {verb}.")
        return done

    def _rewrite(self, what: str, names: list[str]) -> int:
        browser, done = self._browser, 0
        now = browser.opened()  # other programs may have changed some meanwhile
        for item in selection.again(now, names):
            name, caption = selection.words_of(now, item)
            new = changed(caption, what, self.text.value, self.by.value)
            if new != caption:
                save_caption(browser.settings, name, new)
                done += 1
        return done
