"""A local folder of pictures and captions: a path in, a Listing out, nothing decoded.

Captions come from metadata.jsonl, .csv or .parquet (columns file_name and text) or from a .txt or .caption file
beside each picture. Of a folder that holds only splits (train, test, ...), "train" is used. Everything that is read
lies inside the folder: names and links that lead out of it are refused.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..captions import alternatives, require_column
from ..decoding import SUFFIXES, UNREADABLE_SUFFIXES, Fault, is_text, printable
from . import metadata
from .found_captions import with_json
from .lines import lined, settled
from .listing import CaptionColumn, Files, Listing, TextColumn, Texts, take, text_column

SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION = 1_000_000  # bytes of one caption's file
SHORT = 4096  # bytes that hold nearly every caption: to have the room for the largest costs more than to read one
NO_CAPTIONS = "no metadata.jsonl, no metadata.csv and no .txt beside the pictures"
HALF = "has a caption with half a character in it (a lone surrogate): correct it."


def list_folder(folder: Path, config: TrainConfig) -> Listing:
    """The Listing of a folder of picture files. Raises DataError when it cannot be used as a data set."""
    root = training_folder(folder)
    pictures, captions, tables, unnamable, unreadable = sort_files(walk(root))
    if len(tables) > 1:
        raise DataError(f"{root} has both {' and '.join(tables)}: keep the one that is right.")
    if not len(pictures) and not tables and unnamable:
        raise DataError(f"None of the pictures in {root} can be used; the first: {unnamable[0].sentence}")
    if not len(pictures) and not tables:
        raise DataError(f"{root} holds no pictures ({', '.join(SUFFIXES)}): check --train_data_dir.")
    if tables:
        listing = with_metadata(root, tables[0], pictures, config)
    else:
        listing = with_caption_files(root, captions, pictures, config)
    listing.faults += unnamable + unreadable
    return with_json(listing, root, config)


def sort_files(names: Iterable[str]) -> tuple[pa.Array, pa.Array, list[str], list[Fault], list[Fault]]:
    """Columns of pictures and of caption files, metadata files, and the Faults of what cannot be used (two lists)."""
    pictures, captions = TextColumn(), TextColumn()
    tables: list[str] = []
    unnamable: list[Fault] = []
    unreadable: list[Fault] = []
    for name in names:
        ending = name.lower()
        if not is_text(name):
            if ending.endswith(SUFFIXES):
                seen = printable(name)
                unnamable.append(Fault(seen, f"{seen} has a name that is not UTF-8: rename it."))
        elif ending.endswith(SUFFIXES):
            pictures.append(name)
        elif name.endswith(CAPTION_SUFFIXES):
            captions.append(name)
        elif name in metadata.NAMES:
            tables.append(name)
        elif ending.endswith(UNREADABLE_SUFFIXES):
            sentence = f"{name} is in a format that cannot be read: save it as JPEG, PNG or WebP."
            unreadable.append(Fault(name, sentence))
    return pictures.finish(), captions.finish(), sorted(tables, key=metadata.NAMES.index), unnamable, unreadable


def training_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder that holds the training pictures: itself, or "train" in it when the rest are other splits."""
    root, below = real(folder), set()
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name in metadata.NAMES or entry.name.lower().endswith(SUFFIXES):
                return root
            if is_folder(entry) and not entry.name.startswith("."):
                below.add(entry.name)
    return inside(root, "train", "the folder") if "train" in below and below <= SPLITS else root


