"""What is known of files without reading them again: hashes, sizes of pictures, and what is wrong with a picture.

In: stamps, texts that change when a file does (path, bytes, times of change). Out: what was found when the file with
that stamp was last read. One SQLite file beside the caches, shared by processes and runs; it is only a memory: when
it is damaged it starts anew, and where it cannot be written everything still works, only slower.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import PIL

from ..system.keys import key_of
from ..system.threads import Group, ahead, share_out
from .decoding import READING, Fault, MissingPlugin, PictureError, decoded
from .sources.listing import file_stamp

if TYPE_CHECKING:
    from .dataset import CaptionedPictures, Faults

TABLE = (
    "CREATE TABLE IF NOT EXISTS known (stamp BLOB PRIMARY KEY, sha256 BLOB, height INTEGER, width INTEGER, "
    "fault TEXT, pillow TEXT) WITHOUT ROWID"
)
PORTION = 500  # stamps asked for at once; SQLite took 999 variables at most for long
SAVED_EVERY = 1.0  # seconds: what a kill can cost


class Known(NamedTuple):
    """A file's SHA-256; of a picture its upright height and width, and one sentence where it cannot be used."""

    sha256: bytes
    height: int = 0
    width: int = 0
    fault: str | None = None


class Memo:
    """Known by stamp, kept in `folder`/files.sqlite."""

    def __init__(self, folder: Path):
        self.path = Path(folder) / "files.sqlite"
        self._new: dict[bytes, Known] = {}
        self._saved = time.monotonic()
        self._base = self._open()

    def _open(self) -> sqlite3.Connection | None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.OperationalError:  # read-only, no such folder, no room
            return None
        except sqlite3.DatabaseError:
            return self._anew()

    def _anew(self) -> sqlite3.Connection | None:
        """Throw a damaged file away."""
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.path}{end}")
        with contextlib.suppress(sqlite3.Error):
            return self._connect()
        return None

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        try:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("PRAGMA synchronous=NORMAL")  # a memory may lose its last second, never its form
            base.execute(TABLE)
            base.execute("SELECT * FROM known LIMIT 1").fetchone()
        except BaseException:
            base.close()
            raise
        return base

    def find(self, stamps: Iterable[bytes]) -> dict[bytes, Known]:
        """What is known by these stamps; a fault that another Pillow found is looked at again."""
        stamps, found = list(stamps), {}
        for first in range(0, len(stamps), PORTION):
            portion = stamps[first : first + PORTION]
            marks = ",".join("?" * len(portion))
            query = f"SELECT stamp, sha256, height, width, fault, pillow FROM known WHERE stamp IN ({marks})"
            for stamp, *known, pillow in self._ask(query, portion):
                if known[-1] is None or pillow == PIL.__version__:
                    found[stamp] = Known(*known)
        return found

    def _ask(self, query: str, values: list[bytes]) -> list[tuple[Any, ...]]:
        if self._base is None:
            return []
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            return []
        except sqlite3.DatabaseError:
            self.close()
            self._base = self._anew()
            return []

    def put(self, stamp: bytes, known: Known) -> None:
        """Remember; written about once a second, and by `save`."""
        self._new[stamp] = known
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        rows = [(stamp, *known, PIL.__version__) for stamp, known in self._new.items()]
        self._new, self._saved = {}, time.monotonic()
        if self._base is None or not rows:
            return
        with contextlib.suppress(sqlite3.Error):
            self._base.execute("BEGIN IMMEDIATE")
            try:
                self._base.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?)", rows)
                self._base.execute("COMMIT")
            except BaseException:
                self._base.execute("ROLLBACK")
                raise

    def close(self) -> None:
        if self._base is not None:
            with contextlib.suppress(sqlite3.Error):
                self._base.close()
            self._base = None

    def file_digest(self, path: Path) -> bytes:
        """SHA-256 of a file, read only when it changed since it was last asked for."""
        stamp = key_of("file", file_stamp(path))
        known = self.find([stamp]).get(stamp)
        if known is None:
            known = Known(_sha256(path))
            self.put(stamp, known)
            self.save()
        return known.sha256


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while portion := file.read(1 << 22):
            digest.update(portion)
    return digest.digest()


