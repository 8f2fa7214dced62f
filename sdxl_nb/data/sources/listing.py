"""What a source of pictures holds, in columns: a million names and captions in little memory, and how to read a row.

In: what folders.py and tables.py find. Out: a Listing, of which data.CaptionedPictures shows a selection. Texts are
Arrow columns (some tens of bytes a row where Python objects take hundreds); Python strings are made on demand.
Columns are built from buffers: pa.array, pa.scalar and to_numpy import pandas, a third of a second at every start.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..decoding import Fault, PictureError

if TYPE_CHECKING:
    from ..file_facts import Facts

MAX_BYTES = 1 << 30  # of one encoded picture; the largest that may be decoded takes less even uncompressed
CHUNK = 1 << 16  # rows that are Python objects at the same time


Text = TypeVar("Text", bound=str | None)  # str where none is missing


class Texts(Sequence[Text]):
    """Texts (None where there is none) of an Arrow column, in the order of `rows`; made when they are asked for.

    An index gives a text, a slice a list. It equals any sequence of the same texts, as a list does.
    """

    def __init__(self, column: pa.Array, rows: np.ndarray | None = None):
        self.column, self.rows = column, rows

    def __len__(self) -> int:
        return len(self.column) if self.rows is None else len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Text: ...

    @overload
    def __getitem__(self, index: slice) -> list[Text]: ...

    def __getitem__(self, index: int | slice) -> Text | list[Text]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} texts, none at {index}")
        index = index % len(self)
        text: Text = self.column[index if self.rows is None else int(self.rows[index])].as_py()
        return text

    def __iter__(self) -> Iterator[Text]:
        for first in range(0, len(self), CHUNK):
            if self.rows is None:
                yield from self.column.slice(first, CHUNK).to_pylist()
            else:
                yield from take(self.column, self.rows[first : first + CHUNK]).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # Python's own way to say: not to be hashed

    def __repr__(self) -> str:
        more = f", ... {len(self)} in all" if len(self) > 10 else ""
        return f"[{', '.join(map(repr, self[:10]))}{more}]"

    def where(self, wanted: Iterable[str]) -> np.ndarray:
        """(N,) bool: which of the texts are among `wanted`."""
        found = flags(pc.is_in(self.column, text_column(wanted)))
        return found if self.rows is None else found[self.rows]


class TextColumn:
    """An Arrow column under construction: append texts one by one, then `finish`."""

    def __init__(self) -> None:
        self.pending: list[str | None] = []
        self.chunks: list[pa.Array] = []

    def append(self, text: str | None) -> None:
        self.pending.append(text)
        if len(self.pending) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        self.chunks.append(_built(self.pending))
        self.pending = []

    def finish(self) -> pa.Array:
        self._flush()
        chunks, self.chunks = self.chunks, []
        return pa.concat_arrays(chunks)


def text_column(texts: Iterable[str | None]) -> pa.Array:
    """An Arrow column of these texts."""
    rest = iter(texts)
    chunks = [_built([])]
    while some := list(islice(rest, CHUNK)):
        chunks.append(_built(some))
    return pa.concat_arrays(chunks)


def _built(texts: Sequence[str | None]) -> pa.Array:
    """A large_string array; UnicodeEncodeError for a lone surrogate."""
    encoded = [b"" if text is None else text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    there = np.packbits([text is not None for text in texts], bitorder="little") if None in texts else None
    buffers = [there, ends, b"".join(encoded)]
    return pa.Array.from_buffers(
        pa.large_string(), len(texts), [None if part is None else pa.py_buffer(part) for part in buffers]
    )


def take(column: pa.Array, rows: np.ndarray) -> pa.Array:
    """The column at these rows, in their order."""
    at = np.ascontiguousarray(rows, np.int64)
    return column.take(pa.Array.from_buffers(pa.int64(), len(at), [None, pa.py_buffer(at)]))


def flags(column: pa.Array) -> np.ndarray:
    """(N,) bool of an Arrow column of truths, none of them null."""
    return np.from_dlpack(column.cast(pa.uint8())).astype(bool)


class Note(str):
    """A remark worth a line in the log, which says for the audit what kind it is and which files it is about."""

    kind: str
    files: Mapping[str, str]  # name -> what exactly

    def __new__(cls, sentence: str, kind: str, files: Mapping[str, str] | None = None) -> "Note":
        note = super().__new__(cls, sentence)
        note.kind, note.files = kind, files or {}
        return note


@dataclass
class Listing:
    """What a source holds: columns of names and captions (null: missing), and two functions of a row's number.

    `read` gives the encoded picture, `stamp` a text that changes when the stored picture may have changed (None: not
    known). `faults` are pictures left out at once, `notes` remarks worth a line in the log, some of them Notes.
    `repeats` and `weights` (N,) say how often an epoch sees a picture and what its loss counts; None is once, and 1.
    Rows from `first_of_class` on are class pictures of prior preservation. `masks`: paths of masks, or null.
    """

    names: pa.Array
    captions: pa.Array
    read: Callable[[int], bytes]
    stamp: Callable[[int], str | None]
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repeats: np.ndarray | None = None
    weights: np.ndarray | None = None
    first_of_class: int | None = None
    known: "Facts | None" = None  # by row, once the pictures were examined
    written: pa.Array | None = None  # the captions without trigger words, where there are any
    masks: pa.Array | None = None  # None: no picture has one

    def __len__(self) -> int:
        return len(self.names)

    def caption_each(self, caption: Callable[[str, str | None], str | None]) -> None:
        """Replace every caption by `caption(name, caption)`."""
        self.captions = text_column(map(caption, Texts[str](self.names), Texts[str | None](self.captions)))


@dataclass(frozen=True)
class Files:
    """The pictures of a folder by name: `read` and `stamp` of a Listing."""

    root: str
    names: pa.Array

    def path(self, row: int) -> str:
        return os.path.join(self.root, self.names[row].as_py())

    def read(self, row: int) -> bytes:
        with open(self.path(row), "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise PictureError(f"{self.names[row]} is larger than {MAX_BYTES >> 30} GiB: make it smaller.")
            return file.read()

    def stamp(self, row: int) -> str | None:
        return file_stamp(self.path(row))


def file_stamp(path: str | os.PathLike[str]) -> str | None:
    """Path, size and time of change of a file; None when it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{os.path.realpath(path)} {found.st_size} {found.st_mtime_ns}"


