"""A run at a glance: the little that a list says of it, without reading it whole.

In: a folder. Out: a `Glance`. Of `events.jsonl`, which may have 100 MB, only the lines that are wanted are looked for.
Whatever a folder holds, there is a glance of it: what cannot be read says so. Nothing is asked of AWS: a job's folder
says what it said at the last look.
"""

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..config.layout import CHECKPOINT, drawings
from ..system.errors import SdxlNbError
from .process import Launched
from .run import Run

MARKS = ("run.json", "process.json", "sagemaker.json")  # one of them makes a folder a run's
FOREIGN, UNREADABLE = "foreign", "unreadable"  # beside the states that a run has
NO_RUN = "{} and no run.json: no run of ours, or one whose files were moved"


class Glance(NamedTuple):
    """What a list says of one folder."""

    folder: Path
    name: str  # below the folder that was named
    status: str  # as Run.status, or foreign, or unreadable
    said: str = ""  # why it failed, or what the folder is
    step: int = 0
    steps: int | None = None
    heldout: float | None = None  # the newest
    lowest: tuple[float, int] | None = None  # held-out loss, and its step
    picture: Path | None = None  # the first of the newest step that has some
    drawn: int | None = None  # that step
    settings: dict[str, Any] = {}  # noqa: RUF012 - config.json as it is; never changed
    begun: float = 0.0  # seconds since 1970


def of_training(names: set[str]) -> list[str]:
    """What of a training, ours or another program's, lies among these names."""
    kinds = {
        "LoRA files": any(name.lower().endswith(".safetensors") for name in names),
        "checkpoints": any(CHECKPOINT.fullmatch(name) for name in names),
        "events": "events.jsonl" in names,
    }
    return [kind for kind, there in kinds.items() if there]


def glance(folder: Path, place: str | os.PathLike[str]) -> Glance:
    """What one folder says; nothing in it makes this fail."""
    name = os.path.relpath(folder, place)
    name = folder.absolute().name if name == "." else name
    try:
        if not any((folder / mark).is_file() for mark in MARKS):
            return Glance(folder, name, FOREIGN, NO_RUN.format(", ".join(of_training(set(os.listdir(folder))))))
        return _looked(folder, name)
    except SdxlNbError as error:
        return Glance(folder, name, UNREADABLE, str(error))
    except ValueError as error:
        return Glance(folder, name, UNREADABLE, f"one of its files is not whole, or another program's: {error}.")
    except Exception as error:  # whatever another program wrote there
        return Glance(folder, name, UNREADABLE, f"its files cannot be read: {type(error).__name__}: {error}")


def _looked(folder: Path, name: str) -> Glance:
    run = Run(folder)
    status, said = _status(run)
    with Events(folder / "events.jsonl") as events:
        begin, step, end = (events.last(kind) for kind in ("start", "step", "end"))
        losses = [] if Launched(folder).replaces() else list(events.all("heldout"))
    if Launched(folder).replaces():
        begin = step = end = {}
    if step.get("at", -1) < begin.get("at", -1):
        step = begin  # it goes on, and has not taken a step yet
    known = [(float(event["loss"]), int(event["step"])) for event in losses if event.get("loss") is not None]
    steps, picture = drawings(folder), None
    for drawn in reversed(steps):
        if picture := min(steps[drawn].glob("*.png"), default=None):
            break
    if not said and status == "failed":
        said = str(end.get("error") or run.error or "")
    elif status == "interrupted":
        said = str(run.error)
    return Glance(
        folder, name, status, said, int(step.get("step", 0)), begin.get("steps"), known[-1][0] if known else None,
        min(known, default=None), picture, drawn if picture else None, _settings(folder), float(_begun(run)),
    )  # fmt: skip


def _status(run: Run) -> tuple[str, str]:
    """The state of a run, and what is to be said of a job's."""
    marker = run.folder / "sagemaker.json"
    if not marker.is_file():
        return str(run.status), ""
    ended = json.loads(marker.read_text(encoding="utf-8")).get("status")
    status = str(ended or run.info.get("status", "starting"))
    return status, "" if ended else "a SageMaker job, as it was at the last look: open it to look again"


def _begun(run: Run) -> float:
    return float(run.info.get("started") or Launched(run.folder).about().get("started") or 0)


def _settings(folder: Path) -> dict[str, Any]:
    """The settings as they are written, none where there are none yet."""
    asked = Launched(folder).about().get("config") if Launched(folder).replaces() else None
    path = folder / "config.json"
    found = asked or (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
    return found if isinstance(found, dict) else {}


class Events:
    """The lines of an events file by their kind, found without reading the others; a missing file has none."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> "Events":
        self._lines: mmap.mmap | bytes = b""
        try:
            with open(self._path, "rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):  # an empty file cannot be mapped
            pass
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._lines, mmap.mmap):
            self._lines.close()

    def last(self, kind: str) -> dict[str, Any]:
        """The newest event of a kind that is whole, and where it stands in the file (`at`); empty for none."""
        at = len(self._lines)
        while (at := self._lines.rfind(_key(kind), 0, at)) >= 0:
            if event := self._read(at):
                return event | {"at": at}
        return {}

    def all(self, kind: str) -> Iterator[dict[str, Any]]:
        """The events of a kind, oldest first."""
        at = -1
        while (at := self._lines.find(_key(kind), at + 1)) >= 0:
            if event := self._read(at):
                yield event

    def _read(self, at: int) -> dict[str, Any]:
        end = self._lines.find(b"\n", at)
        try:
            found = json.loads(self._lines[at : end if end >= 0 else len(self._lines)])
        except ValueError:
            return {}  # torn by a kill
        return found if isinstance(found, dict) else {}


def _key(kind: str) -> bytes:
    return f'{{"event": "{kind}"'.encode()  # as EventLog begins each line
