"""What is known of files without reading them again: hashes, sizes of pictures, and what is wrong with a picture.

In: stamps, texts that change when a file does (path, bytes, times of change). Out: what was found when the file with
that stamp was last read. One SQLite file beside the caches, shared by processes and runs; it is only a memory: when
it is damaged it starts anew, and where it cannot be written everything still works, only slower. What is known of a
large set without faults is kept once more as a whole, under what all its stamps say together: to look up a million
rows takes longer than all else that is done with them.
"""

import contextlib
import hashlib
import os
import sqlite3
import time
import zlib
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
    from .sources.listing import Texts

TABLE = (
    "CREATE TABLE IF NOT EXISTS known (stamp BLOB PRIMARY KEY, sha256 BLOB, height INTEGER, width INTEGER, "
    "fault TEXT, pillow TEXT) WITHOUT ROWID"
)
PORTION = 500  # stamps asked for at once; SQLite took 999 variables at most for long
PATIENCE = 60.0  # seconds that another process may be at the file
SAVED_EVERY = 1.0  # seconds: what a kill can cost
LARGE = 4096  # pictures of a set that is kept as a whole, at least
WHOLES = 8  # sets that are kept so, those used last; a million pictures take 40 MB


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
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:  # read-only, no such folder, no room
                # of two processes that make the file at once SQLite refuses one, whatever its time is
                if "locked" not in str(error) or time.monotonic() > until:
                    return None
                time.sleep(0.01)
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
        base = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
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

    def whole(self, told: str) -> "Facts | None":
        """The Facts of the set whose stamps say this together, if they are kept and whole."""
        from safetensors import SafetensorError, safe_open

        path = self.path.parent / "sets" / f"{told}.safetensors"
        try:
            with safe_open(path, "np") as file:
                facts = Facts(file.get_tensor("digests"), file.get_tensor("sizes"))
                checksum = (file.metadata() or {}).get("crc32")
            if checksum != facts.checksum():
                return None
            os.utime(path)
        except (OSError, SafetensorError):
            return None
        return facts

    def keep_whole(self, told: str, facts: "Facts") -> None:
        """Keep the Facts of a set; those of sets that were not used for long leave."""
        from safetensors.numpy import save

        folder = self.path.parent / "sets"
        draft = folder / f".{told}.{os.getpid()}.draft"
        data = save({"digests": facts.digests, "sizes": facts.sizes}, {"crc32": facts.checksum()})
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(folder / f"{told}.safetensors")
            by_use = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
            for old in by_use[:-WHOLES]:
                old.unlink()

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

    def put(self, rows: np.ndarray, found: Sequence[Known]) -> None:
        """What was found of the pictures at these rows, where they can be used."""
        good = [known.fault is None for known in found]
        rows, found = rows[good], [known for known in found if known.fault is None]
        if not found:
            return
        self.digests[rows] = np.frombuffer(b"".join(known.sha256 for known in found), np.uint8).reshape(-1, 32)
        self.sizes[rows] = np.array([known[1:3] for known in found], np.int32).reshape(-1, 2)

    def select(self, rows: np.ndarray) -> "Facts":
        return Facts(self.digests[rows], self.sizes[rows])

    def checksum(self) -> str:
        return str(zlib.crc32(self.sizes.tobytes(), zlib.crc32(self.digests.tobytes())))

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
    alone = processes is None or processes.count == 1  # else all would have to find the same
    told = _told_together(pictures) if alone and len(pictures) >= LARGE else None
    if told and (whole := memo.whole(told)):
        facts.digests[pictures.rows], facts.sizes[pictures.rows] = whole.digests, whole.sizes
        pictures.listing.known = facts
        return pictures.judge([])
    faults: dict[int, Fault] = {}
    seen = np.zeros(len(pictures), dtype=bool)

    def work(share: range) -> None:
        for first in range(0, len(share), PORTION):
            portion = np.asarray(share[first : first + PORTION])
            done = first
            for indices, found in _examined(pictures, names, portion[~seen[portion]], memo):
                seen[indices] = True
                facts.put(pictures.rows[indices], found)
                faults.update(
                    (index, Fault(names[index], known.fault))
                    for index, known in zip(indices.tolist(), found, strict=True)
                    if known.fault is not None
                )
                done += len(indices)
                if progress:
                    progress(done, len(share))
        memo.save()

    share_out(len(pictures), work, processes)
    found = pictures.judge([faults[index] for index in sorted(faults)])
    pictures.listing.known = facts
    if told and not faults:
        memo.keep_whole(told, facts.select(pictures.rows))
    return found


def _told_together(pictures: "CaptionedPictures") -> str | None:
    """What the stamps of all pictures say, in their order; None where one has none."""
    digest = hashlib.sha256(f"{READING}\n".encode())
    for first in range(0, len(pictures), PORTION):
        stamps = pictures.stamps(np.arange(first, min(first + PORTION, len(pictures))))
        if None in stamps:
            return None
        digest.update("".join(f"{stamp}\n" for stamp in stamps).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _examined(
    pictures: "CaptionedPictures", names: "Texts[str]", portion: np.ndarray, memo: Memo
) -> Iterator[tuple[np.ndarray, list[Known]]]:
    """(indices, Known of each) of these pictures: first all that the memo knows, then each that it is told of now."""
    stamps = _stamps(pictures, names, portion)
    found = memo.find(stamp for stamp in stamps if stamp)
    known = np.array([stamp in found for stamp in stamps], dtype=bool)
    if known.any():
        yield portion[known], [found[stamp] for stamp in stamps if stamp in found]
    unknown = np.flatnonzero(~known).tolist()
    looked = ahead(partial(_look, pictures, names), portion[~known].tolist())
    for at, one in zip(unknown, looked, strict=True):
        stamp = stamps[at]
        if stamp and one.sha256:
            memo.put(stamp, one)
        yield portion[at : at + 1], [one]


def _stamps(pictures: "CaptionedPictures", names: "Texts[str]", portion: np.ndarray) -> list[bytes | None]:
    """The keys of pictures as they are now; a name is part of its key because the sentence of a fault has it."""
    each = zip(pictures.stamps(portion), names.some(portion), strict=True)
    return [None if stamp is None else key_of("picture", READING, stamp, name) for stamp, name in each]


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
