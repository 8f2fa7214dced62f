"""Where the files inside a tar archive begin, from its headers: a path in, one Entry a file out.

POSIX.1-2001 (ustar and pax) and GNU's long names. Python's tarfile takes several times as long for the same, because it
makes an object with every attribute of each file.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

from ...system.errors import DataError
from .entries import IN_TAR, LINK, SAME, Entry

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of a long name or of pax records
FILES = b"0\0007"  # a file, as old programs say it, and one in one piece
HARD, SYMBOLIC, LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL, SPARSE = b"1", b"2", b"L", b"K", b"x", b"g", b"S"


def entries(path: str, file: BinaryIO) -> Iterator[Entry]:
    """The files inside, in their order; folders and devices are none. Raises DataError when it is damaged."""
    whole = os.fstat(file.fileno()).st_size
    place, said = 0, {}
    while True:
        file.seek(place)
        head = file.read(BLOCK)
        if len(head) < BLOCK or not head[0]:
            if head.strip(b"\0") or not place:
                raise damaged(path, place)
            return
        size = _size(head, said)
        if size is None:
            raise damaged(path, place)
        kind = head[156:157]
        place += BLOCK
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL):
            said |= _about(kind, file.read(min(size, MAX_HEADER))) if kind != PAX_FOR_ALL else {}
        else:
            yield from _entry(head, kind, place, size, said, whole)
            said = {}
        if kind not in (HARD, SYMBOLIC):
            place += -(-size // BLOCK) * BLOCK


def damaged(path: str, place: int) -> DataError:
    where = f"at byte {place:,}" if place else "at its start"
    return DataError(f"{path} is damaged or no tar archive ({where}): copy or download it again.")


def is_header(head: bytes) -> bool:
    """Whether a block's checksum is right: all bytes added up, those of the checksum itself as blanks."""
    try:
        return len(head) == BLOCK and sum(head) - sum(head[148:156]) + 256 == _number(head[148:156])
    except ValueError:
        return False


def _size(head: bytes, said: dict[str, str]) -> int | None:
    """Bytes of a file by its header, or by what was said before; None when it is no header."""
    try:
        right = is_header(head)
        size = int(said["size"]) if "size" in said else _number(head[124:136])
    except ValueError:
        return None
    return size if right and size >= 0 else None


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary numbers above 8 GiB. Raises ValueError."""
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _entry(head: bytes, kind: bytes, place: int, size: int, said: dict[str, str], whole: int) -> Iterator[Entry]:
    name = said.get("path") or _name(head)
    if kind in (HARD, SYMBOLIC):
        other = said.get("linkpath") or _text(head[157:257])
        yield Entry(name, place, 0, 0, SAME if kind == HARD else LINK, why=other)
    elif kind in FILES and not name.endswith("/"):
        why = "is cut off at the archive's end: copy or download that again" if place + size > whole else None
        if any(word.startswith("GNU.sparse") for word in said):
            why = "is stored as a sparse file, which is not read: pack it without --sparse"
        yield Entry(name, place, size, size, IN_TAR, why=why)
    elif kind == SPARSE:
        yield Entry(name, place, size, size, IN_TAR, why="is stored as a sparse file, which is not read: pack it without --sparse")


def _name(head: bytes) -> str:
    name = _text(head[:100])
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _about(kind: bytes, data: bytes) -> dict[str, str]:
    """What the blocks before a file's own say of it: path, linkpath, size."""
    if kind != PAX:
        return {"path" if kind == LONG_NAME else "linkpath": _text(data)}
    found = {}
    while data and not data.startswith(b"\0"):
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or not len(length) < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[_text(key)] = value.decode("utf-8", "backslashreplace")
        data = data[int(length) :]
    return found
