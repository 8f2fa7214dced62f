"""What a reader of data files gives: the folders that one names, and remarks on what in it has no effect here.

In: what YAML, TOML or JSON made of a file. Out: a Manifest. Each sibling reads the files of one program; formats.py
lists them. None of them looks into a folder: assembly.py opens what they name.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...config.messages import nearest, shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..decoding import is_text
from ..folder_settings import FolderSettings
from ..sources.folders.leavings import some

MOST = 100_000  # repeats, or a weight
OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
KINDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a group", list: "a list"}


class Manifest(NamedTuple):
    """The folders of a data file, in its order, and remarks for the log."""

    folders: list[FolderSettings]
    notes: list[str]


class Reader(Protocol):
    """The module of one program's files."""

    def is_its_own(self, said: Any) -> bool:
        """Whether this is what its program writes."""

    def read(self, said: Any, file: Path, config: TrainConfig) -> Manifest:
        """Raises DataError."""


class Remarks:
    """What has no effect here, gathered so that one sentence a key says it of all folders.

    `known` says why for each key; what it does not have is unknown. `partly`: what of a key has no effect.
    """

    def __init__(self, known: Mapping[str, str], partly: Mapping[str, str] | None = None):
        self.known, self.partly = known, partly or {}
        self._found: dict[str, list[str]] = {}
        self._said: list[str] = []

    def say(self, sentence: str) -> None:
        """Add a whole sentence, once."""
        if sentence not in self._said:
            self._said.append(sentence)

    def add(self, key: str, place: str) -> None:
        """Note that a folder has this key."""
        places = self._found.setdefault(key, [])
        if place not in places:
            places.append(place)

    def look(self, said: Mapping[str, Any], usual: Mapping[str, Any], place: str, used: Iterable[str]) -> None:
        """Note every key that is neither `used` nor has its `usual` value (where there is none: false or nothing)."""
        used = set(used)
        for key, value in said.items():
            if key not in used and (key not in self.known or value not in (usual.get(key), None, False, "")):
                self.add(str(key), place)

    def notes(self) -> list[str]:
        """The sentences."""
        lines = list(self._said)
        unknown: dict[str, list[str]] = {}
        for key, places in self._found.items():
            if key in self.known:
                lines.append(f"{key} ({some(places)}) has no effect: {self.known[key]}.")
            elif key in self.partly:
                lines.append(f"{key} ({some(places)}) has effect in part: {self.partly[key]}.")
            else:
                unknown[key] = places
        if unknown:
            where = some(dict.fromkeys(place for places in unknown.values() for place in places))
            lines.append(f"{', '.join(unknown)} ({where}): not known, and without effect.")
        return lines


def value(said: Mapping[str, Any], key: str, kind: type, place: str, usual: Any = None) -> Any:
    """What is said under a key, of this kind. Raises DataError."""
    found = said.get(key)
    if found is None:
        return usual
    right = isinstance(found, int | float) if kind is float else isinstance(found, kind)
    if not right or (isinstance(found, bool) and kind is not bool):
        raise DataError(f"{key} of {place} must be {KINDS[kind]}, not {shown(found)}: correct it.")
    if kind is str and (not is_text(found) or "\0" in found):
        raise DataError(f"{key} of {place} holds half a character or a NUL, {shown(found)}: correct it.")
    return found


def amount(
    said: Mapping[str, Any], key: str, kind: type, place: str, usual: float, *, least: float = 0, most: float = MOST
) -> Any:
    """The number that is said under a key, within bounds. Raises DataError."""
    number = value(said, key, kind, place, usual)
    if not least <= number <= most:  # nor is nan
        bound = f"at most {most:,}" if number > most else f"at least {least}"
        raise DataError(f"{key} of {place} must be {bound}, not {number}: correct it.")
    return number


def check_keys(said: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    """Raise DataError for a key that is none of those known."""
    for key in said:
        if key not in known:
            close = nearest(str(key), known)
            advice = f"did you mean {close}?" if close else f"there are {', '.join(known)}."
            raise DataError(f"{place} has an unknown key {shown(key)}: {advice}")


def folder_path(given: str, file: Path, *, beside: bool = False) -> str:
    """The absolute path that a file means: relative to itself (`beside`), or first to where the program is run from."""
    if "://" in given:
        return given
    path = os.path.expanduser(given)
    if OF_WINDOWS.match(given) and os.name != "nt":
        return given
    if "\\" in path and not os.path.exists(path):
        path = path.replace("\\", "/")
    if not os.path.isabs(path) and (beside or not os.path.exists(path)):
        path = os.path.join(file.parent, path)
    return os.path.abspath(path)


def with_names(folders: Sequence[FolderSettings]) -> list[FolderSettings]:
    """The folders, each called by as much of the end of its path as tells it from the others."""
    parts = [folder.path.rstrip("/").replace("\\", "/").split("/") for folder in folders]
    names = [path[-1] for path in parts]
    for number, path in enumerate(parts):
        same = [other for other in parts if other[-1] == path[-1] and other != path]
        deep = next((n for n in range(1, len(path) + 1) if all(other[-n:] != path[-n:] for other in same)), 1)
        names[number] = "/".join(path[-deep:])
    named = [folder.name or name for folder, name in zip(folders, names, strict=True)]
    seen: dict[str, int] = {}
    for number, name in enumerate(named):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            named[number] = f"{name} ({seen[name]})"
    return [replace(folder, name=name) for folder, name in zip(folders, named, strict=True)]
