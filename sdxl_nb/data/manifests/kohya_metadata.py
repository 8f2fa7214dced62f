"""kohya's JSON of pictures and captions: meta_cap.json, meta_clean.json, meta_lat.json, or lines with image_path.

As kohya-ss/sd-scripts has it (finetune/merge_captions_to_metadata.py, library/train_util.py FineTuningDataset): keys
are paths of pictures, absolute with --full_path, else names in image_dir, in older files without suffix. A caption and
the tags are one text, each line of a caption with all tags. train_resolution is kohya's own bucket, found anew here.
"""

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..captions import alternatives
from ..decoding import SUFFIXES, Fault, is_text, printable
from ..folder_settings import FolderSettings
from ..sources.folders.leavings import some
from ..sources.folders.tree import belongs, inside, real
from ..sources.listing import CaptionColumn, Files, Listing, TextColumn
from ..words.tags import joined
from .manifest import Manifest, with_names

ABOUT = {"caption", "tags", "train_resolution", "image_size"}  # of which an entry has some


class Entry(NamedTuple):
    """What a file says of a picture."""

    key: str
    captions: list[str]
    tags: str


def is_its_own(said: Any) -> bool:
    """Whether this is kohya's metadata of pictures."""
    if isinstance(said, list):
        return bool(said) and isinstance(said[0], Mapping) and "image_path" in said[0]
    some_entries = [each for _, each in zip(range(100), said.values(), strict=False)] if isinstance(said, dict) else []
    return bool(some_entries) and all(isinstance(each, Mapping) and ABOUT & each.keys() for each in some_entries)


def read(said: Any, file: Path, config: TrainConfig) -> Manifest:
    """One folder, that of the file, whose pictures the file names."""
    folder = FolderSettings(str(file.parent), plain=True, table=str(file), settings={"folder_repeats": False})
    return Manifest(with_names([folder]), [])


def list_entries(said: Any, folder: FolderSettings, config: TrainConfig) -> Listing:
    """The Listing of what a metadata file (`said`) names; `config` is the folder's own. Raises DataError."""
    _by_stem.cache_clear()  # pictures may have come since
    table, base = Path(str(folder.table)).name, real(folder.path)
    paths: dict[str, list[str]] = {}
    faults: list[Fault] = []
    notes: list[str] = []
    moved: list[str] = []
    for entry in entries(said, table):
        path, is_moved = found(entry.key, base, table)
        if path is None:
            name = printable(entry.key)
            faults.append(Fault(name, f"{name} is named in {table}, but there is no such picture: put it there."))
        elif path in paths:
            notes.append(f"{table} names {printable(entry.key)} twice: the first counts.")
        else:
            paths[path] = texts(entry, config)
            moved += [entry.key] if is_moved else []
    if not paths:
        raise DataError(f"{table} names no picture that is there{_first(faults)}.")
    if moved:
        notes.append(f"{table} names pictures elsewhere ({some(moved)}): those of the same names in {base} are used.")
    if any("train_resolution" in each for each in _said(said)):
        notes.append(f"train_resolution in {table} has no effect: pictures are measured, and shapes found, anew.")
    root = base if all(Path(path).is_relative_to(base) for path in paths) else _above(paths)
    names, captions = TextColumn(), CaptionColumn()
    for path, own in paths.items():
        names.append(os.path.relpath(path, root))
        captions.append(own)
    listed, (first, further) = names.finish(), captions.finish()
    files = Files(str(root), listed)
    return Listing(listed, first, files.read, files.stamp, faults, notes, further=further, stamps=files.stamps)


def _first(faults: list[Fault]) -> str:
    return f"; the first: {faults[0].sentence.rstrip('.')}" if faults else ": it is empty"


def _above(paths: Mapping[str, Any]) -> Path:
    """The folder that holds them all."""
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def _said(said: Any) -> Iterator[Mapping[str, Any]]:
    rows = said if isinstance(said, list) else said.values()
    return (each for each in rows if isinstance(each, Mapping))


def entries(said: Any, table: str) -> Iterator[Entry]:
    """What a metadata file says, entry by entry. Raises DataError."""
    rows = [(each.get("image_path"), each) for each in _said(said)] if isinstance(said, list) else said.items()
    for key, each in rows:
        if not isinstance(key, str) or not key or not is_text(key) or "\0" in key:
            raise DataError(f"{table} has an entry without the path of a picture: remove it.")
        if not isinstance(each, Mapping):
            raise DataError(f"{table} says of {printable(key)} what is no group with a caption: correct it.")
        tags = each.get("tags")
        tags = ", ".join(map(str, tags)) if isinstance(tags, list) else tags
        try:
            captions = alternatives(each.get("caption"))
        except TypeError as error:
            raise DataError(f"The caption of {printable(key)} in {table} is no text: correct it.") from error
        if not all(map(is_text, [*captions, str(tags or "")])):
            raise DataError(f"The caption of {printable(key)} in {table} holds half a character: correct it.")
        yield Entry(key, captions, str(tags or ""))


def texts(entry: Entry, config: TrainConfig) -> list[str]:
    """The captions of an entry: each with the tags, one for each line where lines are captions."""
    separator, tags = config.caption_separator, " ".join(entry.tags.split("\n"))
    found = []
    for caption in entry.captions or [""]:
        lines = [line.strip() for line in caption.split("\n") if line.strip()]
        if config.caption_lines == "first":
            lines = lines[:1]
        elif config.caption_lines in ("tags", "join"):
            lines = [joined(lines, separator) if config.caption_lines == "tags" else " ".join(lines)]
        found += [joined([line, tags.strip()], separator) for line in lines or [""]]
    return [text for text in found if text]


def found(key: str, base: Path, table: str) -> tuple[str | None, bool]:
    """(real path of the picture that a key means or None, whether it was sought by its name alone).

    Raises DataError for one that leads out of the folder by ".." or a link.
    """
    for told in dict.fromkeys((key, key.replace("\\", "/"))):
        path = there(os.path.join(base, told))
        if path and os.path.isabs(told):
            whole = real(path)
            if not belongs(whole, real(os.path.dirname(path))):
                raise DataError(f"{table} names {printable(key)}, a link that leads elsewhere: put the file there.")
            return str(whole), False
        if path:
            return str(inside(base, os.path.relpath(path, base), table, key)), False
    name = key.replace("\\", "/").rpartition("/")[2]
    path = there(os.path.join(base, name)) if name != key else None
    return (str(inside(base, os.path.basename(path), table, key)), True) if path else (None, False)


def there(path: str) -> str | None:
    """The picture of this path, or with it as the name without suffix; None where there is none."""
    if path.lower().endswith(SUFFIXES) and os.path.isfile(path):
        return path
    folder, name = os.path.split(path)
    own = _by_stem(folder).get(name)
    return None if own is None else os.path.join(folder, own)


@lru_cache(maxsize=64)
def _by_stem(folder: str) -> dict[str, str]:
    """The pictures of a folder by name without suffix."""
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except OSError:
        return {}
    return {os.path.splitext(name)[0]: name for name in names if name.lower().endswith(SUFFIXES)}
