"""Captions of pictures in archives: from metadata files inside, or from the file beside each picture.

In: Members, and which of them are pictures. Out: a Listing. Beside a.jpg lie a.txt, a.caption or a.jpg.txt, in small
letters or capitals; failing these a.json, as webdataset and img2dataset write it, with the caption, or a list of them,
under the name of the caption column, "caption", "captions", "text" or "prompt".
"""

import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....config.messages import shown
from ....config.train_config import TrainConfig
from ....system.errors import DataError
from ...captions import alternatives, require_column
from ...decoding import Fault, PictureError, is_text
from .. import metadata
from ..folders.caption_files import MAX_CAPTION
from ..folders.file_names import HALF, left_after, read_table
from ..folders.folders import NO_CAPTIONS
from ..folders.lines import lined, settled
from ..folders.suffixes import CAPTIONS
from ..listing import CaptionColumn, Listing, TextColumn, Texts, positions, take
from .entries import IN_TAR
from .members import Members

SAID = ("caption", "captions", "text", "prompt")
BESIDE = (*CAPTIONS, ".json")
# the end of a picture's name that the caption file's takes the place of: of a.jpg a.txt and a.jpg.txt; webdataset's
# key of a.b.jpg is a, but elsewhere a.txt is another picture's
ENDS = ((r"\.[^./]*$", False), ("$", False), (r"\.[^/]*$", True))
PICTURE, TABLE, FIRST_BESIDE = 0, 1, 2  # what a file is; those beside a picture follow in their order


def listed(members: Members, pictures: np.ndarray, config: TrainConfig) -> Listing:
    """The Listing of these rows of Members. Raises DataError for metadata that cannot be used."""
    tables = members.rows(TABLE).tolist()
    return _by_metadata(members, pictures, tables, config) if tables else _by_files(members, pictures, config)


def _by_files(members: Members, pictures: np.ndarray, config: TrainConfig) -> Listing:
    """Captions from the file beside each picture; a picture without one keeps none."""
    names, notes = take(members.names, pictures), []
    chosen, doubled = _beside(members, pictures, names)
    if doubled:
        notes.append(f"{doubled} pictures have two caption files; the .txt is used.")
    captions, faults = CaptionColumn(), {}
    small = members.spots["size"] <= MAX_CAPTION
    texts = members.read_all(chosen[(chosen >= 0) & small[chosen]])
    for number, row in enumerate(chosen):
        found: list[str] = []
        if row >= 0:
            file = posixpath.basename(members.names[row].as_py())
            try:
                if not small[row]:
                    raise DataError(f"{file} is larger than {MAX_CAPTION:,} bytes: shorten it.")
                found = _read(next(texts), file, config)
            except DataError as error:
                faults[number] = Fault(names[number].as_py(), f"{names[number]}: its caption file {error}")
        captions.append(found)
    names, first, further, pictures = _good(list(faults), names, *captions.finish(), pictures)
    first, further, told = settled(first, config, further)
    notes += told
    if len(first) and first.null_count == len(first):
        notes.append(NO_CAPTIONS)
    used = members.select(pictures)
    return Listing(names, first, used.read, used.stamp, list(faults.values()), notes, further=further)


def _good(bad: list[int], *columns: Any) -> tuple[Any, ...]:
    *texts, rows = columns
    return *left_after(bad, *texts), np.delete(rows, bad)


def _beside(members: Members, pictures: np.ndarray, names: pa.Array) -> tuple[np.ndarray, int]:
    """(N,) the row of the caption file of each picture, -1 where there is none; and how many have two."""
    chosen, texts = np.full(len(pictures), -1), np.zeros(len(pictures), dtype=np.int64)
    in_tar = members.spots["kind"][pictures] == IN_TAR
    for number, suffix in enumerate(BESIDE):
        rows = members.rows(FIRST_BESIDE + number)
        files, at = take(members.names, rows), np.full(len(pictures), -1)
        for end, only_in_tar in ENDS:
            for spelt in (lambda column: column, pc.utf8_lower):
                lacking = np.flatnonzero((at < 0) & (in_tar | (not only_in_tar)))
                if len(rows) and len(lacking):
                    owners = take(names, lacking) if len(lacking) < len(names) else names
                    at[lacking] = positions(spelt(pc.replace_substring_regex(owners, end, suffix)), spelt(files))
        there = (chosen < 0) & (at >= 0)
        chosen[there] = rows[at[there]]
        texts += (at >= 0) & (suffix != ".json")
    return chosen, int((texts > 1).sum())


