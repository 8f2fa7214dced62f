"""What a DatasetBrowser changes: captions, pictures, the trigger word; and the audit that says what to change.

In: a browser. Out: the tools above its cards, and the methods behind them. Files change only in a local folder.
"""

import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, HBox, Text

from ...audit.findings import AuditReport
from ...config.train_config import TrainConfig
from ...data.dataset import CaptionedPictures, open_dataset
from ...data.decoding import Fault
from ...data.editing import caption_file, editable_folder, save_caption
from ...system.errors import DataError
from ..parts.uploads import DropZone
from ..parts.watching import Worker
from . import selection
from .adding import add_file
from .bulk import Bulk
from .cards import Card, coloured
from .measuring import telling
from .writing import Writing

LOOKED_AT = (  # what changes a card
    *("pretrained_model_name_or_path", "resolution", "center_crop", "aspect_ratio_buckets", "bucket_reso_steps"),
    *("bucket_no_upscale", "trigger_word", "caption_prefix", "caption_suffix", "masked_loss"),
)


class Mending(Writing):
    """Mixed into DatasetBrowser, which has all this, and shows `config`, `dataset` and `report`."""

    report: AuditReport | None
    page: int
    list_kinds: Callable[[], None]
    filter: Callable[[int], None]
    set_trait: Callable[[str, Any], None]
    _auditing: Worker
    _cards: HBox
    _shown: Sequence[int | Fault]

    editable = False
    _read_at = 0  # when the captions were read, in nanoseconds
    _became: dict[str, str]  # the name that each picture got here, by the one that it was brought with
    _overtaken: dict[str, str]  # what other programs made of captions since then, as far as it was said
    changed: Callable[[], object] = staticmethod(lambda: None)  # called when pictures, captions or `config` are others

    def tools(self) -> list[Any]:
        """The trigger word, the audit and the upload; without a configuration nothing can be changed."""
        if self.config is None:
            return []
        word = Text(
            value=self.config.trigger_word or "",
            description="Trigger word",
            style={"description_width": "initial"},
            continuous_update=False,
            tooltip="Training puts it before every caption that lacks it; no file changes, browser.config does",
        )
        self._word = word
        word.observe(self._notice.guard(lambda change: self._typed_trigger(change["new"])), "value")
        audit = Button(description="Audit", icon="search", tooltip="Look for faults, then filter by what was found")
        audit.on_click(lambda _: self._auditing.start(self._notice.guard(self.audit)))
        if not self.editable:
            return [word, audit, HTML(f"<i>{escape(self._why_not)}</i>")]
        return [word, audit, *self.writing_tools(), Bulk(self)]

    def places(self) -> list[Any]:
        """Where pictures are dropped, if there is a folder for them."""
        self._why_not = ""
        try:
            editable_folder(self.settings)
        except DataError as error:
            self._why_not = str(error)
            return []
        self.editable = True
        self._became = {}
        self.drop = DropZone(
            self.take, self._notice.guard(self.taken), label="Drop pictures, folders or a zip here, or"
        )
        return [self.drop]

    def welcome(self) -> str:
        """What is said where there is no picture yet."""
        return f"There is no picture yet in {self.dataset.source}: drop some above." if self.editable else "No picture."

    def take(self, path: Path, name: str) -> str:
        """Put what was uploaded into the folder; says what became of it. Raises DataError."""
        return add_file(self.settings, path, name, self._became)

    def taken(self) -> None:
        """Show what was added, at the end."""
        self.reopen()

    def saver(self) -> Callable[[str, str], object] | None:
        """What saves the caption of a picture, or None where it cannot be changed; its card too says a refusal."""

        def save(name: str, caption: str) -> None:
            try:
                self.save(name, caption)
            except DataError as error:
                for card in self._cards_of(name):
                    card.say(coloured(escape(str(error))))
                raise

        return self._notice.guard(save) if self.editable else None

    def _cards_of(self, name: str) -> list[Card]:
        """The card of this picture, if it is on the page."""
        with self._lock:
            return [card for card in self._cards.children if isinstance(card, Card) and card.name == name]

    def save(self, name: str, caption: str) -> None:
        """Store a corrected caption beside its picture, and say so on its card. Raises DataError."""
        self._refuse_overtaken(name, caption)
        path = save_caption(self.settings, name, caption)
        alone = "" if caption.strip() else f" It is empty: training gives {self.settings.trigger_word} alone."
        for card in self._cards_of(name):
            card.say(escape(f"Saved in {path.name}.{alone}"))
        self.reopen(stay=True)
        self._notice.say(f"The caption of {name} is in {path.name}.{alone}")

    def _is_newer(self, name: str) -> bool:
        """Whether the text of a picture was written after captions were read here, or by a clock ahead of ours."""
        file = caption_file(editable_folder(self.settings), name)
        return file.is_file() and file.stat().st_mtime_ns > self._read_at

    def _refuse_overtaken(self, name: str, caption: str) -> None:
        """Raise DataError, once, where another program changed a caption after it was read here."""
        if not self._is_newer(name):
            return
        known = self._overtaken.get(name) or _caption_in(self.dataset, name)
        now = _caption_in(open_dataset(self.settings, uncaptioned=True), name)
        if now not in (known, " ".join(caption.split())):
            self._overtaken[name] = now
            raise DataError(
                f"The caption of {name} was changed by another program meanwhile, to “{now}”: "
                "take over what you want of it, or save once more to replace it."
            )

    def _typed_trigger(self, word: str) -> None:
        if word.strip() != (self.settings.trigger_word or ""):
            self.set_trigger(word)

    def set_trigger(self, word: str) -> None:
        """Put a trigger word before every caption: no file changes, `config` does."""
        self.config = self.settings.replace(trigger_word=word.strip() or None)
        self.reopen()

    def follow(self, config: TrainConfig) -> None:
        """Judge the pictures by another configuration of the same: its base, shapes and trigger word."""
        former, self.config = self.settings, config
        if self._word.value != (config.trigger_word or ""):
            self._word.value = config.trigger_word or ""
        if any(getattr(former, name) != getattr(config, name) for name in LOOKED_AT):
            if former.pretrained_model_name_or_path != config.pretrained_model_name_or_path:
                self._tokenizers = None
            self.reopen(stay=True)

    def audit(self) -> AuditReport:
        """Look for faults, and offer their kinds as filters; returns the report."""
        from ...audit.inspection import audit_dataset

        self._progress.say("Looking at every picture ...")
        try:
            report = audit_dataset(self.settings, progress=telling(self._progress.say, "Looking at every picture"))
        finally:
            self._progress.say("")
        with self._lock:
            self.report = report
            self.list_kinds()
            self.filter(self.page)
        found = len({finding.kind for finding in report.findings if finding.files})
        self._notice.say(f"{found} kinds of findings: choose one under Show." if found else "Nothing was found.")
        return report

    def opened(self) -> CaptionedPictures:
        """The data set as it is now; its pictures may all lack captions, for here they can get some."""
        self._read_at, self._overtaken = time.time_ns(), {}
        return open_dataset(self.settings, uncaptioned=True)

    def reopen(self, *, stay: bool = False) -> None:
        """Read the data set again, as it is now; on the page, and with `stay` with the very pictures that are there."""
        names = [selection.words_of(self.dataset, item)[0] for item in self._shown] if stay else []
        dataset = self.opened()
        with self._lock:
            self.dataset, self._shapes = dataset, None
            self.list_kinds()
            if stay:
                self._shown = selection.again(dataset, names)
                self.turn()
            else:
                self.filter(self.page)
        self.measure()
        self.changed()


def _caption_in(dataset: CaptionedPictures, name: str) -> str:
    """The caption of a picture as it is written; nothing where it lacks, or the picture is gone."""
    found = selection.again(dataset, [name])
    return selection.words_of(dataset, found[0])[1] if len(found) else ""
