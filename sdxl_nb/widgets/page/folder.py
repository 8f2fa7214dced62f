"""The folder of a project: its pictures, its settings, its runs, and which stage of which run was starred.

In: a folder, new or of last week. Out: plain values, each stored as soon as it is known, so that a kernel may go at any
time.

    pictures/        what is trained on, a caption beside each
    settings.json    the TrainConfig, as TrainConfig.load reads it
    project.json     the run that is shown, and the step that was starred
    runs/            a folder for each run
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...config.train_config import TrainConfig
from ...runs.events import update
from ...runs.folder import new_folder
from ...runs.run import Run
from ...system.errors import ConfigError, DataError, SdxlNbError


class ProjectFolder:
    """See the module; nothing is written before there is something to keep."""

    def __init__(self, place: str | os.PathLike[str]):
        name = os.fspath(place) if isinstance(place, (str, os.PathLike)) else ""
        if not name.strip() or "://" in name:
            raise DataError(f"{place!r} names no folder of this machine: name one for the project, new or of before.")
        self.path = Path(name).expanduser()
        there = next((place for place in (self.path, *self.path.parents) if place.exists()), Path())
        if not there.is_dir():
            raise DataError(f"{there} is a file: name a folder for the project, new or of before.")

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    def config(self) -> TrainConfig | None:
        """The settings as they were left; None in a new project. Raises ConfigError for a file that holds none."""
        if not self.settings.is_file():
            return None
        run = self.run()
        places = {"train_data_dir": str(self.pictures), "output_dir": str(run.folder) if run else self.next_run()}
        try:
            return TrainConfig.load(self.settings).replace(**places)  # the project may have been moved
        except ConfigError as error:
            raise ConfigError(f"{self.settings} is no use ({error}): mend it, or delete it to begin anew.") from None

    def keep(self, config: TrainConfig) -> None:
        """Store the settings."""
        with self._writing():
            config.save(self.settings)

    def next_run(self) -> str:
        """A folder for a run that is none yet."""
        return new_folder(self.path / "runs" / self.path.resolve().name)

    def run(self) -> Run | None:
        """The run that is shown; None before there was one, or when it was deleted."""
        name = self._known().get("run")
        if not isinstance(name, str) or not name:
            return None
        try:
            return Run.open(self.path / name)
        except SdxlNbError:
            return None

    def show(self, run: Run) -> None:
        """Remember the run that is shown; another one has no star yet."""
        name = os.path.relpath(run.folder, self.path)
        if name != self._known().get("run"):
            self._note(run=name, star=None)

    @property
    def star(self) -> int | None:
        """The step that was starred."""
        star = self._known().get("star")
        return star if isinstance(star, int) else None

    @star.setter
    def star(self, step: int | None) -> None:
        self._note(star=step)

    def _known(self) -> dict[str, Any]:
        try:
            known = json.loads((self.path / "project.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataError(f"{self.path / 'project.json'} cannot be read ({error}): delete it.") from None
        return known if isinstance(known, dict) else {}

    def _note(self, **values: Any) -> None:
        with self._writing():
            update(self.path / "project.json", **values)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Make the folder, and say in one sentence where it cannot be written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written to ({error.strerror}): make room, or name another."
            ) from error
