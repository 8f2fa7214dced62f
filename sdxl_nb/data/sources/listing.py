"""What a source of pictures holds, in columns: a million names and captions in little memory, and how to read a row.

In: what folders.py and tables.py find. Out: a Listing, of which data.CaptionedPictures shows a selection. Texts are
Arrow columns (some tens of bytes a row where Python objects take hundreds); Python strings are made on demand.
Columns are built from buffers: pa.array, pa.scalar and to_numpy import pandas, a third of a second at every start.
"""

import os
import stat
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..decoding import Fault, PictureError
from ..folder_settings import Folders, joined_folders

if TYPE_CHECKING:
    from ..file_facts import Facts

MAX_BYTES = 1 << 30  # of one encoded picture; the largest that may be decoded takes less even uncompressed
CHUNK = 1 << 13  # rows that are Python objects at the same time
TICK = 0.02  # seconds: how coarse a file system's own times may be


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

    def some(self, indices: np.ndarray) -> list[Text]:
        """The texts at these indices."""
        return list(Texts[Text](take(self.column, indices if self.rows is None else self.rows[indices])))

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

    def __len__(self) -> int:
        return CHUNK * len(self.chunks) + len(self.pending)

    def _flush(self) -> None:
        self.chunks.append(_built(self.pending))
        self.pending = []

    def finish(self) -> pa.Array:
        self._flush()
        chunks, self.chunks = self.chunks, []
        return pa.concat_arrays(chunks)


class CaptionColumn:
    """Columns of captions under construction: append those of one picture after the other, then `finish`."""

    def __init__(self) -> None:
        self.first, self.texts, self.ends = TextColumn(), TextColumn(), array("q", [0])

    def append(self, captions: Sequence[str]) -> None:
        """The captions of the next picture, perhaps none."""
        self.first.append(captions[0] if captions else None)
        for text in captions[1:]:
            self.texts.append(text)
        self.ends.append(self.ends[-1] + max(0, len(captions) - 1))

    def finish(self) -> tuple[pa.Array, pa.Array | None]:
        """`captions` and `further` of a Listing."""
        return self.first.finish(), lists(self.ends, self.texts.finish()) if self.ends[-1] else None


def lists(ends: Sequence[int] | np.ndarray, texts: pa.Array) -> pa.Array:
    """An Arrow column of lists of texts: number n holds those from ends[n] to ends[n + 1]."""
    ends = np.ascontiguousarray(ends, np.int64)
    kind = pa.large_list(pa.large_string())
    return pa.Array.from_buffers(kind, len(ends) - 1, [None, pa.py_buffer(ends)], children=[texts])


def counts(column: pa.Array) -> np.ndarray:
    """(N,) int64: how many texts each row of a column of lists has."""
    return np.from_dlpack(pc.list_value_length(column)).astype(np.int64)


def ends_of(column: pa.Array) -> np.ndarray:
    """Where the texts of each row of a column of lists end, and of all before the first: what `lists` takes."""
    return np.append(0, np.cumsum(counts(column)))


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


def led(head: str, column: pa.Array, tail: str = "") -> pa.Array:
    """The column with `head` before each text and `tail` after it."""
    before, after, nothing = text_column([head, tail, ""])
    return pc.binary_join_element_wise(before, column, after, nothing)


def positions(column: pa.Array, among: pa.Array) -> np.ndarray:
    """(N,) int64: where each text stands in `among`, which has none twice, -1 where it does not.

    By sorted 64-bit hashes, compared afterwards: pc.index_in takes 230 bytes for each text of `among`.
    """
    if not len(among):
        return np.full(len(column), -1)
    if len(column) == len(among) and flags(pc.equal(column, among)).all():  # as it mostly is
        return np.arange(len(among))
    known, wanted = (np.fromiter(map(hash, Texts[str](each)), np.int64, len(each)) for each in (among, column))
    order = np.argsort(known)
    found = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(flags(pc.equal(take(among, found), column)), found, -1)


class Note(str):
    """A remark worth a line in the log, which says for the audit what kind it is and which files it is about."""

    kind: str
    files: Mapping[str, str]  # name -> what exactly

    def __new__(cls, sentence: str, kind: str, files: Mapping[str, str] | None = None) -> "Note":
        note = super().__new__(cls, sentence)
        note.kind, note.files = kind, files or {}
        return note

    def __getnewargs__(self) -> tuple[str, str, Mapping[str, str]]:  # type: ignore[override]  # str takes less
        """How a process that is sent one makes it again."""
        return str(self), self.kind, self.files


