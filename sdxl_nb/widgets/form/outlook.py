"""What will happen if a configuration is launched, in a few lines below the form, and its settings as a table.

In: a TrainConfig, valid or not. Out: a widget that says what is wrong, or steps, epochs, pictures and trainable
parameters, with a button for what `estimate` expects of memory, time and price. Looking at pictures and models takes a
moment, so it is done aside.
"""

import os
import re
import threading
from collections.abc import Callable
from html import escape
from typing import Any

from IPython.display import HTML as Table
from ipywidgets import HTML, Button, VBox

from ...config.train_config import TrainConfig
from ...preflight.plan import expectations, plan, remarks
from ...system.errors import DataError, SdxlNbError
from ...training.epochs import Counts, count_pictures, steps_per_epoch
from ..parts.watching import Notice, Worker
from .paces import Paces
from .timesteps import histogram

Key = tuple[object, ...]
DATA = (  # the settings that the counts of pictures depend on
    *("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "caption_column", "max_train_samples"),
    *("caption_choice", "caption_source", "caption_lines", "caption_prefix", "caption_suffix", "clean_tags"),
    *("trigger_word", "folder_repeats", "validation_split"),
)
FLAG = re.compile(rf"--(?=(?:preset|{'|'.join(TrainConfig.model_fields)})\b)")
NOT_HERE, NOT_THESE = "Not on this machine", "These pictures cannot be trained on"


class Outlook(VBox):
    """One framed block of text; `show` says what is known at once, and what must be looked up when it is.

    `estimated(estimate)` is called with what `estimate` said of the settings shown, and with None once they change;
    `paced(seconds, source)` with what is known of their time without an estimate (paces.py).
    `looked()` is called when something was looked up; then `fault` says what is wrong with the pictures. Who shows that
    holds `lock`, for what is typed and what was looked up come from two threads.
    """

    def __init__(
        self,
        looked: Callable[[], object],
        estimated: Callable[[Any], object],
        paced: Callable[[float, str], object],
    ) -> None:
        self._work, self._looked, self.lock = Worker(), looked, threading.RLock()
        self._estimated, self._paced, self._paces = estimated, paced, Paces()
        self.called: dict[str, str] = {}  # settings by another name than their own
        self._counts: dict[Key, Counts] = {}
        self._faults: dict[Key, str] = {}
        self._text, self._bars, self._table, self._notice = HTML(), HTML(), HTML(), Notice()
        self._button = Button(description="Estimate memory, time and price", icon="calculator")
        self._button.tooltip = "For this machine and for SageMaker instances; takes some seconds"
        self._button.layout.width = "280px"
        self._button.on_click(lambda button: self._work.start(self._notice.guard(self.estimate)))
        super().__init__([self._text, self._bars, self._button, self._table, self._notice])
        self._newest: TrainConfig | None = None
        self._stale = False  # whether what was counted has changed since

    @property
    def value(self) -> str:
        """The text shown, as HTML."""
        return self._text.value

    @property
    def fault(self) -> str | None:
        """Why the pictures of the configuration shown cannot be trained on, as far as they were looked at."""
        return self._faults.get(_key(self._newest)) if self._newest else None

    def show(self, config: TrainConfig | None, problems: dict[str, str]) -> None:
        """Say what the configuration will do, or how many settings are to be mended."""
        with self.lock:
            if config is not None and config == self._newest:
                return
            self._newest, self._table.value = config, ""  # an estimate is one of the settings it was made for
            self._estimated(None)
            self._notice.say("")
            self._button.disabled = config is None
            self._bars.value = "" if config is None else histogram(config)
            if config is None:
                lines = [problem.replace(name, self.called.get(name, name)) for name, problem in problems.items()]
                self._text.value = _framed("To be mended before this can train", lines, wrong=True)
                return
            self._say(config, [])
        self._work.start(lambda: self._look(config))

    def estimate(self) -> None:
        """Show what `estimate` expects. Raises SdxlNbError."""
        from ...preflight.estimate_table import estimate

        config = self._newest
        if config is None:
            raise SdxlNbError("There is nothing to estimate until the settings above are mended.")
        self._notice.say("Counting ...")
        try:
            made = estimate(config)
            table = FLAG.sub("", made._repr_html_())
        except SdxlNbError as error:
            raise SdxlNbError(explained(error)) from error
        with self.lock:
            if config is self._newest:
                self._table.value = table
                self._paces.note(config, made)
                self._estimated(made)
                self._notice.say("")

    def recount(self) -> None:
        """Look once more, since pictures or captions are others."""
        with self.lock:
            config, self._stale = self._newest, True
        if config is not None:
            self._work.start(lambda: self._look(config))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything is looked up."""
        self._work.wait(timeout)

    def _say(self, config: TrainConfig, more: list[str]) -> None:
        counts = self._counts.get(_key(config))
        self._text.value = _framed("What will happen", [*plan(config, counts), *more])
        if doubts := remarks(config, counts):
            self._text.value += _framed("Worth a second look", doubts)

    def _look(self, config: TrainConfig) -> None:
        """What takes a moment; an answer that comes too late for what is typed by then is not shown."""
        key = _key(config)
        with self.lock:
            if self._stale:
                self._counts.clear()
                self._paces.forget()
            self._stale = False
        more: list[str] = []
        wrong: list[str] = []
        try:
            if key not in self._counts and is_here(config):
                self._counts[key] = count_pictures(config)
            self._faults.pop(key, None)
            more = expectations(config)
        except DataError as error:
            self._faults[key] = explained(error)
            wrong = [NOT_THESE, self._faults[key]]
        except Exception as error:
            wrong = [NOT_HERE, explained(error)]
        with self.lock:
            if config is not self._newest:
                return
            self._say(config, more)
            if wrong:
                self._text.value += _framed(wrong[0], wrong[1:], wrong=True)
            self._looked()
        self._look_for_pace(config)

    def _look_for_pace(self, config: TrainConfig) -> None:
        """Tell how long it will take, where that is known already."""
        counts, steps = self._counts.get(_key(config)), config.max_train_steps
        if steps is None and counts is not None:
            steps = config.num_train_epochs * steps_per_epoch(config, counts.entries)
        pace = self._paces.of(config) if steps else None
        with self.lock:
            if config is self._newest and pace is not None and steps and not self._table.value:
                self._paced(pace.seconds(steps), pace.source)


def is_here(config: TrainConfig) -> bool:
    """Whether the pictures can be counted without fetching anything."""
    folder, name = config.train_data_dir, str(config.dataset_name)
    return "://" not in folder if folder else name.startswith("embedded:") or os.path.isdir(name)


def explained(error: Exception) -> str:
    """What went wrong, in the form's words: the sentence of one of ours without the dashes of its flags."""
    return FLAG.sub("", str(error)) if isinstance(error, SdxlNbError) else f"{type(error).__name__}: {error}"


def _key(config: TrainConfig) -> Key:
    return tuple(getattr(config, name) for name in DATA)


def _framed(title: str, lines: list[str], *, wrong: bool = False) -> str:
    items = "".join(f"<div>{escape(line)}</div>" for line in lines)
    kind, role = ("sdxl-nb-plan sdxl-nb-wrong", "alert") if wrong else ("sdxl-nb-plan", "status")
    return f'<div class="{kind}" role="{role}"><b>{title}</b>{items}</div>'


def settings_table(config: TrainConfig) -> Table:
    """The settings that differ from the defaults, with their sentences, as an HTML table."""
    fields = TrainConfig.model_fields
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(str(value))}</td>"
        f"<td style='text-align:left'>{escape(fields[name].description or '')}</td></tr>"
        for name, value in config.essentials().items()
    )
    return Table(f"<table>{rows}</table>")