@dataclass(frozen=True, eq=False)
class Facts:
    """Of N pictures: digests (N, 32) uint8, SHA-256, and upright sizes (N, 2) int32 as (height, width)."""

    digests: np.ndarray
    sizes: np.ndarray

    @classmethod
    def none(cls, count: int) -> "Facts":
        """Nothing known yet of so many pictures."""
        return cls(np.zeros((count, 32), np.uint8), np.zeros((count, 2), np.int32))

    def select(self, rows: np.ndarray) -> "Facts":
        return Facts(self.digests[rows], self.sizes[rows])

    def followed_by(self, *others: "Facts") -> "Facts":
        parts = (self, *others)
        return Facts(np.concatenate([f.digests for f in parts]), np.concatenate([f.sizes for f in parts]))


def examine(
    pictures: "CaptionedPictures",
    memo: Memo,
    progress: Callable[[int, int], None] | None = None,
    processes: Group | None = None,
) -> "Faults":
    """The Faults of CaptionedPictures, as their `check` finds them; hashes and sizes go to `pictures.listing.known`.

    A picture is read and decoded only where the memo does not know it. Raises DataError when none can be used.
    """
    names, facts = pictures.names, Facts.none(len(pictures.listing))
    faults: dict[int, Fault] = {}
    seen = np.zeros(len(pictures), dtype=bool)

    def work(share: range) -> None:
        for first in range(0, len(share), PORTION):
            portion = [index for index in share[first : first + PORTION] if not seen[index]]
            for done, (index, known) in enumerate(_examined(pictures, names, portion, memo), start=first + 1):
                seen[index] = True
                if known.fault is None:
                    row = pictures.rows[index]
                    facts.digests[row], facts.sizes[row] = np.frombuffer(known.sha256, np.uint8), known[1:3]
                else:
                    faults[index] = Fault(names[index], known.fault)
                if progress:
                    progress(done, len(share))
        memo.save()

    share_out(len(pictures), work, processes)
    found = pictures.judge([faults[index] for index in sorted(faults)])
    pictures.listing.known = facts
    return found


def _examined(
    pictures: "CaptionedPictures", names: Sequence[str], portion: list[int], memo: Memo
) -> Iterator[tuple[int, Known]]:
    """(index, Known) of these pictures: first those that the memo knows, then those that it is told of now."""
    stamps = {index: _stamp(pictures, names[index], index) for index in portion}
    found = memo.find(stamp for stamp in stamps.values() if stamp)
    unknown = []
    for index, stamp in stamps.items():
        if stamp in found:
            yield index, found[stamp]
        else:
            unknown.append(index)
    for index, known in zip(unknown, ahead(partial(_look, pictures, names), unknown), strict=True):
        stamp = stamps[index]
        if stamp and known.sha256:
            memo.put(stamp, known)
        yield index, known


def _stamp(pictures: "CaptionedPictures", name: str, index: int) -> bytes | None:
    """The key of a picture as it is now; its name is part of it because the sentence of a fault has it."""
    stamp = pictures.stamp(index)
    return None if stamp is None else key_of("picture", READING, stamp, name)


def _look(pictures: "CaptionedPictures", names: Sequence[str], index: int) -> Known:
    """Read and decode a picture. One that cannot be opened yet has no hash: it may be readable next time."""
    data = b""
    try:
        data = pictures.picture_bytes(index)
        size = decoded(data, names[index]).size
    except MissingPlugin as error:
        return Known(b"", fault=str(error))
    except PictureError as error:
        return Known(hashlib.sha256(data).digest() if data else b"", fault=str(error))
    return Known(hashlib.sha256(data).digest(), *size)