def joined(listings: Sequence[Listing]) -> Listing:
    """The rows of several Listings after each other; faults and notes too, `repeats` and `weights` filled up by 1."""
    starts = np.cumsum([0, *map(len, listings)]).tolist()

    def call(name: str) -> Callable[[int], Any]:
        def of_row(row: int) -> Any:
            part = bisect_right(starts, row) - 1
            return getattr(listings[part], name)(row - starts[part])

        return of_row

    def numbers(name: str, kind: type) -> np.ndarray | None:
        if all(getattr(listing, name) is None for listing in listings):
            return None
        columns = [getattr(listing, name) for listing in listings]
        each = zip(columns, listings, strict=True)
        return np.concatenate([np.ones(len(part), kind) if column is None else column for column, part in each])

    known = [listing.known for listing in listings if listing.known is not None]
    written = [listing.captions if listing.written is None else listing.written for listing in listings]
    return Listing(
        pa.concat_arrays([listing.names for listing in listings]),
        pa.concat_arrays([listing.captions for listing in listings]),
        call("read"),
        call("stamp"),
        [fault for listing in listings for fault in listing.faults],
        [note for listing in listings for note in listing.notes],
        numbers("repeats", np.int32),
        numbers("weights", np.float32),
        known=known[0].followed_by(*known[1:]) if len(known) == len(listings) else None,
        written=None if all(listing.written is None for listing in listings) else pa.concat_arrays(written),
        masks=_joined_masks(listings),
    )


def _joined_masks(listings: Sequence[Listing]) -> pa.Array | None:
    if all(listing.masks is None for listing in listings):
        return None
    return pa.concat_arrays(
        [text_column([None] * len(each)) if each.masks is None else each.masks for each in listings]
    )
