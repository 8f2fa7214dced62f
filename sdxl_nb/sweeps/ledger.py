"""What a sweep keeps of itself: what it was asked for, and a row for every trial that is over.

    sweep.json           JSON, replaced whole after every trial
    trial-000/ ...       the run folder of each trial

In: a folder. Out: rows. A sweep that was killed goes on from here; one asked for otherwise is refused.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..config.formats import write_text
from ..system.errors import ConfigError, SdxlNbError

VERSION = 1


class Row(NamedTuple):
    """A trial that is over: its settings, completed, pruned or failed, its loss, and at which step it was lowest."""

    number: int
    values: dict[str, Any]
    state: str
    loss: float | None = None
    step: int | None = None
    error: str | None = None


def trial_folder(folder: Path, number: int) -> Path:
    """The run folder of a trial in a sweep's folder."""
    return folder / f"trial-{number:03d}"


class Ledger:
    """sweep.json of a folder. Raises ConfigError where the folder holds another sweep, or something else."""

    def __init__(self, folder: Path, asked: dict[str, Any]):
        self.folder, self.file, self.asked = folder, folder / "sweep.json", json.loads(json.dumps(asked))
        self.rows: list[Row] = []
        if self.file.is_file():
            self._read()
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"output_dir {folder} holds something else than a sweep: choose another folder")

    def _read(self) -> None:
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
            rows, asked = [Row(**row) for row in known["rows"]], known["asked"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise SdxlNbError(f"{self.file} is damaged: choose another output_dir, or delete it.") from error
        names = {name for name in {*asked, *self.asked} if asked.get(name) != self.asked.get(name)}
        if names:
            raise ConfigError(
                f"output_dir {self.folder} holds a sweep with another {', '.join(sorted(names))}: choose another "
                "output_dir, or ask for the same to go on with it"
            )
        self.rows = rows

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return trial_folder(self.folder, number)

    def add(self, row: Row) -> None:
        """Keep a row; the file is whole at any moment."""
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        """Write the file."""
        content = {"version": VERSION, "asked": self.asked, "rows": [row._asdict() for row in self.rows]}
        write_text(self.file, json.dumps(content, indent=1))