@dataclass
class Listing:
    """What a source holds: columns of names and captions (null: missing), and two functions of a row's number.

    `read` gives the encoded picture, `stamp` a text that changes when the stored picture may have changed (None: not
    known). `faults` are pictures left out at once, `notes` remarks worth a line in the log, some of them Notes.
    `repeats` and `weights` (N,) say how often an epoch sees a picture and what its loss counts; None is once, and 1.
    Rows from `first_of_class` on are class pictures of prior preservation. `masks`: paths of masks, or null;
    `read_mask` gives the encoded mask of a row where masks are no files. `folders` are those of a data file.
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
    further: pa.Array | None = None  # lists of captions beyond the first, where any picture has several
    known: "Facts | None" = None  # by row, once the pictures were examined
    written: pa.Array | None = None  # the captions without trigger words, where there are any
    written_further: pa.Array | None = None  # and the further ones
    masks: pa.Array | None = None  # None: no picture has one
    read_mask: Callable[[int], bytes | None] | None = None
    background: tuple[str, int] = ("white", 0)  # alpha_background and the seed that random is drawn by
    folders: Folders | None = None
    stamps: Callable[[np.ndarray], list[str | None]] | None = None  # `stamp` of many rows at once, where that is faster

    def __len__(self) -> int:
        return len(self.names)

    def mask(self, row: int) -> bytes | None:
        """The encoded mask of a row, None where it has none."""
        path = None if self.masks is None else self.masks[row].as_py()
        if path is None:
            return None if self.read_mask is None else self.read_mask(row)
        with open(path, "rb") as file:
            return file.read()

    def select(self, rows: np.ndarray) -> "Listing":
        """These rows alone, in this order; notes stay, faults do not, nor what are class pictures."""

        def taken(column: Any) -> Any:
            return None if column is None else column[rows] if isinstance(column, np.ndarray) else take(column, rows)

        read_mask = self.read_mask
        return Listing(
            *(take(self.names, rows), take(self.captions, rows)),
            *(lambda row: self.read(int(rows[row])), lambda row: self.stamp(int(rows[row]))),
            notes=self.notes,
            repeats=taken(self.repeats),
            weights=taken(self.weights),
            further=taken(self.further),
            known=None if self.known is None else self.known.select(rows),
            written=taken(self.written),
            written_further=taken(self.written_further),
            masks=taken(self.masks),
            read_mask=None if read_mask is None else lambda row: read_mask(int(rows[row])),
            background=self.background,
            folders=None if self.folders is None else self.folders.select(rows),
        )

    def caption_each(self, caption: Callable[[str, str | None], str | None]) -> None:
        """Replace every caption by `caption(name, caption)`, further ones too."""
        self.captions = text_column(map(caption, Texts[str](self.names), Texts[str | None](self.captions)))
        if self.further is not None:
            names = Texts[str](self.names, np.repeat(np.arange(len(self)), counts(self.further)))
            texts = text_column(map(caption, names, Texts[str](self.further.flatten())))
            self.further = lists(ends_of(self.further), texts)


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

    def stamps(self, rows: np.ndarray) -> list[str | None]:
        """`stamp` of each of these rows; the folders' own paths are looked up once for all of them."""
        real = lru_cache(maxsize=None)(lambda folder: os.path.realpath(os.path.join(self.root, folder)))
        return [self._stamp(name, real) for name in take(self.names, rows).to_pylist()]

    def _stamp(self, name: str, real: Callable[[str], str]) -> str | None:
        head, _, tail = name.rpartition("/")
        path = f"{real(head)}/{tail}"
        try:
            found = os.lstat(path)
        except OSError:
            return None
        plain = stat.S_ISREG(found.st_mode)  # a link's own path is that of what it leads to
        return _stamped(path, found) if plain else file_stamp(path)


def file_stamp(path: str | os.PathLike[str]) -> str | None:
    """Path, size and times of change of a file; None when it cannot be looked at.

    Of the times the second is the file system's own, which an edit moves also where it gives the first one back.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _stamped(os.path.realpath(path), found)


def _stamped(real: str, found: os.stat_result) -> str:
    if 0 <= time.time() - found.st_ctime < TICK:  # an edit that comes now would leave the time as it is
        time.sleep(TICK)
    return f"{real} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def none_further(count: int) -> pa.Array:
    """Of so many pictures no caption beyond the first."""
    return lists(np.zeros(count + 1), text_column([]))


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
    further = [none_further(len(each)) if each.further is None else each.further for each in listings]
    written = [listing.captions if listing.written is None else listing.written for listing in listings]
    led = zip(listings, further, strict=True)
    written_further = [some if each.written_further is None else each.written_further for each, some in led]
    several, dressed = (any(getattr(each, name) is not None for each in listings) for name in ("further", "written"))
    return Listing(
        pa.concat_arrays([listing.names for listing in listings]),
        pa.concat_arrays([listing.captions for listing in listings]),
        call("read"),
        call("stamp"),
        [fault for listing in listings for fault in listing.faults],
        [note for listing in listings for note in listing.notes],
        numbers("repeats", np.int32),
        numbers("weights", np.float32),
        further=pa.concat_arrays(further) if several else None,
        known=known[0].followed_by(*known[1:]) if len(known) == len(listings) else None,
        written=pa.concat_arrays(written) if dressed else None,
        written_further=pa.concat_arrays(written_further) if dressed and several else None,
        masks=_joined_masks(listings),
        read_mask=call("mask") if any(listing.read_mask for listing in listings) else None,
        background=listings[0].background,
        folders=joined_folders([listing.folders for listing in listings], [len(listing) for listing in listings]),
    )


def _joined_masks(listings: Sequence[Listing]) -> pa.Array | None:
    if all(listing.masks is None for listing in listings):
        return None
    return pa.concat_arrays(
        [text_column([None] * len(each)) if each.masks is None else each.masks for each in listings]
    )
