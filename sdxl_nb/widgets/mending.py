"""What a DatasetBrowser changes: captions, pictures, the trigger word; and the audit that says what to change.

In: a browser. Out: the tools above its cards, and the methods behind them. Files change only in a local folder.
"""

from html import escape
from typing import Any

from ipywidgets import HTML, Button, FileUpload, Text

from ..data import open_dataset
from ..editing import add_picture, editable_folder, save_caption
from ..errors import DataError


class Mending:
    """Mixed into DatasetBrowser, which has `config`, `dataset`, `report` and shows them."""

    editable = False

    def tools(self) -> list[Any]:
        """The trigger word, the audit and the upload; without a configuration nothing can be changed."""
        if self.config is None:
            return []
        word = Text(
            value=self.config.trigger_word or "",
            description="Trigger word",
            style={"description_width": "initial"},
            continuous_update=False,
            tooltip="Put before every caption that lacks it; browser.config has it",
        )
        word.observe(self._notice.guard(lambda change: self.set_trigger(change["new"])), "value")
        audit = Button(description="Audit", icon="search", tooltip="Look for faults, then filter by what was found")
        audit.on_click(lambda _: self._work.start(self._notice.guard(self.audit)))
        try:
            editable_folder(self.config)
        except DataError as error:
            return [word, audit, HTML(f"<i>{escape(str(error))}</i>")]
        self.editable = True
        upload = FileUpload(accept="image/*", multiple=True, description="Add pictures")
        upload.observe(self._notice.guard(lambda change: self.add(upload)), "value")
        return [word, audit, upload]

    def saver(self, name: str) -> Any:
        """What saves the caption of a picture, or None where it cannot be changed."""
        return self._notice.guard(lambda caption: self.save(name, caption)) if self.editable else None

    def save(self, name: str, caption: str) -> None:
        """Store a corrected caption beside its picture and show the page again. Raises DataError."""
        path = save_caption(self.config, name, caption)
        self.reopen()
        self._notice.say(f"The caption of {name} is in {path.name}.")

    def set_trigger(self, word: str) -> None:
        """Put a trigger word before every caption: no file changes, `config` does."""
        self.config = self.config.replace(trigger_word=word.strip() or None)
        self.reopen()

    def audit(self) -> Any:
        """Look for faults, and offer their kinds as filters; returns the report."""
        from ..audit import audit_dataset

        self._notice.say("Looking at every picture ...")
        self.report = audit_dataset(self.config)
        self.list_kinds()
        found = len([finding for finding in self.report.findings if finding.files])
        self._notice.say(f"{found} kinds of findings: choose one under Show." if found else "Nothing was found.")
        return self.report

    def add(self, upload: FileUpload) -> None:
        """Put what was uploaded into the folder."""
        names = [add_picture(self.config, file["name"], bytes(file["content"])) for file in upload.value]
        if names:
            upload.value = ()
            self.reopen()
            self._notice.say(f"Added {', '.join(names)}: give each a caption.")

    def reopen(self) -> None:
        """Read the data set again, as it is now, and stay on the page."""
        self.dataset, page = open_dataset(self.config), self.page
        self.list_kinds()
        self.filter()
        self.page = min(page, self.pages - 1)
        self.measure()
