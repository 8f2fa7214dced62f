"""All runs at or below a folder: found, looked at, and what differs between them.

In: a folder. Out: `Glance`s, newest first, as values and as a table; nothing is changed or deleted.
"""

import html
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.fields import about
from ..config.layout import CHECKPOINT
from ..config.train_config import TrainConfig
from ..system.errors import SdxlNbError
from .glance import MARKS, Glance, glance, of_training
from .run import GOING_ON

READ = ("config.json", "events.jsonl")  # what else tells of a run
DEEP = 8  # folders below the one that was named
DRAWN = ("seed",)  # where none is given: it differs between nearly all runs
HEADS, ROWS = ("run", "state", "step", "held-out loss", "what differs"), 50  # of the table; rows at most


class RunList:
    """The runs at or below a place; `look` again and again, only what may have changed is read anew."""

    def __init__(self, place: str | os.PathLike[str]):
        self.place = Path(place)
        if not self.place.is_dir():
            raise SdxlNbError(f"There is no folder {self.place}: give the one that your runs lie in.")
        self._known: dict[Path, tuple[object, Glance]] = {}

    def look(self) -> list[Glance]:
        """All of them, the newest first, folders without a run last."""
        known, self._known = self._known, {}
        for folder in run_folders(self.place):
            state, (before, seen) = _state(folder), known.get(folder, (None, None))
            if seen is None or state != before or seen.status in GOING_ON:
                seen = glance(folder, self.place)
            self._known[folder] = state, seen
        found = [seen for _, seen in self._known.values()]
        return sorted(found, key=lambda each: (-each.begun, each.name))

    def _repr_html_(self) -> str:
        glances = self.look()
        if not glances:
            return f"<p>There is no run in {html.escape(str(self.place))} yet.</p>"
        heads = "".join(f"<th style='text-align:left'>{each}</th>" for each in HEADS)
        rows = "".join(
            f"<tr>{''.join(f'<td style=text-align:left>{html.escape(cell)}</td>' for cell in row)}</tr>"
            for row in map(_cells, glances[:ROWS], differences(glances))
        )
        more = f"<p>and {len(glances) - ROWS:,} more</p>" if len(glances) > ROWS else ""
        return f"<table><tr>{heads}</tr>{rows}</table>{more}"


def run_folders(place: str | os.PathLike[str]) -> list[Path]:
    """The folders at or below a place that hold a run, or files of one, links followed once; in no order."""
    return list(_below(os.fspath(place), DEEP, set()))


def _below(folder: str, deep: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        known, entries = os.stat(folder), list(os.scandir(folder))
    except OSError:
        return
    if (known.st_dev, known.st_ino) in seen:
        return
    seen.add((known.st_dev, known.st_ino))
    names = {entry.name for entry in entries}
    ours = not names.isdisjoint(MARKS)
    if ours or of_training(names):
        yield Path(folder)
    parts = ("validation", "logs") if ours else ()
    for entry in entries if deep else ():
        if not entry.name.startswith(".") and entry.name not in parts and not CHECKPOINT.fullmatch(entry.name):
            try:
                inside = entry.is_dir()
            except OSError:
                continue
            if inside:
                yield from _below(entry.path, deep - 1, seen)


def _cells(seen: Glance, differs: Mapping[str, Any]) -> tuple[str, ...]:
    step = f"{seen.step:,} of {seen.steps:,}" if seen.steps else ""
    heldout = "" if seen.heldout is None else f"{seen.heldout:.4f}"
    state = f"{seen.status}: {seen.said}" if seen.said else seen.status
    return seen.name, state, step, heldout, ", ".join(f"{name} {value}" for name, value in differs.items())


def _state(folder: Path) -> tuple[float, ...]:
    """When the files that tell of a run were written."""
    return tuple(path.stat().st_mtime if (path := folder / name).is_file() else 0.0 for name in (*MARKS, *READ))


def size(folder: Path) -> int:
    """Bytes of all files in a folder; what vanishes meanwhile is not counted."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total


def differences(glances: Sequence[Glance], among: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Of each run the settings that change its weights and are not what most of these runs have.

    `among` are other fields than those. Where no value is that of more than half of the runs, every run's is told.
    """
    fields = TrainConfig.model_fields
    names = among or [name for name, field in fields.items() if about(field)["weights"] and name not in DRAWN]
    told: list[dict[str, Any]] = [{} for _ in glances]
    with_settings = [number for number, each in enumerate(glances) if each.settings]
    for name in names:
        values = {n: _plain(glances[n].settings.get(name, fields[name].default)) for n in with_settings}
        one = next(iter(values.values()), None)
        if all(value == one for value in values.values()):
            continue
        usual, many = Counter(map(repr, values.values())).most_common(1)[0]
        for n, value in values.items():
            if 2 * many <= len(values) or repr(value) != usual:
                told[n][name] = value
    return told


def _plain(value: Any) -> Any:
    """A setting as it is compared: of a local path its last part, so that a moved folder is the same."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
