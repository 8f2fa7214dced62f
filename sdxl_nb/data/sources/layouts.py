"""Which folder of those that a person gives holds the training pictures: itself, one of its splits, or kohya's img.

In: a folder. Out: the real path of the one to read, and a sentence about what lies beside it.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ...system.errors import DataError
from ..decoding import SUFFIXES
from . import metadata, strangers
from .leavings import counted, scan_all, some
from .strangers import NUMBERED
from .suffixes import LOOKED_AT
from .tree import Entries, entries, inside, real, unlistable

TRAIN = {"train", "training"}
SPLITS = TRAIN | {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"}
PROJECT = {"log", "logs", "model", "models", "reg", "sample", "samples"}  # beside img, as kohya's GUI makes them


class Chosen(NamedTuple):
    """`folder`, a real path, its Entries where they are known already, and what is left out beside it, or ""."""

    folder: Path
    listed: Entries | None
    remark: str


def training_folder(folder: Path | str) -> Path:
    """The folder that holds the training pictures; the names of pictures are relative to it."""
    return chosen(folder).folder


def chosen(folder: Path | str) -> Chosen:
    """The folder that holds the training pictures. Raises DataError when the one given cannot be listed."""
    root = real(folder)
    try:
        listed = entries(root, "")
    except OSError as error:
        raise unlistable(error) from error
    folders, names = {name[:-1].lower(): name for name in listed.folders}, listed.names
    if not folders or any(name.lower() in metadata.NAMES for name in names):
        return Chosen(root, listed, "")
    inner = project(root, folders) or split(root, folders, any(name.lower().endswith(SUFFIXES) for name in names))
    if not inner:
        return Chosen(root, listed, "")
    beside = {name: pictures_in(root, name) for name in names if name != inner}
    others = {name: count for name, count in beside.items() if count}
    told = (
        f"The pictures of {inner} are used, {counted(sum(others.values()), 'picture')} beside it not ({some(others)})."
    )
    return Chosen(inside(root, inner, "the folder"), None, told if others else "")


def project(root: Path, folders: dict[str, str]) -> str | None:
    """The folder of pictures in a project of kohya's GUI: img, which holds folders of repeats, by log, model, reg."""
    for low in ("img", "image", "images"):
        if low in folders and PROJECT & folders.keys() and any(map(NUMBERED.fullmatch, below(root, folders[low]))):
            return folders[low]
    return None


def split(root: Path, folders: dict[str, str], has_pictures: bool) -> str | None:
    """The folder of the training split, where the others are splits too, or hold none of the set.

    Pictures beside one split alone are part of the set; beside several they are no split's.
    """
    train = [folders[low] for low in folders if low in TRAIN]
    if len(train) != 1:
        return None
    others = {low: name for low, name in folders.items() if name != train[0]}
    if any(low in SPLITS and pictures_in(root, name) for low, name in others.items()):
        return train[0]
    if has_pictures or any(low not in SPLITS and holds_some(root, name, folders) for low, name in others.items()):
        return None
    return train[0]


def holds_some(root: Path, name: str, siblings: Iterable[str]) -> bool:
    """Whether a folder holds pictures that may be part of the set, or masks for it."""
    return not strangers.certain(name, set(below(root, name, files=True)), siblings) and pictures_in(root, name) > 0


def below(root: Path, name: str, files: bool = False) -> list[str]:
    """The names of the folders in a folder, or of all that is in it; none where it cannot be listed."""
    try:
        found = entries(root, name).names
    except (OSError, DataError):
        return []
    return found if files else [one[:-1] for one in found if one.endswith("/")]


def pictures_in(root: Path, name: str) -> int:
    """How many pictures a name stands for: those in a folder ("a/"), or the file."""
    if name.endswith("/"):
        return sum(one.endswith(LOOKED_AT) for one in scan_all(Path(os.path.join(root, name))))
    return int(name.lower().endswith(LOOKED_AT))
