"""Pictures in zip and tar archives, read in place: archives in, a Listing out, nothing unpacked or decoded.

A packed folder, webdataset's layout (key.jpg, key.txt, key.json) and img2dataset's; packed_captions.py says where
captions come from. A folder around all the rest is passed over, and of one that holds only splits "train" is used.
Names that lead out of an archive, links, what is packed in a way that is not read, and archives inside archives are
left out as Faults.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow.compute as pc

from ....config.train_config import TrainConfig
from ....system.errors import DataError
from ...decoding import SUFFIXES, UNREADABLE_SUFFIXES, Fault
from .. import metadata
from ..folders.layouts import SPLITS
from ..folders.strangers import NUMBERED
from ..folders.suffixes import ARCHIVES, PACKED
from ..listing import Listing, Texts, flags, led, take
from . import packed_captions, tars, zips
from .entries import IN_TAR, LINK, SAME, Entry
from .members import Collector, Members, joined
from .packed_captions import BESIDE, FIRST_BESIDE, PICTURE, TABLE

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
COMPRESSED_ENDS = (".gz", ".bz2", ".xz", ".zst")
Contents = tuple[Members, dict[str, int]]


def ending(name: str) -> str:
    """The end of a name from its last full stop, in small letters; of ".zip" all of it."""
    return name[name.rfind(".") :].lower()


MISSED = -1  # what somebody may miss, beside the kinds of packed_captions
WHAT = dict.fromkeys((ending(name) for name in (*ARCHIVES, *PACKED, *UNREADABLE_SUFFIXES)), MISSED)
WHAT |= dict.fromkeys(map(ending, metadata.NAMES), TABLE)
WHAT |= dict.fromkeys(SUFFIXES, PICTURE) | {suffix: FIRST_BESIDE + at for at, suffix in enumerate(BESIDE)}
ODD = re.compile(r"^[./]|/\.|__MACOSX/|\.\.|^.:|\0")  # names to be looked at twice


def list_archives(paths: Sequence[str], config: TrainConfig) -> Listing:
    """The Listing of the pictures in these archives. Raises DataError when they cannot be used as a data set."""
    faults: list[Fault] = []
    notes: list[str] = []
    prefixes = [f"{os.path.basename(path)}/" * (len(paths) > 1) for path in paths]
    found = zip(paths, prefixes, strict=True)
    members, twice = joined(
        [_at_root(_members(path, prefix, faults, notes), prefix, notes) for path, prefix in found]
    ).sorted()
    if twice:
        notes.append(f"{twice} names occur more than once in an archive; the last of each is used.")
    pictures = members.rows(PICTURE)
    if not len(pictures):
        why = f"; the first of what cannot be used: {faults[0].sentence}" if faults else ": check --train_data_dir."
        raise DataError(f"{' and '.join(paths[:2])} hold{'s' * (len(paths) == 1)} no pictures{why}")
    whole, parts = _without_parts(members, pictures, notes)
    listing = packed_captions.listed(members, whole, parts, config)
    listing.faults += faults
    listing.notes = [*notes, *listing.notes]
    return listing


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive, one that cannot be read too: by its first bytes, or by its name."""
    try:
        with open(path, "rb") as file:
            return _reader(os.fspath(path), file) is not None
    except DataError:
        return True
    except OSError:
        return False


def _reader(path: str, file: BinaryIO) -> Callable[[str, BinaryIO], Iterator[Entry]] | None:
    """What lists the files in this archive; None when it is none. Raises DataError for one that cannot be read."""
    head, low = file.read(tars.BLOCK), path.lower()
    if head.startswith((b"PK\3\4", b"PK\5\6")) or low.endswith(".zip"):
        return zips.entries
    program = next((program for mark, program in COMPRESSED.items() if head.startswith(mark)), None)
    if program and low.endswith((*ARCHIVES, *PACKED)):
        raise DataError(
            f"{path} is compressed as a whole ({program}), so that no picture in it can be read alone: decompress it "
            "to a plain .tar, or unpack it."
        )
    if tars.is_header(head) or low.endswith(".tar"):
        return tars.entries
    if low.endswith(PACKED):
        raise DataError(
            f"{path} is an archive of a kind that is not read: unpack it, or pack it as .zip or plain .tar."
        )
    return None


def contents(path: str) -> Contents:
    """The files of an archive, and the row of each by its name in it. Raises DataError."""
    members = _members(path, "", [], [])
    return members, {name: row for row, name in enumerate(Texts[str](members.names))}


def _members(path: str, prefix: str, faults: list[Fault], notes: list[str]) -> Members:
    """The Members of one archive, in its order and by its names; Faults whose names are led by `prefix`."""
    found, links = Collector(path), []
    unread: list[str] = []
    try:
        with open(path, "rb") as file:
            read = _reader(path, file)
            if read is None:
                raise DataError(f"{path} is a file, not a folder: give the folder that holds it with --train_data_dir.")
            for entry, what in _usable(read(path, file), os.path.basename(path), prefix, faults, unread):
                if entry.kind == SAME:
                    links.append(entry)
                else:
                    found.add(entry, what)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file.") from error
    notes += unread[:2]
    if len(unread) > 2:
        notes.append(f"... and {len(unread) - 2} more files of captions in {os.path.basename(path)} cannot be read.")
    return _with_links(found.finish(), links, prefix, faults)


