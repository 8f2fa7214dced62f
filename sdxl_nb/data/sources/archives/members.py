"""Files inside zip and tar archives, in columns: one is read where it lies, without unpacking any other.

In: where each file begins. Out: Members, `read` and `stamp` of a Listing. An archive is opened for each read, and only
names and numbers are kept, so that threads and processes share nothing.
"""

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...decoding import PictureError
from .. import listing
from ..listing import TextColumn, file_stamp, flags, take, text_column
from . import zips
from .entries import IN_TAR, Entry

SLACK = 1024  # bytes that packing may add to what cannot be packed, beside an eighth
ROW = Struct("<3qIihh")
NUMBERS = [("place", "<i8"), ("packed", "<i8"), ("size", "<i8"), ("crc", "<u4")]
SPOT = np.dtype([*NUMBERS, ("part", "<i4"), ("kind", "<i2"), ("what", "<i2")])


@dataclass(frozen=True, eq=False)
class Members:
    """N files: their `names`, and `spots` (N,) that say in which of `paths` each lies, where, and `what` it is."""

    paths: Sequence[str]
    names: pa.Array
    spots: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> "Members":
        """These files, in this order."""
        return Members(self.paths, take(self.names, rows), self.spots[rows])

    def named(self, names: pa.Array) -> "Members":
        """The same files by other names."""
        return Members(self.paths, names, self.spots)

    def with_links(self, names: Sequence[str], rows: Sequence[int]) -> "Members":
        """These files, and after them those at `rows` again by other names."""
        every = pa.concat_arrays([self.names, text_column(names)])
        return Members(self.paths, every, np.append(self.spots, self.spots[list(rows)]))

    def sorted(self) -> tuple["Members", int]:
        """The files by name, and how many were left out: of several of one name the last stays, as when unpacking."""
        if len(self) < 2:
            return self, 0
        names, rows = self.names, None
        if flags(pc.less(names[1:], names[:-1])).any():
            rows = np.from_dlpack(pc.array_sort_indices(names)).astype(np.int64)
            names = take(names, rows)
        last = np.append(~flags(pc.equal(names[1:], names[:-1])), True)
        if rows is None and last.all():
            return self, 0
        return self.select((np.arange(len(self)) if rows is None else rows)[last]), int((~last).sum())

    def rows(self, what: int) -> np.ndarray:
        """Which rows are of this kind."""
        return np.flatnonzero(self.spots["what"] == what)

    def read(self, row: int) -> bytes:
        """The file as it was packed. Raises PictureError, and OSError where the archive cannot be opened."""
        with open(self.paths[self.spots["part"][row]], "rb") as file:
            return self._extract(file, row)

    def read_all(self, rows: Iterable[int]) -> Iterator[bytes | PictureError]:
        """The files of these rows, or what `read` would raise: an archive stays open while the next is in it too."""
        parts, part, file = self.spots["part"], -1, None
        try:
            for row in rows:
                if file is None or parts[row] != part:
                    if file is not None:
                        file.close()
                    part = int(parts[row])
                    file = open(self.paths[part], "rb")  # noqa: SIM115
                try:
                    yield self._extract(file, row)
                except PictureError as error:
                    yield error
        finally:
            if file is not None:
                file.close()

    def _extract(self, file: BinaryIO, row: int) -> bytes:
        place, packed, size, crc, _, kind, _ = self.spots[row].item()
        if size > listing.MAX_BYTES:
            raise PictureError(f"{self.names[row]} is larger than {listing.MAX_BYTES >> 30} GiB: make it smaller.")
        if packed > size + size // 8 + SLACK:
            raise self._damaged(row)
        if kind == IN_TAR:
            file.seek(place)
        elif not zips.seek(file, place):
            raise self._damaged(row)
        data = file.read(packed)
        if kind == zips.DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise self._damaged(row) from error
        if len(data) != size or (kind != IN_TAR and zlib.crc32(data) != crc):
            raise self._damaged(row)
        return data

    def _damaged(self, row: int) -> PictureError:
        archive = os.path.basename(self.paths[self.spots["part"][row]])
        return PictureError(f"{self.names[row]} is damaged in {archive}: pack it, or download the archive, again.")

    def stamp(self, row: int) -> str | None:
        """A text that changes with the archive, and tells its files apart."""
        place, _, size, crc, part, *_ = self.spots[row].item()
        archive = file_stamp(self.paths[part])
        return archive and f"{archive} {place} {size} {crc}"


class Collector:
    """Members of one archive under construction."""

    def __init__(self, path: str):
        self.path, self.names, self.numbers = path, TextColumn(), bytearray()

    def add(self, entry: Entry, what: int) -> None:
        self.names.append(entry.name)
        self.numbers += ROW.pack(entry.place, entry.packed, entry.size, entry.crc, 0, entry.kind, what)

    def finish(self) -> Members:
        return Members([self.path], self.names.finish(), np.frombuffer(self.numbers, SPOT))


def joined(each: Sequence[Members]) -> Members:
    """The files of several archives after each other."""
    if len(each) == 1:
        return each[0]
    spots = np.concatenate([members.spots for members in each])
    spots["part"] = np.repeat(np.arange(len(each)), [len(members) for members in each])
    names = pa.concat_arrays([members.names for members in each])
    return Members([path for members in each for path in members.paths], names, spots)
