"""Where the files inside a zip archive begin, from its central directory: a path in, one Entry a file out.

APPNOTE.TXT 6.3 (PKWARE) with zip64. Python's zipfile makes an object of each file, 117 MB for 200,000 where this takes
15; it would also have to be opened anew in every process.
"""

import os
import stat
from collections.abc import Iterator
from struct import Struct, unpack
from typing import BinaryIO

from ....system.errors import DataError
from .entries import LINK, Entry

STORED, DEFLATED = 0, 8
SHORTENED, BZIP2, LZMA, ZSTD, XZ = 9, 12, 14, 93, 95
OTHERS = {SHORTENED: "Deflate64", BZIP2: "bzip2", LZMA: "LZMA", ZSTD: "Zstandard", XZ: "xz"}
END, END64, LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
LAST = Struct("<4s4H2LH")  # end of central directory: signature, disks, entries, its size and place, comment's length
LAST64 = Struct("<4sQ2H2L4Q")
CENTRAL = Struct("<4s6H3L5H2L")
LOCAL = Struct("<4s5H3L2H")
LOCATED = Struct("<4sLQL")
UTF8, ENCRYPTED = 0x800, 0x1
COMMENT = 1 << 16  # bytes of the longest comment behind all
PORTION, LONGEST = 1 << 20, 46 + 3 * (1 << 16)  # bytes of the directory in memory at once, and of its longest entry


def entries(path: str, file: BinaryIO) -> Iterator[Entry]:
    """The files inside, in the order of the directory. Raises DataError when it is damaged."""
    start, rest, shift = _directory(path, file)
    data, at, used, whole = b"", 0, 0, os.fstat(file.fileno()).st_size
    file.seek(start)
    while rest or at < len(data):
        if len(data) - at < LONGEST and rest:
            portion = file.read(min(rest, PORTION))
            data, at, rest = data[at:] + portion, 0, rest - len(portion)
        if data[at : at + 4] != b"PK\1\2" or len(data) - at < CENTRAL.size:
            raise damaged(path)
        found, at = _entry(data, at, shift)
        used += found.packed
        if used > whole:
            raise DataError(f"{path} says that its files take more than the archive has, as no zip program writes.")
        if not found.name.endswith("/"):
            yield found
    if at != len(data):
        raise damaged(path)


def damaged(path: str) -> DataError:
    return DataError(f"{path} is damaged or cut short (its directory cannot be read): copy or download it again.")


def _directory(path: str, file: BinaryIO) -> tuple[int, int, int]:
    """Where the central directory begins, its bytes, and how much stands before the archive in the file."""
    whole = os.fstat(file.fileno()).st_size
    start = max(0, whole - COMMENT - LAST.size)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or at + LAST.size > len(tail):
        raise damaged(path)
    _, disk, first_disk, _, _, size, place, _ = LAST.unpack_from(tail, at)
    end = start + at
    if at >= LOCATED.size and tail[at - LOCATED.size :].startswith(LOCATOR):
        file.seek(max(0, end - LOCATED.size - LAST64.size))
        about = file.read(LAST64.size)
        if len(about) == LAST64.size and about.startswith(END64):
            end -= LOCATED.size + LAST64.size
            *_, disk, first_disk, _, _, size, place = LAST64.unpack(about)
    if (disk or first_disk) and 0xFFFF not in (disk, first_disk):
        raise DataError(
            f"{path} is one part of an archive split in several: join them with `zip -s 0 PARTS --out ALL`."
        )
    if size > end:
        raise damaged(path)
    return end - size, size, end - size - place


def _entry(data: bytes, at: int, shift: int) -> tuple[Entry, int]:
    """The Entry at this place of the directory, and where the next one begins."""
    (_, made, _, flags, method, _, _, crc, packed, size, named, more, comment, _, _, attributes, place) = (
        CENTRAL.unpack_from(data, at)
    )
    at += CENTRAL.size
    raw, extra = data[at : at + named], data[at + named : at + named + more]
    if 0xFFFFFFFF in (size, packed, place):
        size, packed, place = _zip64(extra, size, packed, place)
    kind, why = method, None
    if made >> 8 == 3 and stat.S_ISLNK(attributes >> 16):
        kind = LINK
    elif flags & ENCRYPTED:
        why = "is encrypted: unpack it with its password"
    elif method not in (STORED, DEFLATED):
        why = f"is packed by {OTHERS.get(method, f'method {method}')}, which is not read: pack it again with plain zip"
    return Entry(_name(raw, flags), place + shift, packed, size, kind, crc, why), at + named + more + comment


def _zip64(extra: bytes, *values: int) -> list[int]:
    """Sizes and places, those that did not fit from the extra field."""
    at = 0
    while at + 4 <= len(extra):
        number, length = unpack("<2H", extra[at : at + 4])
        if number == 1:
            rest = iter(unpack(f"<{min(length, 24) // 8}Q", extra[at + 4 : at + 4 + min(length, 24) // 8 * 8]))
            return [next(rest, value) if value == 0xFFFFFFFF else value for value in values]
        at += 4 + length
    return list(values)


def _name(raw: bytes, flags: int) -> str:
    r"""The name with "/" between folders (.NET wrote "\"); without a word on its encoding UTF-8 if it can be that."""
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "backslashreplace") if flags & UTF8 else raw.decode("cp437")
    return name.replace("\\", "/")


def seek(file: BinaryIO, place: int) -> bool:
    """Go to where the bytes of a file begin whose local header is at `place`; False when there is no header."""
    file.seek(place)
    head = file.read(LOCAL.size)
    if len(head) < LOCAL.size or not head.startswith(b"PK\3\4"):
        return False
    named, more = unpack("<2H", head[26:30])
    file.seek(named + more, os.SEEK_CUR)
    return True