def _usable(
    entries: Iterable[Entry], archive: str, prefix: str, faults: list[Fault], notes: list[str]
) -> Iterator[tuple[Entry, int]]:
    """The pictures and what may hold captions, and what each is; Faults and notes for what somebody may miss."""
    for entry in entries:
        name = entry.name
        what = WHAT.get(name[name.rfind(".") :].lower())  # `ending`, without 200,000 calls
        if what is None or (what == TABLE and name.rpartition("/")[2] not in metadata.NAMES):
            continue
        odd = ODD.search(name)
        if odd:
            name = _short(name)
            if _is_hidden(name):
                continue
            entry = entry._replace(name=name)
        doubted = odd or what == MISSED or entry.kind < IN_TAR or entry.why
        sentence = _fault(entry, archive) if doubted else None
        if sentence is None:
            yield entry, what
        elif what in (PICTURE, MISSED):
            faults.append(Fault(prefix + name, f"{prefix + name} {sentence}"))
        else:
            notes.append(f"{prefix + name} {sentence}")


def _short(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    return name


def _is_hidden(name: str) -> bool:
    """Whether the file, or a folder that it lies in, is hidden, or what macOS adds to archives."""
    parts = name.split("/")
    return "__MACOSX" in parts or (".." not in parts and any(part.startswith(".") for part in parts))


def _fault(entry: Entry, archive: str) -> str | None:
    """What is wrong with a file of an archive, as the rest of a sentence; None when nothing is."""
    name, low = entry.name, entry.name.lower()
    if name.startswith("/") or name[1:2] == ":" or "\0" in name or (".." in name and ".." in name.split("/")):
        return f"leads out of {archive}: pack it under a name without '..' and without a root."
    if entry.kind == LINK:
        return "is a link, which is not followed in an archive: pack the file itself."
    if entry.kind != SAME and entry.why:
        return f"{entry.why}."
    if low.endswith((*ARCHIVES, *PACKED)):
        return f"is an archive inside {archive}, which is not read: unpack it."
    if low.endswith(UNREADABLE_SUFFIXES):
        return "is in a format that cannot be read: save it as JPEG, PNG or WebP."
    return "is compressed once more, which is not read: decompress it." if low.endswith(COMPRESSED_ENDS) else None


def _with_links(members: Members, links: Sequence[Entry], prefix: str, faults: list[Fault]) -> Members:
    """The Members with hard links too, which a tar archive stores as the name of a file before them."""
    if not links:
        return members
    rows = {name: row for row, name in enumerate(Texts[str](members.names))}
    targets = [rows.get(_short(link.why or ""), -1) for link in links]
    faults += [
        Fault(prefix + link.name, f"{prefix + link.name} is a link to what the archive does not hold: pack the file.")
        for link, row in zip(links, targets, strict=True)
        if row < 0
    ]
    known = [(link.name, row) for link, row in zip(links, targets, strict=True) if row >= 0]
    return members.with_links([name for name, _ in known], [row for _, row in known])


def _at_root(members: Members, prefix: str, notes: list[str]) -> Members:
    """The Members by their names without a folder around all pictures, or of "train" alone beside other splits."""
    while (tops := _tops(members)) and "" not in tops:
        if tops <= SPLITS and "train" in tops:
            inner = "train"
        elif len(tops) == 1 and not NUMBERED.fullmatch(next(iter(tops))):
            (inner,) = tops
        else:
            break
        if len(tops) > 1:
            others = ", ".join(sorted(tops - {"train"}))
            notes.append(f"Of {os.path.basename(members.paths[0])} the folder train is used, {others} is not.")
        members = members.select(np.flatnonzero(flags(pc.starts_with(members.names, f"{inner}/"))))
        members = members.named(pc.utf8_slice_codeunits(members.names, len(inner) + 1))
    return members.named(led(prefix, members.names)) if prefix else members


def _tops(members: Members) -> set[str]:
    """The folders that hold pictures and metadata at the top, "" for the top itself; not many more than are splits."""
    found: set[str] = set()
    rows = np.concatenate([members.rows(PICTURE), members.rows(TABLE)])
    for name in Texts[str](members.names, rows):
        head, mark, _ = name.partition("/")
        found.add(head if mark else "")
        if "" in found or len(found) > len(SPLITS):
            break
    return found


def _without_parts(members: Members, pictures: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures, and apart those that webdataset keeps beside one of the same key: key.mask.png beside key.jpg."""
    names = take(members.names, pictures)
    dotted = np.flatnonzero(flags(pc.match_substring_regex(names, r"[^/]\.[^/.]+\.[^/.]+$"))).tolist()
    if not dotted:
        return pictures, pictures[:0]
    stems = Texts[str](pc.replace_substring_regex(names, r"\.[^./]*$", ""))
    whole = {stem for stem in stems if "." not in stem.rpartition("/")[2]}
    in_tar = members.spots["kind"][pictures] == IN_TAR
    parts = [row for row in dotted if in_tar[row] and _key(names[row].as_py()) in whole]
    if parts:
        first = names[parts[0]].as_py()
        told = f"{len(parts)} pictures are parts of another with the same key, as {first}"
        notes.append(f"{told}, and are not trained on.")
    return np.delete(pictures, parts), pictures[parts]


def _key(name: str) -> str:
    """What webdataset calls the key: all before the first full stop of the file's own name."""
    head, mark, tail = name.rpartition("/")
    return f"{head}{mark}{tail.partition('.')[0]}"
