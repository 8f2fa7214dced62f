"""Captions and masks of pictures in archives: from metadata files inside, or from the files beside each picture.

In: Members, and which of them are pictures, or parts of others. Out: a Listing. Beside a.jpg lie a.txt, a.caption or
a.jpg.txt, in small letters or capitals; failing these a.json, as webdataset and img2dataset write it, with the caption,
or a list of them, under the name of the caption column, "caption", "captions", "text" or "prompt". companions.py says
what is a mask.
"""

import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

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
from ..folders.file_names import HALF, Said, files_beside, left_after, masks_of, read_table
from ..folders.folders import NO_CAPTIONS
from ..folders.leavings import leftover_captions
from ..folders.lines import lined, settled
from ..folders.suffixes import CAPTIONS
from ..listing import CaptionColumn, Listing, TextColumn, Texts, positions, take
from . import companions
from .entries import IN_TAR
from .members import Members

SAID = ("caption", "captions", "text", "prompt")
BESIDE = (*CAPTIONS, ".json")
# the end of a picture's name that the caption file's takes the place of: of a.jpg a.txt and a.jpg.txt; webdataset's
# key of a.b.jpg is a, but elsewhere a.txt is another picture's
ENDS = ((r"\.[^./]*$", False), ("$", False), (r"\.[^/]*$", True))
# as they are, in small letters, and with marks above letters apart or not: macOS takes them apart
SPELLINGS = (
    lambda column: column,
    pc.utf8_lower,
    lambda column: column if all_ascii(column) else pc.utf8_normalize(pc.utf8_lower(column), "NFC"),
)
PICTURE, TABLE, FIRST_BESIDE = 0, 1, 2  # what a file is; those beside a picture follow in their order


class Masks(NamedTuple):
    """The masks of N pictures: `read` gives that of a row, still encoded, or None."""

    members: Members
    rows: np.ndarray  # in `members`, -1 where there is none

    @classmethod
    def of(cls, members: Members, names: pa.Array, masks: dict[str, str]) -> "Masks | None":
        """Those of pictures of these names; `masks` are names by picture."""
        if not masks:
            return None
        known = set(masks.values())
        at = {name: row for row, name in enumerate(Texts[str](members.names)) if name in known}
        return cls(members, np.array([at.get(masks.get(name, ""), -1) for name in Texts[str](names)], np.int64))

    def read(self, row: int) -> bytes | None:
        at = int(self.rows[row])
        return None if at < 0 else self.members.read(at)


def listed(members: Members, pictures: np.ndarray, parts: np.ndarray, config: TrainConfig) -> Listing:
    """The Listing of these rows of Members. Raises DataError for metadata that cannot be used."""
    tables = members.rows(TABLE).tolist()
    if tables:
        listing, masks = _by_metadata(members, pictures, parts, tables, config)
    else:
        listing, masks = _by_files(members, pictures, parts, config)
    found = Masks.of(members, listing.names, masks)
    listing.read_mask = found.read if found else None
    return listing


def _by_files(
    members: Members, pictures: np.ndarray, parts: np.ndarray, config: TrainConfig
) -> tuple[Listing, dict[str, str]]:
    """Captions from the file beside each picture; a picture without one keeps none. And the masks by picture."""
    names, notes = take(members.names, pictures), list[str]()
    chosen, doubled, orphans = _beside(members, pictures, names)
    if doubled:
        notes.append(f"{doubled} pictures have two caption files; the .txt is used.")
    notes += leftover_captions(Texts[str](members.names, orphans))
    kept, masks, told = companions.sort_out(names, chosen >= 0, take(members.names, parts))
    notes += told
    if not kept.all():
        names, chosen, pictures = take(names, np.flatnonzero(kept)), chosen[kept], pictures[kept]
    captions, faults = CaptionColumn(), {}
    small = members.spots["size"][chosen] <= MAX_CAPTION
    texts = members.read_all(chosen[(chosen >= 0) & small])
    for number, (row, fits) in enumerate(zip(chosen, small, strict=True)):
        found: list[str] = []
        if row >= 0:
            file = posixpath.basename(members.names[row].as_py())
            try:
                if not fits:
                    raise DataError(f"{file} is larger than {MAX_CAPTION:,} bytes: shorten it.")
                found = _read(next(texts), file, config)
            except DataError as error:
                faults[number] = Fault(names[number].as_py(), f"{names[number]}: its caption file {error}")
        captions.append(found)
    names, first, further, pictures = _good(list(faults), names, *captions.finish(), pictures)
    first, further, read = settled(first, config, further)
    notes += read
    if len(first) and first.null_count == len(first):
        notes.append(NO_CAPTIONS)
    used = members.select(pictures)
    return Listing(names, first, used.read, used.stamp, list(faults.values()), notes, further=further), masks


def _good(bad: list[int], *columns: Any) -> tuple[Any, ...]:
    *texts, rows = columns
    return *left_after(bad, *texts), np.delete(rows, bad)


