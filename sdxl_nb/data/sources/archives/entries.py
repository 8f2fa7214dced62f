"""One file inside an archive, as zips.py and tars.py tell of it."""

from typing import NamedTuple

IN_TAR, LINK, SAME = -1, -2, -3  # kinds beside zip's methods: as it is in a tar, a link, the same as another file


class Entry(NamedTuple):
    """Its name, where it begins (in a zip its local header), bytes in the archive and unpacked, kind, CRC-32.

    `why` says what stops it from being read, None when nothing does; of a link it is the name of the other file.
    """

    name: str
    place: int
    packed: int
    size: int
    kind: int
    crc: int = 0
    why: str | None = None
