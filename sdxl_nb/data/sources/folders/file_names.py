"""Which pictures the rows of metadata files name, and what they say of them.

In: the metadata files of a folder, each of which names files relative to its own place. Out: Named: names relative to
the folder, captions and masks, in the order of the rows. Names without a file are errors, as are names that lead out.
Columns that end with _file_name, as `datasets` reads them, name what belongs to a picture and is none itself.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ....config.messages import shown
from ....config.train_config import TrainConfig
from ....system.errors import DataError
from ...captions import alternatives, require_column
from ...decoding import Fault, is_text
from .. import metadata
from ..listing import CaptionColumn, Note, TextColumn, Texts, take
from .leavings import counted, some
from .seen import Seen
from .tree import inside, is_plain_file, real_inside

OF_ANOTHER = ("_file_name", "_file_names")  # how columns end that name what belongs to a picture
MASKS = ("mask_file_name", "mask")  # the columns of the masks, where none is named
OTHER_KINDS = {"dict": "an object", "int": "a number", "float": "a number", "bool": "true or false", "list": "a list"}
PLAIN = re.compile(r"[\w-][\w. -]*(?:/[\w-][\w. -]*)*", re.ASCII)  # names that are short already, as nearly all are
HALF = "has a caption with half a character in it (a lone surrogate): correct it."


class Named(NamedTuple):
    """`names`, `captions` (null: none) and `further` ones of the rows that can be used; `seen`: names of all rows."""

    names: pa.Array
    captions: pa.Array
    further: pa.Array | None
    seen: Mapping[str, str]  # name -> the metadata file that names it
    faults: list[Fault]
    notes: list[Note]
    beside: dict[str, str]  # file that belongs to a picture -> the column that names it
    masks: dict[str, str]  # picture -> its mask, where masks are asked for


class Said(NamedTuple):
    """What a metadata file says: `names` as given or None, captions, further ones, all its columns.

    `bad`: row -> what is wrong with its caption. `beside`: column -> row -> what it names beside the picture.
    """

    names: list[Any] | None
    captions: pa.Array
    further: pa.Array | None
    columns: list[str]
    bad: dict[int, str]
    beside: dict[str, dict[int, Any]]


def read_names(root: Path, tables: Sequence[str], config: TrainConfig, never: dict[str, str]) -> Named:
    """What the metadata files `tables` say; pictures below the folders `never` are passed over. Raises DataError.

    Where two of them name a picture, the one that is nearer to it counts, as it does for `datasets`.
    """
    names, captions, faults, passed, twice = TextColumn(), CaptionColumn(), [], [], []
    seen: dict[str, str] = {}  # of several files
    own = TextColumn()  # of one alone
    beside, masks = dict[str, str](), dict[str, str]()
    folder = lru_cache(maxsize=100_000)(partial(real_inside, root))
    for table in sorted(tables, key=lambda name: (-name.count("/"), name)):
        said = read_rows(root, table, config)
        given, more, bad = said.names or [], said.further, said.bad
        its_masks = masks_of(table, said, config)
        beside |= files_beside(table, said)
        note = own.append if len(tables) == 1 else partial(_set, seen, table)
        for row, (told, text) in enumerate(zip(given, Texts[str | None](said.captions), strict=True)):
            name = checked_name(root, table, row + 1, told, folder)
            if seen.get(name) == table:
                raise DataError(f"{table} names '{name}' more than once: keep one line per picture.")
            given[row] = None  # there may be a million
            if never and name.startswith(tuple(never)):
                passed.append(name)
            elif name in seen:
                twice.append(name)
            elif row in bad:
                note(name)
                faults.append(Fault(name, f"{name} {bad[row]}"))
            else:
                note(name)
                names.append(name)
                captions.append([] if text is None else [text, *([] if more is None else more[row].as_py())])
                if row in its_masks:
                    masks[name] = checked_name(root, table, row + 1, its_masks[row], folder)
                    beside.setdefault(masks[name], "a mask")
    every = Seen(tables[0], own.finish()) if len(tables) == 1 else seen
    notes = []
    if twice:
        named = f"{counted(len(twice), 'picture')} named in two metadata files ({some(twice)})"
        notes.append(Note(f"{named}: the file nearer to the picture counts.", "named_twice"))
    if passed:
        named = f"{counted(len(passed), 'picture')} named in metadata files ({some(passed)})"
        notes.append(Note(f"{named} but never trained on: {_reasons(passed, never)}.", "not_training_pictures"))
    beside = {name: column for name, column in beside.items() if name not in every}
    return Named(names.finish(), *captions.finish(), every, faults, notes, beside, masks)


def _set(seen: dict[str, str], table: str, name: str) -> None:
    seen[name] = table


def masks_of(table: str, said: Said, config: TrainConfig) -> dict[int, str]:
    """Row -> the mask that the file names for it, where masks are asked for. Raises DataError."""
    column = mask_column(table, said.columns, config)
    found = said.beside.get(column or "", {})
    for row, name in found.items():
        if not isinstance(name, str):
            raise DataError(f"row {row + 1} of {table} names no file in column '{column}': correct or remove it.")
    return found


def mask_column(table: str, columns: Sequence[str], config: TrainConfig) -> str | None:
    """The column that names masks: that of the configuration, with _file_name or without, or a usual one."""
    if not config.masked_loss:
        return None
    asked = config.mask_column
    if asked and f"{asked}_file_name" not in columns:
        return require_column(asked, columns, "--mask_column", table)
    return next((name for name in ((f"{asked}_file_name",) if asked else MASKS) if name in columns), None)


def files_beside(table: str, said: Said) -> dict[str, str]:
    """File -> column of all that a metadata file names beside pictures; what is no name of a file is passed over."""
    place, found = os.path.dirname(table), dict[str, str]()
    for column, cells in said.beside.items():
        for cell in cells.values():
            for name in cell if isinstance(cell, list) else [cell]:
                if isinstance(name, str) and name:
                    found[os.path.normpath(os.path.join(place, name.replace("\\", "/")))] = column
    return found


def _reasons(names: Sequence[str], never: dict[str, str]) -> str:
    return ", ".join(dict.fromkeys(next(why for at, why in never.items() if name.startswith(at)) for name in names))


def read_rows(root: Path, table: str, config: TrainConfig) -> Said:
    """What a metadata file of a folder says. Raises DataError where columns are missing."""
    said = read_table(root / table, config)
    if not said.columns:
        raise DataError(f"{root / table} is empty: it needs one line per picture with file_name and text.")
    if said.names is None:
        raise DataError(f"{table} has no column 'file_name' (its columns: {', '.join(said.columns)}): add it.")
    require_column(config.columns()[1], said.columns, "--caption_column", table)
    return said


def read_table(path: metadata.Readable, config: TrainConfig) -> Said:
    """What a metadata file says, whatever its columns."""
    ours: list[Any] = []
    others: list[Any] = []
    captions = CaptionColumn()
    columns: dict[str, None] = {}
    watched: list[str] = []
    bad: dict[int, str] = {}
    beside: dict[str, dict[int, Any]] = {}
    caption_column = config.columns()[1]
    for row, values in enumerate(metadata.rows(path)):
        texts, foreign = captions_of(values.get(caption_column))
        if foreign:
            bad[row] = f"has a caption in {path.name} that is no text but {foreign}: write it as text."
        elif metadata.REST in values:
            bad[row] = f"has more cells in {path.name} than there are columns: put quotes around text with commas."
        elif not all(map(is_text, texts)):
            bad[row] = HALF
        values.pop(metadata.REST, None)
        captions.append(texts if row not in bad else [])
        ours.append(values.get("file_name"))
        if config.image_column:
            others.append(values.get(config.image_column))
        if not columns.keys() >= values.keys():
            columns |= dict.fromkeys(values)
            watched = [name for name in columns if names_another(name, config)]
        for name in watched:
            if values.get(name):
                beside.setdefault(name, {})[row] = values[name]
    names = others if config.image_column in columns else ours if "file_name" in columns else None
    return Said(names, *captions.finish(), list(columns), bad, beside)


def names_another(column: Any, config: TrainConfig) -> bool:
    """Whether a column names what belongs to a picture, such as its mask."""
    if not isinstance(column, str) or column in (config.image_column, config.columns()[1]):
        return False
    return column.endswith(OF_ANOTHER) or (config.masked_loss and column in (config.mask_column, *MASKS))


def captions_of(value: Any) -> tuple[list[str], str]:
    """The captions in a cell, and what it holds instead where that is no text; a table's empty cell may be NaN."""
    if isinstance(value, float) and value != value:
        return [], ""
    try:
        return alternatives(value), ""
    except TypeError as error:
        return [], OTHER_KINDS.get(str(error), "something else")


def checked_name(root: Path, table: str, number: int, name: Any, folder: Callable[[str], str | None]) -> str:
    """The name in row `number`, relative to `root` and written the short way, if it is an existing file inside.

    `folder` is real_inside for `root`, with a memory: there may be a million names.
    """
    if isinstance(name, str) and PLAIN.fullmatch(name):
        place, (head, _, tail) = table.rpartition("/")[0], name.rpartition("/")
        head = f"{place}/{head}" if place and head else place or head
        if is_plain_file(folder(head), tail):
            return f"{head}/{tail}" if head else tail
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
        if not there and not name.isascii():  # written where marks above letters are kept apart, or where they are not
            for other in {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}:
                if os.path.isfile(root / os.path.dirname(table) / other):
                    return checked_name(root, table, number, other, folder)
        if not there:
            raise missing
    return os.path.relpath(f"{folder(head)}/{tail}", root) if short.startswith("/") else short


def left_after(bad: Collection[int], *columns: pa.Array) -> tuple[pa.Array, ...]:
    """The columns without the rows of these numbers."""
    if not bad:
        return columns
    good = np.delete(np.arange(len(columns[0])), list(bad))
    return tuple(column if column is None else take(column, good) for column in columns)
