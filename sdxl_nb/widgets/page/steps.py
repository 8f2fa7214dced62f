"""What opens below the pictures of a project, one step after the other: Settings, Run, Result.

In: the project's folder, the browser of its pictures, and a place for each step. Out: the form with its few settings
and Start, the monitor of the run, and its result, each in its place as soon as there is something to do in it.
"""

import threading
from collections.abc import Callable
from typing import Any

import traitlets
from ipywidgets import VBox

from ...config.train_config import TrainConfig
from ...runs.run import Run
from ...runs.stages import Stages
from ..dataset import selection
from ..dataset.browser import DatasetBrowser
from ..form.form import ConfigForm
from ..form.start import Start
from ..monitor.monitor import RunMonitor
from ..parts.children import replace
from ..parts.watching import Notice
from .folder import ProjectFolder
from .proposal import gpu_memory, proposed
from .result import Result
from .settings import WORDS, Few


class Steps:
    """`pictures_changed` opens the settings, a press on Start the run, its first stage the result."""

    def __init__(
        self,
        folder: ProjectFolder,
        config: TrainConfig,
        browser: DatasetBrowser,
        places: dict[str, VBox],
        notice: Notice,
    ):
        self.folder, self.browser, self._places, self._notice = folder, browser, places, notice
        self._lock = threading.RLock()
        self.form = ConfigForm(config)
        self.form._outlook.called = WORDS
        once = (self.form.start, self.form._outlook)  # the page has its own Start, and shows what will happen above it
        self.form.children = [child for child in self.form.children if child not in once]
        self.few: Few | None = None
        self._pictures = 0
        self._memory: int | None = None
        self._proposed: dict[str, Any] = {}
        self._new = not folder.settings.is_file()
        self.start = Start(lambda: self.form.config, self._moved, watch=False)
        self.monitor: RunMonitor | None = None
        self.result = Result(folder)
        guard: Callable[..., Any] = notice.guard
        self.form.observe(guard(lambda change: self._settings_changed()), "value")
        for told in ("foretold", "source"):
            traitlets.dlink((self.form.start, told), (self.start, told))
        self.start.observe(guard(lambda change: self._started(change["new"])), "run")

    def pictures_changed(self) -> None:
        """Open the settings once there is something to train on; what was set with the pictures is taken over."""
        _, every = selection.captioned(self.browser.dataset)
        word = self.browser.config.trigger_word if self.browser.config else None
        if every and len(self.browser.dataset):
            self._open_settings(every)
        if word != self.form.edits.get("trigger_word", self.form._given.trigger_word):
            self.form.edits = {**self.form.edits, "trigger_word": word}

    def _open_settings(self, pictures: int) -> None:
        """Open them, once; propose anew when there are more pictures or fewer, and count again."""
        reasons = self._propose(pictures) if self._new and pictures != self._pictures else None
        self._pictures = pictures
        if self.few is None:
            self.few = Few(self.form, reasons or [])
            self._places["Settings"].children = [self.few, self.form._outlook, self.start]
            return
        self.form._outlook.recount()
        if reasons:
            self.few.give(reasons)

    def _propose(self, pictures: int) -> list[str]:
        """Settings for so many pictures, but for those of an earlier proposal that a person changed; the reasons."""
        caption, edits = next(iter(self.browser.dataset.captions)), self.form.edits
        if not self._proposed:
            self._memory = gpu_memory()
        proposal = proposed(pictures, self._memory, caption)
        changed = {name for name, value in self._proposed.items() if edits.get(name) != value}
        own = {name: value for name, value in edits.items() if name in changed or name not in self._proposed}
        if not self._proposed:
            self.form.preset = proposal.preset
        self._proposed = {**self._proposed, **proposal.changes}
        self.form.edits = {**{name: value for name, value in proposal.changes.items() if name not in changed}, **own}
        return proposal.reasons

    def _settings_changed(self) -> None:
        """Keep the settings, and judge the pictures by them."""
        config = self.form.value
        self.start.button.disabled = config is None
        if config is None:
            return
        self.folder.keep(config)
        self.browser.follow(config)

    def _moved(self, folder: str) -> None:
        self.form.edits = {**self.form.edits, "output_dir": folder}
        self._notice.say(f"This run goes to {folder}; the one before stays.")

    def _started(self, run: Run | None) -> None:
        """Show the run, and its result as soon as there is one."""
        if run is None:
            return
        self.folder.show(run)
        if self.monitor is None or self.monitor.run.folder != run.folder:
            self.monitor = RunMonitor(run)
            self.monitor.observe(self._notice.guard(lambda change: self._look()), ["step", "status"])
            replace(self._places["Run"], [self.monitor])
        self._look()

    def _look(self) -> None:
        """Open the result, or say that it has more stages."""
        run, place = self.start.run, self._places["Result"]
        with self._lock:
            if run is None or not (run.folder / "config.json").is_file():
                return
            if Stages(run).steps_with_lora():
                if self.result not in place.children:
                    replace(place, [self.result])
                self.result.show(run)