def _read(data: bytes | PictureError, file: str, config: TrainConfig) -> list[str]:
    """The captions in a file. Raises DataError, a sentence that starts with the file's name."""
    if isinstance(data, PictureError):
        raise DataError(f"{file} is damaged in its archive: pack it, or download the archive, again.") from data
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: save it as UTF-8.") from error
    return _from_json(text, file, config) if file.lower().endswith(".json") else [lined(text)]


def _from_json(text: str, file: str, config: TrainConfig) -> list[str]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: correct it.") from error
    if not isinstance(said, dict):
        return []
    value = next((said[key] for key in (config.columns()[1], *SAID) if said.get(key) is not None), None)
    try:
        found = alternatives(value)
    except TypeError as error:
        raise DataError(f"{file} has a caption that is no text: correct it.") from error
    if not all(map(is_text, found)):
        raise DataError(f"{file} {HALF}")
    return [" ".join(text.split()) for text in found]


def _by_metadata(members: Members, pictures: np.ndarray, tables: list[int], config: TrainConfig) -> Listing:
    """Captions from the metadata files, each of which names pictures as seen from its own folder."""
    _refuse_two(members, tables)
    names, columns, faults, bad = TextColumn(), CaptionColumn(), [], []
    for table in (metadata.Inside(members.names[row].as_py(), members.read(row)) for row in tables):
        for name, captions, sentence in _rows(table, config):
            if sentence:
                faults.append(Fault(name, f"{name} {sentence}"))
                bad.append(len(names))
            names.append(name)
            columns.append(captions)
    given, said = names.finish(), members.names[tables[0]].as_py() + " or another metadata file" * (len(tables) > 1)
    at = positions(given, take(members.names, pictures))
    if (at < 0).any():
        missing = shown(given[int(np.argmax(at < 0))].as_py())
        raise DataError(f"{said} names {missing}, but there is no such picture in the archive: correct the name.")
    _, first, often = np.unique(at, return_index=True, return_counts=True)
    if (often > 1).any():
        name = given[int(first[int(np.argmax(often))])]
        raise DataError(f"{said} names '{name}' more than once: keep one line per picture.")
    unnamed = Texts[str](members.names, np.delete(pictures, at))
    faults += [Fault(name, f"{name} is not named in {said}.") for name in unnamed]
    captions, further, rows = _good(bad, *columns.finish(), pictures[at])
    used = members.select(rows)
    return Listing(used.names, captions, used.read, used.stamp, faults, further=further)


def _refuse_two(members: Members, tables: list[int]) -> None:
    """Raise DataError where one folder has metadata twice."""
    folders: dict[str, str] = {}
    for row in tables:
        folder, name = posixpath.split(members.names[row].as_py())
        if folder in folders:
            place = folder or os.path.basename(members.paths[members.spots["part"][row]])
            raise DataError(f"{place} has both {folders[folder]} and {name}: keep the one that is right.")
        folders[folder] = name


def _rows(table: metadata.Inside, config: TrainConfig) -> Iterator[tuple[str, list[str], str | None]]:
    """Of each row the name of its picture in the archive, its captions, and what is wrong with them."""
    names, first, further, columns, bad = read_table(table, config)
    if not columns:
        raise DataError(f"{table.name} is empty: it needs one line per picture with file_name and text.")
    if names is None:
        raise DataError(f"{table.name} has no column 'file_name' (its columns: {', '.join(columns)}): add it.")
    require_column(config.columns()[1], columns, "--caption_column", table.name)
    folder = posixpath.dirname(table.name)
    others: list[list[str]] = [[]] * len(names) if further is None else further.to_pylist()
    for row, (name, caption, more) in enumerate(zip(names, Texts[str | None](first), others, strict=True)):
        if not isinstance(name, str) or not name.strip() or not is_text(name):
            raise DataError(f"row {row + 1} of {table.name} has no file_name: add it or remove the row.")
        captions = [] if caption is None else [caption, *more]
        yield posixpath.normpath(posixpath.join(folder, name)), captions, bad.get(row)
