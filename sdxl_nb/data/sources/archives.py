"""Pictures in zip and tar archives, read in place: archives in, a Listing out, nothing unpacked or decoded.

A packed folder, webdataset's layout (key.jpg, key.txt, key.json) and img2dataset's; packed_captions.py says where
captions come from. A folder around all the rest is passed over, and of one that holds only splits "train" is used.
Names that lead out of an archive, links, what is packed in a way that is not read, and archives inside archives are
left out as Faults.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...system.errors import DataError
from ..decoding import SUFFIXES, UNREADABLE_SUFFIXES, Fault
from . import metadata, packed_captions, tars, zips
from .entries import LINK, SAME, Entry
from .folders import SPLITS
from .listing import Listing, TextColumn, Texts, ends, flags, led, take
from .members import Members, joined

ARCHIVES = (".zip", ".tar")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}
KEPT = (*SUFFIXES, *packed_captions.BESIDE, *(f"/{name}" for name in metadata.NAMES))
MISSED = (*ARCHIVES, *PACKED, *UNREADABLE_SUFFIXES)


def list_archives(paths: Sequence[str], config: Any) -> Listing:
    """The Listing of the pictures in these archives. Raises DataError when they cannot be used as a data set."""
    faults: list[Fault] = []
    notes: list[str] = []
    each = [_contents(path, f"{os.path.basename(path)}/" * (len(paths) > 1), faults, notes) for path in paths]
    members, twice = joined(each).sorted()
    if twice:
        notes.append(f"{twice} names occur more than once in an archive; the last of each is used.")
    pictures = np.flatnonzero(ends(members.names, SUFFIXES))
    if not len(pictures):
        why = f"; the first of what cannot be used: {faults[0].sentence}" if faults else ": check --train_data_dir."
        raise DataError(f"{' and '.join(paths[:2])} hold{'s' * (len(paths) == 1)} no pictures{why}")
    listing = packed_captions.listed(members, _without_parts(members, pictures, notes), config)
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
        raise DataError(f"{path} is an archive of a kind that is not read: unpack it, or pack it as .zip or plain .tar.")
    return None


def _contents(path: str, prefix: str, faults: list[Fault], notes: list[str]) -> Members:
    """The Members of one archive, their names led by `prefix`."""
    names, columns, links = TextColumn(), [array(kind) for kind in "qqqhQ"], []
    try:
        with open(path, "rb") as file:
            read = _reader(path, file)
            if read is None:
                raise DataError(f"{path} is a file, not a folder: give the folder that holds it with --train_data_dir.")
            for entry in _usable(read(path, file), os.path.basename(path), prefix, faults):
                if entry.kind == SAME:
                    links.append(entry)
                    continue
                names.append(entry.name)
                for column, value in zip(columns, entry[1:6], strict=True):
                    column.append(value)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file.") from error
    part = np.zeros(len(columns[0]), dtype=np.int32)
    members = Members([path], names.finish(), part, *map(np.asarray, columns))
    return _at_root(_with_links(members, links, prefix, faults), prefix, notes)


def _usable(entries: Iterable[Entry], archive: str, prefix: str, faults: list[Fault]) -> Iterator[Entry]:
    """The pictures and what may hold captions; Faults for what somebody may miss. Hidden files are skipped."""
    for entry in entries:
        while entry.name.startswith("./"):
            entry = entry._replace(name=entry.name[2:])
        name = entry.name
        low = name.lower()
        if not low.endswith(KEPT) and not low.endswith(MISSED) and low not in metadata.NAMES:
            continue
        if "." in (name[:1], *(part[:1] for part in name.split("/"))) and ".." not in name.split("/"):
            continue
        if name.startswith("__MACOSX/") or "/__MACOSX/" in name:
            continue
        sentence = _fault(entry, low, archive)
        if sentence:
            faults.append(Fault(prefix + name, f"{prefix + name} {sentence}"))
        else:
            yield entry


def _fault(entry: Entry, low: str, archive: str) -> str | None:
    """What is wrong with a file of an archive, as the rest of a sentence; None when nothing is."""
    name = entry.name
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
    return None


def _with_links(members: Members, links: Sequence[Entry], prefix: str, faults: list[Fault]) -> Members:
    """The Members with hard links too, which a tar archive stores as the name of a file before them."""
    if not links:
        return members
    rows = {name: row for row, name in enumerate(Texts(members.names))}
    targets = [rows.get((link.why or "").removeprefix("./"), -1) for link in links]
    faults += [
        Fault(prefix + link.name, f"{prefix + link.name} is a link to what the archive does not hold: pack the file.")
        for link, row in zip(links, targets, strict=True)
        if row < 0
    ]
    known = [(link.name, row) for link, row in zip(links, targets, strict=True) if row >= 0]
    return members.with_links([name for name, _ in known], np.array([row for _, row in known], dtype=np.int64))


def _at_root(members: Members, prefix: str, notes: list[str]) -> Members:
    """The Members by their names without a folder around all pictures, or of "train" alone beside other splits."""
    from ..repeats import NAMED  # which imports sources

    names = members.names
    while (tops := _tops(names)) and "" not in tops:
        if tops <= SPLITS and "train" in tops:
            rows = np.flatnonzero(flags(pc.starts_with(names, "train/")))
            names, members, inner = take(names, rows), members.select(rows), "train"
        elif len(tops) == 1 and not NAMED.fullmatch(next(iter(tops))):
            (inner,) = tops
        else:
            break
        if len(tops) > 1:
            others = ", ".join(sorted(tops - {"train"}))
            notes.append(f"Of {os.path.basename(members.paths[0])} the folder train is used, {others} is not.")
        inside = flags(pc.starts_with(names, f"{inner}/"))
        rows = np.flatnonzero(inside)
        names, members = pc.utf8_slice_codeunits(take(names, rows), len(inner) + 1), members.select(rows)
    return members.named(led(prefix, names) if prefix else names)


def _tops(names: pa.Array) -> set[str]:
    """The folders that hold pictures and metadata at the top, "" for the top itself; not many more than are splits."""
    found: set[str] = set()
    for name in Texts(names, np.flatnonzero(ends(names, (*SUFFIXES, *metadata.NAMES)))):
        head, mark, _ = name.partition("/")
        found.add(head if mark else "")
        if "" in found or len(found) > len(SPLITS):
            break
    return found


def _without_parts(members: Members, pictures: np.ndarray, notes: list[str]) -> np.ndarray:
    """The pictures without those that webdataset keeps beside one of the same key: key.mask.png beside key.jpg."""
    names = take(members.names, pictures)
    dotted = np.flatnonzero(flags(pc.match_substring_regex(names, r"[^/]\.[^/.]+\.[^/.]+$"))).tolist()
    if not dotted:
        return pictures
    stems = Texts(pc.replace_substring_regex(names, r"\.[^./]*$", ""))
    whole = {stem for stem in stems if "." not in stem.rpartition("/")[2]}
    parts = [row for row in dotted if members.is_in_tar(pictures[row]) and _key(names[row].as_py()) in whole]
    if parts:
        first = names[parts[0]].as_py()
        notes.append(f"{len(parts)} pictures are parts of another with the same key, as {first}, and are not used.")
    return np.delete(pictures, parts)


def _key(name: str) -> str:
    """What webdataset calls the key: all before the first full stop of the file's own name."""
    head, mark, tail = name.rpartition("/")
    return f"{head}{mark}{tail.partition('.')[0]}"