def walk(root: Path, below: str = "") -> Iterator[str]:
    """Names relative to `root` of all files below it, sorted; hidden ones are skipped. Links must stay inside."""
    found = []  # a folder's name ends with "/", so that sorting here sorts the whole names
    try:
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_file(follow_symlinks=False):  # as nearly all are
                    found.append(entry.name)
                    continue
                if entry.is_symlink():
                    inside(root, below + entry.name, "the folder")
                if not entry.is_symlink() and not entry.is_dir() and not entry.is_file():  # a pipe would wait for ever
                    raise DataError(f"{below + entry.name} in {root} is neither a file nor a folder: remove it.")
                if not is_folder(entry):
                    found.append(entry.name)
                elif not entry.is_symlink() and not entry.name.startswith("__MACOSX"):
                    found.append(entry.name + "/")
    except OSError as error:
        raise unlistable(error) from error
    found.sort()
    for name in found:
        if name.endswith("/"):
            yield from walk(root, below + name)
        else:
            yield below + name


def scan(folder: str | os.PathLike[str]) -> Iterator[str]:
    """The names of all files below a folder, in small letters and no order, one by one: there may be a million."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from scan(entry.path)
                else:
                    yield entry.name.lower()
    except OSError as error:
        raise unlistable(error) from error


def unlistable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be listed ({error.strerror}): check its permissions.")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a scanned name is a folder, or a link to one; a link to itself is none, and reading it fails."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def real(path: str | os.PathLike[str]) -> Path:
    """The path without links; one that leads to itself stays, and reading it fails (Path.resolve would raise here)."""
    return Path(os.path.realpath(path))


def inside(root: Path, name: str, told_by: str) -> Path:
    """The real path of `name` in `root`. Raises DataError when it leads elsewhere, by "..", a root or a link."""
    path = real(root / name)
    if not path.is_relative_to(root):
        raise DataError(
            f"{told_by} names '{printable(name)}', which leads out of {root}: copy the file into the folder."
        )
    return path


def with_metadata(root: Path, table: str, pictures: pa.Array, config: TrainConfig) -> Listing:
    """Captions from a metadata file. Pictures it does not name are faults, names without a file are errors."""
    told, captions, further, columns, bad = read_table(root / table, config)
    if not columns:
        raise DataError(f"{root / table} is empty: it needs one line per picture with file_name and text.")
    if told is None:
        raise DataError(f"{table} has no column 'file_name' (its columns: {', '.join(columns)}): add it.")
    require_column(config.columns()[1], columns, "--caption_column", table)
    named = dict.fromkeys(Texts[str](pictures), False)  # whether a row has named it
    folder = lru_cache(maxsize=100_000)(partial(real_inside, root))
    column = TextColumn()
    for row, given in enumerate(told):
        name = checked_name(root, table, row + 1, given, folder)
        if named.get(name):
            raise DataError(f"{table} names '{name}' more than once: keep one line per picture.")
        named[name], told[row] = True, None
        column.append(name)
    names = column.finish()
    faults = [Fault(name, f"{name} is not named in {table}.") for name, seen in named.items() if not seen]
    faults += [Fault(names[row].as_py(), f"{names[row]} {sentence}") for row, sentence in bad.items()]
    names, captions, further = left_after(bad, names, captions, further)
    files = Files(str(root), names)
    return Listing(names, captions, files.read, files.stamp, faults, further=further)


def read_table(
    path: metadata.Readable, config: TrainConfig
) -> tuple[list[Any] | None, pa.Array, pa.Array | None, list[str], dict[int, str]]:
    """(names as given or None, captions, further ones, all columns, row -> what is wrong with its caption)."""
    ours: list[Any] = []
    others: list[Any] = []
    captions = CaptionColumn()
    columns: dict[str, None] = {}
    bad: dict[int, str] = {}
    caption_column = config.columns()[1]
    for row, values in enumerate(metadata.rows(path)):
        texts = captions_of(values.get(caption_column))
        if metadata.REST in values:
            bad[row] = f"has more cells in {path.name} than there are columns: put quotes around text with commas."
            del values[metadata.REST]
        elif not all(map(is_text, texts)):
            bad[row] = HALF
        captions.append(texts if row not in bad else [])
        ours.append(values.get("file_name"))
        if config.image_column:
            others.append(values.get(config.image_column))
        if not columns.keys() >= values.keys():
            columns |= dict.fromkeys(values)
    names = others if config.image_column in columns else ours if "file_name" in columns else None
    return names, *captions.finish(), list(columns), bad


def captions_of(value: Any) -> list[str]:
    """The captions in a cell; what is no text counts as missing."""
    try:
        return alternatives(value)
    except TypeError:
        return []


def checked_name(root: Path, table: str, number: int, name: Any, folder: Callable[[str], str | None]) -> str:
    """The file_name of row `number` if it is an existing file inside `root`, written the short way.

    `folder` is real_inside for `root`, with a memory: there may be a million names.
    """
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"row {number} of {table} has no file_name: add it or remove the row.")
    if not is_text(name) or "\0" in name:
        raise DataError(f"{table} names {shown(name)}, but there is no such file in {root}: correct the name.")
    short = os.path.normpath(name)
    head, _, tail = short.rpartition("/")
    if is_plain_file(folder(head), tail):
        return short
    if not os.path.isfile(inside(root, name, table)):  # os.path takes a name of any length
        raise DataError(f"{table} names {shown(name)}, but there is no such file in {root}: correct the name.")
    return Path(short).as_posix()


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


def with_caption_files(root: Path, captions: pa.Array, pictures: pa.Array, config: TrainConfig) -> Listing:
    """Captions from a .txt or .caption file beside each picture; a picture without one keeps the caption None."""
    stems = text_column(os.path.splitext(name)[0] for name in Texts[str](pictures))
    there = [pc.is_in(with_suffix(stems, suffix), captions) for suffix in CAPTION_SUFFIXES]
    column = TextColumn()
    faults: list[Fault] = []
    notes: list[str] = []
    bad: list[int] = []
    for row, (stem, *beside) in enumerate(zip(Texts[str](stems), *map(Texts, there), strict=True)):
        found = [stem + suffix for suffix, is_there in zip(CAPTION_SUFFIXES, beside, strict=True) if is_there]
        if len(found) > 1:
            notes.append(f"{pictures[row]} has two caption files; {found[0]} is used.")
        try:
            column.append(lined(read_text(root, found[0])) if found else None)
        except DataError as error:
            faults.append(Fault(pictures[row].as_py(), f"{pictures[row]}: its caption file {error}"))
            column.append(None)
            bad.append(row)
    names, texts = left_after(bad, pictures, column.finish())
    texts, further, told = settled(texts, config)
    notes += told
    if len(texts) and texts.null_count == len(texts):
        notes.append(NO_CAPTIONS)
    files = Files(str(root), names)
    return Listing(names, texts, files.read, files.stamp, faults, notes, further=further)


def with_suffix(stems: pa.Array, suffix: str) -> pa.Array:
    return pc.binary_join_element_wise(stems, *text_column([suffix, ""]))


def left_after(bad: Collection[int], *columns: pa.Array) -> tuple[pa.Array, ...]:
    """The columns without the rows of these numbers."""
    if not bad:
        return columns
    good = np.delete(np.arange(len(columns[0])), list(bad))
    return tuple(column if column is None else take(column, good) for column in columns)


def read_text(root: Path, name: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    try:
        file = os.open(f"{root}/{name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half the calls of open(): 100,000
        try:
            text = os.read(file, SHORT)
            if len(text) == SHORT:
                text += os.read(file, MAX_CAPTION + 1 - SHORT)
        finally:
            os.close(file)
        if len(text) > MAX_CAPTION:
            raise DataError(f"{os.path.basename(name)} is larger than {MAX_CAPTION:,} bytes: shorten it.")
        return text.decode().removeprefix("\ufeff")  # a third of the time of utf-8-sig
    except UnicodeDecodeError as error:
        raise DataError(f"{os.path.basename(name)} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:  # a link that leads nowhere, a file of somebody else
        raise DataError(f"{os.path.basename(name)} cannot be read ({error.strerror}): correct or remove it.") from error
