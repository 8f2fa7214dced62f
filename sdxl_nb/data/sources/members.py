"""Files inside zip and tar archives, in columns: one is read where it lies, without unpacking any other.

In: where each file begins. Out: Members, `read` and `stamp` of a Listing. An archive is opened for each read, and only
names and numbers are kept, so that threads and processes share nothing.
"""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..decoding import PictureError
from . import listing, zips
from .entries import IN_TAR
from .listing import file_stamp, flags, take, text_column

SLACK = 1024  # bytes that packing may add to what cannot be packed, beside an eighth


@dataclass(frozen=True, eq=False)
class Members:
    """N files: their `names`, in which of `paths` each lies, and where; the other columns are those of Entry."""

    paths: Sequence[str]
    names: pa.Array
    part: np.ndarray
    place: np.ndarray
    packed: np.ndarray
    size: np.ndarray
    kind: np.ndarray
    crc: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.part, self.place, self.packed, self.size, self.kind, self.crc

    def select(self, rows: np.ndarray) -> "Members":
        """These files, in this order."""
        return Members(self.paths, take(self.names, rows), *(column[rows] for column in self._columns()))

    def named(self, names: pa.Array) -> "Members":
        """The same files by other names."""
        return Members(self.paths, names, *self._columns())

    def with_links(self, names: Sequence[str], rows: np.ndarray) -> "Members":
        """These files, and after them those at `rows` again by other names."""
        every = pa.concat_arrays([self.names, text_column(names)])
        return Members(self.paths, every, *(np.append(column, column[rows]) for column in self._columns()))

    def sorted(self) -> tuple["Members", int]:
        """The files by name, and how many were left out: of several of one name the last stays, as when unpacking."""
        rows = np.from_dlpack(pc.array_sort_indices(self.names)).astype(np.int64)
        if len(rows) < 2:
            return self, 0
        names = take(self.names, rows)
        last = np.append(~flags(pc.equal(names[1:], names[:-1])), True)
        return self.select(rows[last]), int((~last).sum())

    def is_in_tar(self, row: int) -> bool:
        return bool(self.kind[row] == IN_TAR)

    def read(self, row: int) -> bytes:
        """The file as it was packed. Raises PictureError, and OSError where the archive cannot be opened."""
        with open(self.paths[self.part[row]], "rb") as file:
            return self._extract(file, row)

    def read_all(self, rows: Sequence[int]) -> Iterator[bytes | PictureError]:
        """The files of these rows, or what `read` would raise: an archive stays open while the next is in it too."""
        part, file = -1, None
        try:
            for row in rows:
                if file is None or self.part[row] != part:
                    if file is not None:
                        file.close()
                    part = int(self.part[row])
                    file = open(self.paths[part], "rb")  # noqa: SIM115
                try:
                    yield self._extract(file, row)
                except PictureError as error:
                    yield error
        finally:
            if file is not None:
                file.close()

    def _extract(self, file: BinaryIO, row: int) -> bytes:
        size, packed, kind = int(self.size[row]), int(self.packed[row]), int(self.kind[row])
        if size > listing.MAX_BYTES:
            raise PictureError(f"{self.names[row]} is larger than {listing.MAX_BYTES >> 30} GiB: make it smaller.")
        place: int | None = int(self.place[row])
        if kind != IN_TAR:
            place = zips.begin(file, int(self.place[row]))
        if place is None or packed > size + size // 8 + SLACK:
            raise self._damaged(row)
        file.seek(place)
        data = file.read(packed)
        if kind == zips.DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
            except zlib.error as error:
                raise self._damaged(row) from error
        if len(data) != size or (kind != IN_TAR and zlib.crc32(data) != self.crc[row]):
            raise self._damaged(row)
        return data

    def _damaged(self, row: int) -> PictureError:
        archive = os.path.basename(self.paths[self.part[row]])
        return PictureError(f"{self.names[row]} is damaged in {archive}: pack it, or download the archive, again.")

    def stamp(self, row: int) -> str | None:
        """A text that changes with the archive, and tells its files apart."""
        archive = file_stamp(self.paths[self.part[row]])
        return archive and f"{archive} {self.place[row]} {self.size[row]} {self.crc[row]}"


def joined(each: Sequence[Members]) -> Members:
    """The files of several archives after each other."""
    paths = [path for members in each for path in members.paths]
    part = np.repeat(np.arange(len(each), dtype=np.int32), [len(members) for members in each])
    columns = zip(*(members._columns()[1:] for members in each), strict=True)
    names = pa.concat_arrays([members.names for members in each])
    return Members(paths, names, part, *(np.concatenate(column) for column in columns))
