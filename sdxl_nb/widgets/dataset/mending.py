"""What a DatasetBrowser changes: captions, pictures, the trigger word; and the audit that says what to change.

In: a browser. Out: the tools above its cards, and the methods behind them. Files change only in a local folder.
"""

from collections.abc import Callable
from html import escape
from typing import Any

from ipywidgets import HTML, Button, FileUpload, HBox, Text

from ...audit.findings import AuditReport
from ...config.train_config import TrainConfig
from ...data.dataset import CaptionedPictures, open_dataset
from ...data.editing import add_picture, editable_folder, save_caption
from ...system.errors import DataError
from ..parts.watching import Worker
from .cards import answer, coloured
from .measuring import Measuring, telling

UPLOADED = (  # Jupyter's server drops a connection that sends a larger message, without a word
    "10 MB at once at most; put more into {folder} with JupyterLab's file browser, and run this cell again."
)


class Mending(Measuring):
    """Mixed into DatasetBrowser, which has all this, and shows `config`, `dataset` and `report`."""

    report: AuditReport | None
    page: int
    list_kinds: Callable[[], None]
    filter: Callable[[int], None]
    _auditing: Worker
    _cards: HBox

    editable = False

    @property
    def settings(self) -> TrainConfig:
        """The configuration. Raises DataError without one: then there is nothing to change."""
        if self.config is None:
            raise DataError("This browser shows pictures alone: give their TrainConfig too, to change something.")
        return self.config

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
        word.observe(self._notice.guard(lambda change: self.set_trigger(change["new"])), "value")
        audit = Button(description="Audit", icon="search", tooltip="Look for faults, then filter by what was found")
        audit.on_click(lambda _: self._auditing.start(self._notice.guard(self.audit)))
        try:
            folder = editable_folder(self.config)
        except DataError as error:
            return [word, audit, HTML(f"<i>{escape(str(error))}</i>")]
        self.editable = True
        upload = FileUpload(accept="image/*", multiple=True, description="Add pictures", tooltip="Into the folder")
        upload.observe(self._notice.guard(lambda change: self.add(upload)), "value")
        return [word, audit, upload, HTML(f"<small>{escape(UPLOADED.format(folder=folder))}</small>")]

    def saver(self, name: str) -> Callable[[str], object] | None:
        """What saves the caption of a picture, or None where it cannot be changed; its card too says a refusal."""

        def save(caption: str) -> None:
            try:
                self.save(name, caption)
            except DataError as error:
                for card in self._cards_of(name):
                    answer(card, coloured(escape(str(error))))
                raise

        return self._notice.guard(save) if self.editable else None

    def _cards_of(self, name: str) -> list[Any]:
        """The card of this picture, if it is on the page."""
        with self._lock:
            return [card for card in self._cards.children if getattr(card, "name", None) == name]

    def save(self, name: str, caption: str) -> None:
        """Store a corrected caption beside its picture and show the page again. Raises DataError."""
        path = save_caption(self.settings, name, caption)
        alone = "" if caption.strip() else f" It is empty: training gives {self.settings.trigger_word} alone."
        for card in self._cards_of(name):
            if card.editor.value == caption:
                card.caption = caption  # so that it does not count as typed and not saved
            answer(card, escape(f"Saved in {path.name}.{alone}"))
        self.reopen()
        self._notice.say(f"The caption of {name} is in {path.name}.{alone}")

    def set_trigger(self, word: str) -> None:
        """Put a trigger word before every caption: no file changes, `config` does."""
        self.config = self.settings.replace(trigger_word=word.strip() or None)
        self.reopen()

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

    def add(self, upload: FileUpload) -> None:
        """Put what was uploaded into the folder, each file by itself, and say of each what became of it."""
        if not upload.value:
            return
        added, refused = [], []
        for file in upload.value:
            try:
                added.append(add_picture(self.settings, file["name"], bytes(file["content"])))
            except DataError as error:
                refused.append(str(error))
        upload.value = ()
        if added:
            self.reopen()
        said = [f"Added {', '.join(added)}: give each a caption."] if added else []
        if refused:
            self._notice.fail(DataError(" ".join([*said, *refused])))
        else:
            self._notice.say(said[0])

    def opened(self) -> CaptionedPictures:
        """The data set as it is now; its pictures may all lack captions, for here they can get some."""
        return open_dataset(self.settings, uncaptioned=True)

    def reopen(self) -> None:
        """Read the data set again, as it is now, and stay on the page."""
        dataset = self.opened()
        with self._lock:
            self.dataset, self._shapes = dataset, None
            self.list_kinds()
            self.filter(self.page)
        self.measure()
