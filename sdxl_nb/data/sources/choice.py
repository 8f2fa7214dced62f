"""What a local folder holds, judged by what the person meant: pictures, parquet files, archives, or a table of names.

In: a folder. Out: the Listing of one of them, with notes on what lies beside it and is not read. Where there are
several, that with the most captions is meant: not the thumbnail beside a data set's parquet files, and not the parquet
file of another program beside captioned pictures.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..captions import alternatives, require_column
from ..decoding import SUFFIXES, is_text
from . import folders, metadata
from .archives import ARCHIVES, PACKED, list_archives
from .listing import CaptionColumn, Files, Listing, TextColumn
from .rows import ADDRESS, CAPTIONS, PICTURES, NoPictures
from .tables import for_training, list_parquet

TABLES = (".csv", ".jsonl")
OWN = ("parquet", "archives", "tables")


@dataclass
class Found:
    """Names of files in a folder by kind, hidden ones left out."""

    parquet: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    pictures: bool = False


def look(folder: Path) -> Found:
    """What lies in a folder and below it; what cannot be listed below it is passed over."""
    found = Found()
    kinds = dict.fromkeys(SUFFIXES, None) | {".parquet": found.parquet}
    kinds |= dict.fromkeys(TABLES, found.tables) | {os.path.splitext(name)[1]: found.archives for name in PACKED}
    kinds |= dict.fromkeys(ARCHIVES, found.archives)
    rest = [""]
    while rest:
        below = rest.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith((".", "__MACOSX")):
                        continue
                    ending = name[name.rfind(".") :].lower()
                    if ending not in kinds or entry.is_dir(follow_symlinks=False):
                        if entry.is_dir(follow_symlinks=False):
                            rest.append(f"{below}{name}/")
                    elif name in metadata.NAMES:
                        found.metadata.append(below + name)
                    elif (names := kinds[ending]) is None:
                        found.pictures = True
                    elif names is not found.archives or ending in ARCHIVES or name.lower().endswith(PACKED):
                        names.append(below + name)
        except OSError:
            continue
    for names in (found.parquet, found.archives, found.tables):
        names.sort()
    return found


def list_local(folder: Path, config: TrainConfig) -> Listing:
    """The Listing of what a folder holds. Raises DataError."""
    found = look(folder)
    ways: dict[str, Callable[[], Listing]] = {}
    if found.pictures or not (found.parquet or found.archives or found.tables):
        ways["the pictures"] = lambda: folders.list_folder(folder, config)
    if not found.metadata:
        if found.parquet:
            ways[named(found.parquet)] = lambda: list_parquet(folder, found.parquet, config)
        if found.archives:
            ways[named(found.archives)] = lambda: _of_archives(folder, found.archives, config)
        if found.tables:
            ways[named(found.tables)] = lambda: list_names(folder, found.tables, config)
    elif not found.pictures:
        ways["the pictures"] = lambda: folders.list_folder(folder, config)
    if len(ways) == 1:
        return next(iter(ways.values()))()
    return _best(ways)


def named(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"{', '.join(names[:2])}{more}"


def _best(ways: dict[str, Callable[[], Listing]]) -> Listing:
    """The Listing with the most captions, else the most pictures; notes say what is not read, and why."""
    listed: dict[str, Listing] = {}
    refused: dict[str, DataError] = {}
    for name, way in ways.items():
        try:
            listed[name] = way()
        except DataError as error:
            refused[name] = error
    best = max(listed, key=lambda name: _worth(listed[name]), default="")
    serious = next((error for error in refused.values() if not isinstance(error, NoPictures)), None)
    if not best or (serious and not _worth(listed[best])[0]):
        raise serious or next(iter(refused.values()))
    chosen = listed.pop(best)
    chosen.notes += [f"{_many(name, other)} not read, but {best}." for name, other in listed.items()]
    chosen.notes += [
        f"{name[:1].upper()}{name[1:]} are not read ({str(error).rstrip('.')})." for name, error in refused.items()
    ]
    return chosen


def _worth(listing: Listing) -> tuple[int, int]:
    return len(listing) - int(listing.captions.null_count), len(listing)


def _many(name: str, listing: Listing) -> str:
    if name == "the pictures":
        first = f", as {listing.names[0]}," if len(listing) else ""
        return f"{len(listing)} pictures in files of their own{first} are"
    return f"{name} ({len(listing)} pictures) {'are' if ',' in name else 'is'}"


def _of_archives(folder: Path, names: Sequence[str], config: TrainConfig) -> Listing:
    chosen = for_training(names, folder)
    return list_archives([str(folder / name) for name in chosen if folders.inside(folder, name, "the folder")], config)


def list_names(folder: Path, tables: Sequence[str], config: TrainConfig) -> Listing:
    """The Listing of a table, CSV or JSON lines, whose rows name picture files beside it. Raises DataError."""
    if len(tables) > 1:
        raise NoPictures(f"{folder} has several tables, {named(tables)}, none of them called metadata")
    (table,) = tables
    rows = metadata.rows(Path(folders.inside(folder, table, "the folder")))
    first = next(rows, {})
    image, caption = _columns(table, first, config)
    root = (folder / table).parent
    names, captions, seen = TextColumn(), CaptionColumn(), set()
    for number, row in enumerate(metadata.rows(folder / table), start=1):
        name = _file(folder, root, row.get(image), f"row {number} of {table}")
        if name in seen:
            raise NoPictures(f"{table} names '{name}' more than once: keep one line per picture.")
        seen.add(name)
        names.append(name)
        captions.append(_captions(row.get(caption)))
    listed, (texts, further) = names.finish(), captions.finish()
    files = Files(str(folder), listed)
    note = f"Captions are those of {table} (columns {image} and {caption})."
    return Listing(listed, texts, files.read, files.stamp, notes=[note], further=further)


def _columns(table: str, first: dict[Any, Any], config: TrainConfig) -> tuple[str, str]:
    """The columns of a table that name pictures and captions. Raises NoPictures, DataError for addresses."""
    image, caption = config.columns()
    known = [name for name in first if isinstance(name, str)]
    for name in known:
        if isinstance(first[name], str) and ADDRESS.match(first[name]) and image not in known:
            raise DataError(
                f"{table} holds addresses of pictures (column '{name}'), and nothing is fetched from addresses: download "
                "them first, for example with img2dataset, and give that folder with --train_data_dir."
            )
    if image not in known and not config.image_column:
        image = next((name for name in ("file_name", *PICTURES, "path", "file") if name in known), image)
    if caption not in known and not config.caption_column:
        caption = next((name for name in CAPTIONS if name in known), caption)
    try:
        require_column(image, known, "--image_column", table)
        require_column(caption, known, "--caption_column", table)
    except DataError as error:
        raise NoPictures(str(error)) from error
    return image, caption


def _file(folder: Path, root: Path, value: Any, told_by: str) -> str:
    """The name relative to `folder` of the picture that a row names, as seen from there or from beside the table."""
    if not isinstance(value, str) or not value or not is_text(value) or "\0" in value:
        raise NoPictures(f"{told_by} names no picture: correct or remove it.")
    for place in (root, folder):
        path = os.path.normpath(place / value)
        if os.path.isfile(path):
            name = os.path.relpath(path, folder)
            folders.inside(folder, name, told_by)
            return Path(name).as_posix()
    raise NoPictures(f"{told_by} names '{value}', but there is no such file in {folder}: correct the name.")


def _captions(value: Any) -> list[str]:
    try:
        found = alternatives(value)
    except TypeError:
        return []
    return found if all(map(is_text, found)) else []
