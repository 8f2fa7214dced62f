"""Captions that a model writes: for every picture shown that lacks one, with a bar of words and a way to end it.

In: a browser that was given a captioner, a function of a picture or a model's name. Out: captions in the folder, one
after the other, each kept as soon as it is there; no caption that somebody wrote is touched.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from ipywidgets import Button
from PIL.Image import Image

from ...config.train_config import TrainConfig
from ...data.decoding import Fault
from ...data.editing import save_caption
from ...system.errors import DataError
from ..parts.hearing import hear_at_once
from ..parts.watching import Worker
from . import selection
from .captioner import Captioner, words_of
from .measuring import Measuring, telling

ABOUT = "For every picture shown that lacks one; read them afterwards, a model errs"


class Writing(Measuring):
    """Mixed into DatasetBrowser, which has all this, and shows `config` and `dataset`."""

    captioner: Callable[[Image], str] | None = None  # what writes a caption for a picture
    reopen: Callable[..., None]
    _is_newer: Callable[[str], bool]
    _auditing: Worker
    _shown: Sequence[int | Fault]
    _cancelled: threading.Event
    _cancels: Button | None = None

    @property
    def settings(self) -> TrainConfig:
        """The configuration. Raises DataError without one: then there is nothing to change."""
        if self.config is None:
            raise DataError("This browser shows pictures alone: give their TrainConfig too, to change something.")
        return self.config

    def writing_tools(self) -> list[Any]:
        """The button of a captioner, where there is one, and the one that ends its writing."""
        if self.captioner is None:
            return []
        button = Button(description="Write captions", icon="pencil", tooltip=ABOUT)
        button.on_click(lambda _: self._auditing.start(self._notice.guard(self.caption)))
        self._cancels = Button(description="Cancel", icon="stop", tooltip="Keep the captions that are written, and end")
        self._cancels.layout.display = "none"
        self._cancels.on_click(self._notice.guard(lambda _: self.cancel()))
        hear_at_once(self._cancels)
        return [button, self._cancels]

    def cancel(self) -> None:
        """End the writing after the picture that is described now; what is written stays."""
        self._cancelled.set()
        self._progress.say("Ending after this picture ...")

    def caption(self) -> int:
        """Have the captioner write the captions that lack of what is shown; returns how many. Raises DataError."""
        if self.captioner is None:
            raise DataError("There is no captioner: give DatasetBrowser one, a function of a picture.")
        self._cancelled.clear()
        self._offer_to_cancel(True)
        done = wordless = 0
        try:
            self.reopen(stay=True)  # others may have written some meanwhile
            lacking = [item for item in self._shown if not isinstance(item, int) and selection.is_uncaptioned(item)]
            done, wordless = self._write(self.captioner, lacking)
        finally:
            self._progress.say("")
            self._offer_to_cancel(False)
            if isinstance(self.captioner, Captioner):
                self.captioner.close()  # training wants the memory
            self.reopen(stay=True)
        ended = " before it was cancelled" if self._cancelled.is_set() else ""
        silent = f" It had no words for {wordless:,}, which still lack one." if wordless else ""
        self._notice.say(f"{done:,} captions written{ended}: read them, a model errs.{silent}")
        return done

    def _write(self, captioner: Callable[[Image], str], lacking: Sequence[Fault]) -> tuple[int, int]:
        """How many captions were written, and of how many pictures the captioner had nothing to say."""
        tell, done, wordless = telling(self._progress.say, "Writing captions"), 0, 0
        if lacking and isinstance(captioner, Captioner) and not captioner.is_loaded:
            self._progress.say(f"Loading {captioner.name}; the first time it is fetched ...")
            captioner.load()
        for number, fault in enumerate(lacking):
            if self._cancelled.is_set():
                break
            found = self.dataset.left_out(fault.name)
            if found is not None and not self._is_newer(fault.name):
                said = words_of(captioner(found.picture), fault.name)
                if said:
                    save_caption(self.settings, fault.name, said)
                done, wordless = done + bool(said), wordless + (not said)
            tell(number + 1, len(lacking))
        return done, wordless

    def _offer_to_cancel(self, writing: bool) -> None:
        if self._cancels is not None:
            self._cancels.layout.display = None if writing else "none"
