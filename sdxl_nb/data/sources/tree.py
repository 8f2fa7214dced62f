"""The files below a folder: what lies in each folder of it, where links lead, what cannot be listed.

In: the real path of a folder. Out: names, nothing opened. Links must stay inside; from a snapshot in the hub's cache
they may lead to the files of the same cache, which is how its client lays them out.
"""

import os
import re
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ...system.errors import DataError
from ..decoding import printable

OF_HUB = re.compile(r"(datasets|models|spaces)--.+")


class Entries(NamedTuple):
    """What a folder holds: names sorted as whole paths are, those of folders with "/" at the end."""

    names: list[str]
    folders: list[str]  # those of them with "/" at the end
    hidden: list[str]  # what starts with a full stop
    links: list[str]  # to folders, which are no part of `names`


def entries(root: Path, below: str) -> Entries:
    """The Entries of the folder `below` ("" or "a/b/") of `root`. Raises OSError; DataError for a link that leads out.

    A link to itself is a file, and reading it fails. A pipe is refused, because it would be waited for for ever.
    """
    names: list[str] = []
    folders: list[str] = []
    hidden: list[str] = []
    links: list[str] = []
    with os.scandir(os.path.join(root, below)) as found:
        for entry in found:
            if entry.name.startswith("."):
                hidden.append(entry.name + "/" * entry.is_dir(follow_symlinks=False))
            elif entry.is_file(follow_symlinks=False):  # as nearly all are
                names.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name + "/")
            elif not entry.is_symlink():
                raise DataError(f"{below + entry.name} in {root} is neither a file nor a folder: remove it.")
            else:
                inside(root, below + entry.name, "the folder")
                (links if is_folder(entry) else names).append(entry.name)
    names += folders
    names.sort()
    return Entries(names, sorted(folders), sorted(hidden), sorted(links))


def walk(root: Path, below: str = "") -> Iterator[str]:
    """Names relative to `root` of all files below it, sorted; hidden ones and links to folders are skipped."""
    try:
        found = entries(root, below).names
    except OSError as error:
        raise unlistable(error) from error
    for name in found:
        if name.endswith("/"):
            yield from walk(root, below + name)
        else:
            yield below + name


def scan(folder: Path | str) -> Iterator[str]:
    """The names of all files below a folder, in small letters and no order, one by one: there may be a million.

    What cannot be listed below it is passed over. Raises DataError when the folder itself cannot be.
    """
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    yield from _scan_below(entry.path)
                else:
                    yield entry.name.lower()
    except OSError as error:
        raise unlistable(error) from error


def _scan_below(folder: str) -> Iterator[str]:
    try:
        yield from scan(folder)
    except DataError:
        return


def unlistable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be listed ({error.strerror}): check its permissions.")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a scanned name is a folder, or a link to one; a link to itself is none, and reading it fails."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def real(path: Path | str) -> Path:
    """The path without links; one that leads to itself stays, and reading it fails (Path.resolve would raise here)."""
    return Path(os.path.realpath(path))


def inside(root: Path, name: str, told_by: str, as_told: str | None = None) -> Path:
    """The real path of `name` in `root`. Raises DataError when it leads elsewhere, by "..", a root or a link."""
    path = real(root / name)
    if not belongs(path, root):
        told = printable(as_told or name)
        raise DataError(f"{told_by} names '{told}', which leads out of {root}: copy the file into the folder.")
    return path


def belongs(path: Path, root: Path) -> bool:
    """Whether a real path lies in `root`, or is one of the files that a snapshot in the hub's cache consists of."""
    return path.is_relative_to(root) or path.parent == hub_blobs(root)


@lru_cache(maxsize=64)
def hub_blobs(root: Path) -> Path | None:
    """Where the hub's client keeps the files of the snapshot (datasets--OWNER--NAME/snapshots/COMMIT) of a folder."""
    for folder in (root, *root.parents):
        if folder.parent.name == "snapshots" and OF_HUB.fullmatch(folder.parent.parent.name):
            return folder.parent.parent / "blobs"
    return None


def real_inside(root: Path, name: str) -> str | None:
    """The real path of a folder in `root` as text, or None when it leads elsewhere."""
    path = real(root / name)
    return str(path) if path.is_relative_to(root) else None


def is_plain_file(folder: str | None, name: str) -> bool:
    """Whether a folder from `real_inside` has this file, and it is no link: then it is inside too."""
    try:
        return folder is not None and stat.S_ISREG(os.lstat(f"{folder}/{name}").st_mode)
    except (OSError, ValueError):
        return False
