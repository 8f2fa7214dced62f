"""Where the files inside a tar archive begin, from its headers: a path in, one Entry a file out.

POSIX.1-2001 (ustar and pax) and GNU's long names. Python's tarfile makes an object with every attribute of each file,
which takes five times as long.
"""

import os
from collections.abc import Iterator
from struct import Struct, error
from typing import BinaryIO

from ....system.errors import DataError
from .entries import IN_TAR, LINK, SAME, Entry

BLOCK = 512
HEADER = Struct("<100s24x12s12x8sc100s6s")  # name, size, checksum, kind, link, magic
MAX_HEADER = 1 << 20  # bytes of a long name or of pax records
PLAIN = (b"0", b"\0", b"7")  # a file, as old programs say it, and one in one piece
HARD, SYMBOLIC, LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL, SPARSE = b"1", b"2", b"L", b"K", b"x", b"g", b"S"
ABOUT_THE_NEXT = (LONG_NAME, LONG_LINK, PAX, PAX_FOR_ALL)
SPARSELY = "is stored as a sparse file, which is not read: pack it without --sparse"


def entries(path: str, file: BinaryIO) -> Iterator[Entry]:
    """The files inside, in their order; folders and devices are none. Raises DataError when it is damaged."""
    whole, place = os.fstat(file.fileno()).st_size, 0
    said: dict[str, str] = {}  # what blocks before a file say of it
    while True:
        file.seek(place)
        head = file.read(BLOCK)
        if head[:1] in (b"", b"\0") and place and not head.strip(b"\0"):
            return
        try:
            name, length, _, kind, link, magic = HEADER.unpack_from(head)
            size = int(said["size"]) if "size" in said else _number(length)
        except (ValueError, IndexError, error) as problem:
            raise damaged(path, place) from problem
        if size < 0 or not (magic == b"ustar\0" or is_header(head)):
            raise damaged(path, place)
        place += BLOCK
        if kind in PLAIN and not said and place + size <= whole:  # as nearly all are
            yield Entry(_whole_name(name, head, magic), place, size, size, IN_TAR)
        elif kind in ABOUT_THE_NEXT:
            if kind != PAX_FOR_ALL:
                said |= _about(kind, file.read(min(size, MAX_HEADER)))
        else:
            known = said.get("path") or _whole_name(name, head, magic)
            if kind in (HARD, SYMBOLIC):
                yield Entry(known, place, 0, 0, SAME if kind == HARD else LINK, why=said.get("linkpath") or _text(link))
            elif kind in (*PLAIN, SPARSE):
                yield Entry(known, place, size, size, IN_TAR, why=_fault(kind, said, place + size > whole))
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


def _number(digits: bytes) -> int:
    """Octal digits, or GNU's binary numbers above 8 GiB. Raises ValueError."""
    if digits[0] & 0x80:
        return int.from_bytes(digits[1:], "big")
    return int(digits.split(b"\0")[0] or b"0", 8)


def _fault(kind: bytes, said: dict[str, str], cut: bool) -> str | None:
    if kind == SPARSE or any(word.startswith("GNU.sparse") for word in said):
        return SPARSELY
    return "is cut off at the archive's end: copy or download that again" if cut else None


def _whole_name(name: bytes, head: bytes, magic: bytes) -> str:
    prefix = _text(head[345:500]) if magic == b"ustar\0" and head[345:346] > b"\0" else ""
    return f"{prefix}/{_text(name)}" if prefix else _text(name)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _about(kind: bytes, data: bytes) -> dict[str, str]:
    """What a block says of the file after it: path, linkpath, size."""
    if kind != PAX:
        return {"path" if kind == LONG_NAME else "linkpath": _text(data)}
    found = {}
    while data and not data.startswith(b"\0"):
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data):
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        found[_text(key)] = value.decode("utf-8", "backslashreplace")
        data = data[int(length) :]
    return found
