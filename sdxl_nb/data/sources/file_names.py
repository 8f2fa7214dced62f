"""Which pictures the rows of metadata files name, and what they say of them.

In: the metadata files of a folder, each of which names files relative to its own place. Out: Named: names relative to
the folder and captions, in the order of the rows. Names without a file are errors, as are names that lead out.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..captions import require_column
from ..decoding import Fault, is_text
from . import metadata
from .leavings import counted, some
from .listing import Note, TextColumn, Texts
from .tree import inside, is_plain_file, real_inside

HALF = "has a caption with half a character in it (a lone surrogate): correct it."


class Named(NamedTuple):
    """`names` and `captions` (null: none) of the rows that can be used; `seen`, the names of all rows."""

    names: pa.Array
    captions: pa.Array
    seen: dict[str, str]  # name -> the metadata file that names it
    faults: list[Fault]
    notes: list[Note]


def read_names(root: Path, tables: Sequence[str], config: TrainConfig, never: dict[str, str]) -> Named:
    """What the metadata files `tables` say; pictures below the folders `never` are passed over. Raises DataError.

    Where two of them name a picture, the one that is nearer to it counts, as it does for `datasets`.
    """
    names, captions, faults, passed, twice = TextColumn(), TextColumn(), [], [], []
    seen: dict[str, str] = {}
    folder = lru_cache(maxsize=100_000)(partial(real_inside, root))
    for table in sorted(tables, key=lambda name: (-name.count("/"), name)):
        given, texts, bad = read_table(root, table, config)
        for row, (told, text) in enumerate(zip(given, Texts[str | None](texts), strict=True)):
            name = checked_name(root, table, row + 1, told, folder)
            if seen.get(name) == table:
                raise DataError(f"{table} names '{name}' more than once: keep one line per picture.")
            given[row] = None  # there may be a million
            if never and name.startswith(tuple(never)):
                passed.append(name)
            elif name in seen:
                twice.append(name)
            elif row in bad:
                seen[name] = table
                faults.append(Fault(name, f"{name} {bad[row]}"))
            else:
                seen[name] = table
                names.append(name)
                captions.append(text)
    notes = []
    if twice:
        named = f"{counted(len(twice), 'picture')} named in two metadata files ({some(twice)})"
        notes.append(Note(f"{named}: the file nearer to the picture counts.", "named_twice"))
    if passed:
        named = f"{counted(len(passed), 'picture')} named in metadata files ({some(passed)})"
        notes.append(Note(f"{named} but never trained on: {_reasons(passed, never)}.", "not_training_pictures"))
    return Named(names.finish(), captions.finish(), seen, faults, notes)


def _reasons(names: Sequence[str], never: dict[str, str]) -> str:
    return ", ".join(dict.fromkeys(next(why for at, why in never.items() if name.startswith(at)) for name in names))


def read_table(root: Path, table: str, config: TrainConfig) -> tuple[list[Any], pa.Array, dict[int, str]]:
    """(names as given, captions, row -> what is wrong with its caption) of a metadata file. Raises DataError."""
    ours, others, captions = [], [], TextColumn()
    columns: dict[Any, None] = {}
    bad: dict[int, str] = {}
    image_column, caption_column = config.image_column, config.columns()[1]
    for row, values in enumerate(metadata.rows(root / table)):
        caption = values.get(caption_column)
        if metadata.REST in values:
            bad[row] = f"has more cells in {table} than there are columns: put quotes around text with commas."
            del values[metadata.REST]
        elif isinstance(caption, str) and not is_text(caption):
            bad[row] = HALF
        captions.append(caption if isinstance(caption, str) and row not in bad else None)
        ours.append(values.get("file_name"))
        if image_column:
            others.append(values.get(image_column))
        if not columns.keys() >= values.keys():
            columns |= dict.fromkeys(values)
    if not columns:
        raise DataError(f"{root / table} is empty: it needs one line per picture with file_name and text.")
    if image_column not in columns and "file_name" not in columns:
        raise DataError(f"{table} has no column 'file_name' (its columns: {', '.join(columns)}): add it.")
    require_column(caption_column, columns, "--caption_column", table)
    return others if image_column in columns else ours, captions.finish(), bad


def checked_name(root: Path, table: str, number: int, name: Any, folder: Callable[[str], str | None]) -> str:
    """The name in row `number`, relative to `root` and written the short way, if it is an existing file inside.

    `folder` is real_inside for `root`, with a memory: there may be a million names.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"row {number} of {table} has no file_name: add it or remove the row.")
    missing = DataError(f"{table} names {shown(name)}, but there is no such file in {root}: correct the name.")
    if not is_text(name) or "\0" in name:
        raise missing
    short = os.path.normpath(os.path.join(os.path.dirname(table), name))
    head, _, tail = short.rpartition("/")
    if not is_plain_file(folder(head), tail):
        there = os.path.isfile(inside(root, short, table, name))  # os.path takes a name of any length
        if not there and "\\" in name:  # written on Windows
            return checked_name(root, table, number, name.replace("\\", "/"), folder)
        if not there:
            raise missing
    return os.path.relpath(f"{folder(head)}/{tail}", root) if short.startswith("/") else short
