"""Project: from a folder of pictures to a LoRA of one's own, on one page: Pictures, Settings, Run, Result.

In: a folder, new or of before. Out: a widget whose steps open when the one before is ready, made of the data set
browser, the form, the monitor and the grid. Everything that is set lies in the folder (folder.py), so that a reload, a
restarted kernel or another day finds it as it was; training goes on in a process of its own.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import traitlets
from ipywidgets import HTML, VBox
from PIL.Image import Image

from ...config.train_config import TrainConfig
from ...runs.run import Run
from ...runs.stages import Stages
from ..dataset import selection
from ..dataset.browser import DatasetBrowser
from ..form.form import ConfigForm
from ..form.start import Start
from ..monitor.monitor import RunMonitor
from ..parts.aria import Aria
from ..parts.children import replace
from ..parts.pictures import Tiles
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice
from .folder import ProjectFolder
from .proposal import gpu_memory, proposed
from .result import Result
from .settings import Few

NOT_YET = {
    "Settings": "Opens when there is a picture with a caption.",
    "Run": "Opens when you press Start.",
    "Result": "Opens with the first stage that can be taken.",
}


class Project(Twin, VBox):
    """One page; see the module. `config` is what would be trained, `run` what is, `folder` where all of it lies.

    `captioner`, a function from a picture to words, or the hub id or folder of a model that describes pictures, puts a
    button beside the pictures that writes what captions lack.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        captioner: Callable[[Image], str] | str | os.PathLike[str] | None = None,
    ):
        self.folder, self._notice, self._lock = ProjectFolder(place), Notice(), threading.RLock()
        kept = self.folder.config()
        self._new = kept is None
        begun = {"train_data_dir": str(self.folder.pictures), "output_dir": self.folder.next_run()}
        config = kept or TrainConfig.preset("tiny", **begun)
        self.browser = DatasetBrowser(config, captioner=captioner)
        self.browser._word.layout.display = "none"  # it is one of the few settings
        self.form = ConfigForm(config)
        once = (self.form.start, self.form._outlook)  # the page has its own Start, and shows what will happen above it
        self.form.children = [child for child in self.form.children if child not in once]
        self._few: Few | None = None
        self._pictures = 0
        self._memory: int | None = None
        self._proposed: dict[str, Any] = {}
        self.start = Start(lambda: self.config, self._moved, watch=False)
        self._monitor: RunMonitor | None = None
        self.result = Result(self.folder)
        self._places = {name: VBox([HTML(f"<i>{words}</i>")]) for name, words in NOT_YET.items()}
        super().__init__()
        self.add_class("sdxl-nb")
        self._build()
        self.browser.changed = self._notice.guard(self._pictures_changed)
        self.form.observe(self._notice.guard(lambda change: self._settings_changed()), "value")
        for told in ("foretold", "source"):
            traitlets.dlink((self.form.start, told), (self.start, told))
        self.start.observe(self._notice.guard(lambda change: self._started(change["new"])), "run")
        self._pictures_changed()
        if run := self.folder.run():
            self.start.run = run

    def _build(self) -> None:
        steps: list[Any] = [_heading(1, "Pictures"), self.browser]
        for number, (name, place) in enumerate(self._places.items(), start=2):
            steps += [_heading(number, name), place]
        self.children = [style_sheet(), Aria(), *steps, self._notice]

    @property
    def config(self) -> TrainConfig:
        """The settings as they stand. Raises ConfigError with what is wrong."""
        return self.form.config

    @property
    def run(self) -> Run | None:
        """The run that is shown; None before Start."""
        return self.start.run

    def _pictures_changed(self) -> None:
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
        if self._few is None:
            self._few = Few(self.form, reasons or [])
            self._places["Settings"].children = [self._few, self.form._outlook, self.start]
            return
        self.form._outlook.recount()
        if reasons:
            self._few.give(reasons)

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
        if self._monitor is None or self._monitor.run.folder != run.folder:
            self._monitor = RunMonitor(run)
            self._monitor.observe(self._notice.guard(lambda change: self._look()), ["step", "status"])
            replace(self._places["Run"], [self._monitor])
        self._look()

    def _look(self) -> None:
        """Open the result, or say that it has more stages."""
        run, place = self.run, self._places["Result"]
        with self._lock:
            if run is None or not (run.folder / "config.json").is_file():
                return
            if Stages(run).steps_with_lora():
                if self.result not in place.children:
                    replace(place, [self.result])
                self.result.show(run)

    def close(self) -> None:
        """Close all of it; a run goes on."""
        if self.comm is not None:
            replace(self, [])
            super().close()

    def twin(self) -> object:
        """The stages of the run; before there are some, the pictures."""
        if self.result._grid and self.result._grid._look().steps:
            return self.result._grid.figure()
        return Tiles(self.browser.thumbnails())


def _heading(number: int, name: str) -> HTML:
    return HTML(f'<h2 class="sdxl-nb-step"><span>{number}</span> {name}</h2>')