def _beside(members: Members, pictures: np.ndarray, names: pa.Array) -> tuple[np.ndarray, int, np.ndarray]:
    """(N,) the row of the caption file of each picture, -1 for none; how many have two; the texts of no picture."""
    chosen, texts = np.full(len(pictures), -1), np.zeros(len(pictures), dtype=np.int64)
    orphans: list[np.ndarray] = []
    in_tar = members.spots["kind"][pictures] == IN_TAR
    for number, suffix in enumerate(BESIDE):
        rows = members.rows(FIRST_BESIDE + number)
        files, at = take(members.names, rows), np.full(len(pictures), -1)
        for end, only_in_tar in ENDS:
            for spelt in SPELLINGS:
                lacking = np.flatnonzero((at < 0) & (in_tar | (not only_in_tar)))
                if len(rows) and len(lacking):
                    owners = take(names, lacking) if len(lacking) < len(names) else names
                    at[lacking] = positions(spelt(pc.replace_substring_regex(owners, end, suffix)), spelt(files))
        there = (chosen < 0) & (at >= 0)
        chosen[there] = rows[at[there]]
        if suffix != ".json":  # which is about more than captions
            texts += at >= 0
            owned = np.zeros(len(rows), bool)
            owned[at[at >= 0]] = True
            orphans.append(rows[~owned])
    return chosen, int((texts > 1).sum()), np.concatenate(orphans)


def all_ascii(column: pa.Array) -> bool:
    """Whether there is no letter beyond ASCII in a column."""
    return not len(column) or bool(pc.min(pc.string_is_ascii(column)).as_py())


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


def _by_metadata(
    members: Members, pictures: np.ndarray, parts: np.ndarray, tables: list[int], config: TrainConfig
) -> tuple[Listing, dict[str, str]]:
    """Captions and masks from the metadata files, each of which names files as seen from its own folder."""
    _refuse_two(members, tables)
    names, columns, faults, bad = TextColumn(), CaptionColumn(), [], []
    beside, masks = dict[str, str](), dict[str, str]()
    for table in (metadata.Inside(members.names[row].as_py(), members.read(row)) for row in tables):
        rows = read_table(table, config)
        beside |= files_beside(table.name, rows)
        for name, captions, sentence, mask in _rows(table, rows, config):
            if mask:
                masks[name] = mask
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
    _refuse_missing(members, masks, said)
    every = take(members.names, pictures)
    captioned = np.zeros(len(pictures), bool)
    captioned[at] = True
    kept, found, notes = companions.sort_out(every, captioned, take(members.names, parts))
    unnamed = Texts[str](every, np.flatnonzero(kept & ~captioned))
    faults += [Fault(name, f"{name} is not named in {said}.") for name in unnamed if name not in beside]
    captions, further, rows = _good(bad, *columns.finish(), pictures[at])
    used = members.select(rows)
    return Listing(used.names, captions, used.read, used.stamp, faults, [*notes], further=further), found | masks


def _refuse_missing(members: Members, masks: dict[str, str], said: str) -> None:
    """Raise DataError where a mask that is named is not in the archive."""
    there = set(Texts[str](members.names)) if masks else set()
    missing = next((mask for mask in masks.values() if mask not in there), None)
    if missing is not None:
        raise DataError(f"{said} names {shown(missing)}, but there is no such mask in the archive: correct the name.")


def _refuse_two(members: Members, tables: list[int]) -> None:
    """Raise DataError where one folder has metadata twice."""
    folders: dict[str, str] = {}
    for row in tables:
        folder, name = posixpath.split(members.names[row].as_py())
        if folder in folders:
            place = folder or os.path.basename(members.paths[members.spots["part"][row]])
            raise DataError(f"{place} has both {folders[folder]} and {name}: keep the one that is right.")
        folders[folder] = name


def _rows(
    table: metadata.Inside, rows: Said, config: TrainConfig
) -> Iterator[tuple[str, list[str], str | None, str | None]]:
    """Of each row the name of its picture in the archive, its captions, what is wrong with them, and its mask."""
    if not rows.columns:
        raise DataError(f"{table.name} is empty: it needs one line per picture with file_name and text.")
    if rows.names is None:
        raise DataError(f"{table.name} has no column 'file_name' (its columns: {', '.join(rows.columns)}): add it.")
    require_column(config.columns()[1], rows.columns, "--caption_column", table.name)
    folder, masks = posixpath.dirname(table.name), masks_of(table.name, rows, config)
    others: list[list[str]] = [[]] * len(rows.names) if rows.further is None else rows.further.to_pylist()
    for row, (name, caption, more) in enumerate(zip(rows.names, Texts[str | None](rows.captions), others, strict=True)):
        if not isinstance(name, str) or not name.strip() or not is_text(name):
            raise DataError(f"row {row + 1} of {table.name} has no file_name: add it or remove the row.")
        captions = [] if caption is None else [caption, *more]
        mask = _within(folder, masks[row]) if row in masks else None
        yield _within(folder, name), captions, rows.bad.get(row), mask


def _within(folder: str, name: str) -> str:
    """A name that a table in this folder of an archive tells, as the archive has it."""
    return posixpath.normpath(posixpath.join(folder, name))
