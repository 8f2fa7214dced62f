"""Project: from a folder of pictures to a LoRA of one's own, on one page: Pictures, Settings, Run, Result.

In: a folder, new or of before. Out: a widget whose steps open when the one before is ready, made of the data set
browser, the form, the monitor and the grid. Everything that is set lies in the folder (folder.py), so that a reload, a
restarted kernel or another day finds it as it was; training goes on in a process of its own. What is seen first, the
pictures, is painted first: the steps below them (steps.py), two thirds of all widgets, are made when the cell is over,
or when somebody asks for them.
"""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ipywidgets import HTML, VBox
from PIL.Image import Image

from ...config.train_config import TrainConfig
from ...runs.run import Run
from ..dataset.browser import DatasetBrowser
from ..parts.aria import Aria
from ..parts.children import replace
from ..parts.pictures import Tiles
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, after_the_cell
from .folder import ProjectFolder

if TYPE_CHECKING:
    from ..form.form import ConfigForm
    from ..form.start import Start
    from .result import Result
    from .steps import Steps

NOT_YET = {
    "Settings": "Opens when there is a picture with a caption.",
    "Run": "Opens when you press Start.",
    "Result": "Opens when the run has saved its first LoRA.",
}
AT_ONCE = "Opening ..."


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
        kept, self._last = self.folder.config(), self.folder.run()
        begun = {"train_data_dir": str(self.folder.pictures), "output_dir": self.folder.next_run()}
        self._begun = kept or TrainConfig.preset("tiny", **begun)
        self._steps: Steps | None = None
        self.browser = DatasetBrowser(self._begun, captioner=captioner, measured=False)
        self.browser._word.layout.display = "none"  # it is one of the few settings
        self._places = {name: VBox([HTML(f"<i>{words}</i>")]) for name, words in NOT_YET.items()}
        super().__init__()
        self.add_class("sdxl-nb")
        self._build()
        self.browser.changed = self._notice.guard(lambda: self.steps.pictures_changed())
        after_the_cell(self._notice.guard(self._open))

    def _build(self) -> None:
        steps: list[Any] = [_heading(1, "Pictures"), self.browser]
        for number, (name, place) in enumerate(self._places.items(), start=2):
            steps += [_heading(number, name), place]
        self.children = [style_sheet(), Aria(), *steps, self._notice]
        there = {"Settings": len(self.browser.dataset), "Run": self._last}
        for name in filter(there.get, there):
            self._places[name].children[0].value = f"<i>{AT_ONCE}</i>"

    def _open(self) -> None:
        """Make what is below the pictures, and then look at what takes longer."""
        try:
            _ = self.steps
        finally:
            self.browser.measure()

    @property
    def steps(self) -> "Steps":
        """What is below the pictures, made now where it is not there yet."""
        with self._lock:  # somebody may be at the pictures while it is made
            if self._steps is None:
                from .steps import Steps

                self._steps = Steps(self.folder, self._begun, self.browser, self._places, self._notice)
                self._steps.pictures_changed()
                self._steps.start.run = self._last
            return self._steps

    @property
    def form(self) -> "ConfigForm":
        """All settings."""
        return self.steps.form

    @property
    def start(self) -> "Start":
        """The button that trains, and what it started."""
        return self.steps.start

    @property
    def result(self) -> "Result":
        """The stages of the run, and the star."""
        return self.steps.result

    @property
    def config(self) -> TrainConfig:
        """The settings as they stand. Raises ConfigError with what is wrong."""
        return self.form.config

    @property
    def run(self) -> Run | None:
        """The run that is shown; None before Start."""
        return self.start.run

    def close(self) -> None:
        """Close all of it; a run goes on."""
        if self.comm is not None:
            replace(self, [])
            super().close()

    def twin(self) -> object:
        """The stages of the run; before there are some, the pictures."""
        run = self._steps.start.run if self._steps else self._last
        if run is not None:
            from ...runs.stages import Stages
            from ..grid.columns import main_stages

            if steps := main_stages(stages := Stages(run)):
                return stages.figure(steps)
        return Tiles(self.browser.thumbnails())


def _heading(number: int, name: str) -> HTML:
    return HTML(f'<h2 class="sdxl-nb-step"><span>{number}</span> {name}</h2>')
