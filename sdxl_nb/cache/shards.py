"""A folder of numbered rows kept by key, as safetensors files: what a cache on disk is made of.

In: rows of named tensors, each under a key of 16 bytes. Out: the same rows, memory-mapped, each in some ten
microseconds; however many shards there are, a few files are open at a time. A shard holds some hundred rows and is
complete or absent: written under another name, synced, renamed, never changed. It holds its rows' keys too, so the
folder is its own index: processes and runs share it without locks, what was finished stays after a kill, and any file
may be deleted between runs. The data start at a multiple of 64 bytes.
"""

import contextlib
import errno
import json
import math
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..system.errors import SdxlNbError, Stopped

ROWS, BYTES = 1024, 64 << 20  # of one shard at most: what a kill can cost
TOUCHED = 4 << 20  # mapped bytes at which the shards in use are let go: the system's page cache still has them
AROUND = 256 << 10  # what Linux may map around a page that is read, at least: so some 16 shards are in use at once
SCARCE = (errno.EMFILE, errno.ENFILE)  # this process, or the machine, has too many files open
SETTLED = 1.0  # seconds: two files that appear within a clock's tick leave a folder the same time
KEY = "S16"
SOUGHT = 1 << 16  # keys that are looked for at once
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32, "U8": torch.uint8}
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}


class Damaged(Exception):
    """A shard that is cut short or changed."""


class Shard:
    """What is known of one complete file. Raises Damaged for one that is cut short, or changed since it was sealed."""

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            head = int.from_bytes(file.read(8), "little")
            if not 2 <= head <= self.size - 8:
                raise Damaged("it is cut short")
            try:
                header = json.loads(file.read(head))
                metadata = header.pop("__metadata__")
                self.start = 8 + head
                self.columns = {name: self._column(about) for name, about in header.items()}
                self.count = header["keys"]["shape"][0]
                self._sealed, self._crc32 = int(metadata["sealed"]) * 10**9, int(metadata["crc32"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise Damaged("its header is broken") from error
            if self.start + max(about["data_offsets"][1] for about in header.values()) != self.size:
                raise Damaged("it is cut short")
        self._check_seal()

    def open(self) -> np.ndarray:
        """Its bytes, mapped for as long as they are in use; Python keeps the file open meanwhile."""
        with open(self.path, "rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ), np.uint8)

    def _column(self, about: dict[str, Any]) -> tuple[int, int, tuple[int, ...], torch.dtype]:
        """(where it starts, bytes of a row, shape of a row, dtype)."""
        dtype, shape = DTYPES[about["dtype"]], tuple(about["shape"][1:])
        return self.start + about["data_offsets"][0], math.prod(shape) * dtype.itemsize, shape, dtype

    def _check_seal(self) -> None:
        """A file that still has the time it was sealed with is trusted; of any other the checksum is looked at."""
        if os.stat(self.path).st_mtime_ns == self._sealed:
            return
        if zlib.crc32(self.open()[self.start :].data) != self._crc32:
            raise Damaged("it is damaged")
        with contextlib.suppress(OSError):  # copied without its time, perhaps into a folder of somebody else
            os.utime(self.path, ns=(self._sealed, self._sealed))

    def keys(self) -> np.ndarray:
        """The key of each row."""
        start, width, _, _ = self.columns["keys"]
        return self.open()[start : start + self.count * width].copy().view(KEY)


class Store:
    """The shards of one folder. `say` gets one line for each damaged shard, which is deleted to be computed again.

    `advice` ends the sentence of an error: what to do when the folder cannot be written.
    """

    def __init__(self, folder: Path, advice: str = "choose another folder", say: Callable[[str], None] | None = None):
        self.folder, self.advice, self.say = Path(folder), advice, say or (lambda line: None)
        self.shards: list[Shard] = []
        self._known: set[str] = set()
        self._seen: tuple[int, int] | None = None  # the folder's number and time of change, listed when it was settled
        self._touched = 0
        self._open_now: dict[Shard, np.ndarray] = {}
        self._keys, self._places = np.empty(0, KEY), np.empty(0, np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Look for shards that appeared since: other processes and runs write here too."""
        try:
            about = os.stat(self.folder)
            now = (about.st_ino, about.st_mtime_ns)
            if self._seen == now:
                return
            settled = time.time() - about.st_mtime > SETTLED  # before it is listed: what comes later changes the time
            names = sorted(name for name in os.listdir(self.folder) if name.endswith(".safetensors"))
        except OSError as error:
            self._refuse_scarcity(error)
            return  # nothing there yet
        self._seen = now if settled else None
        added = [found for name in names if name not in self._known if (found := self._open(name))]
        if added:
            self._index(added)

    def _open(self, name: str) -> tuple[Shard, np.ndarray] | None:
        """A shard and its keys; None for one that cannot be used."""
        self._known.add(name)
        path = self.folder / name
        try:
            shard = Shard(path)
            return shard, shard.keys()
        except FileNotFoundError:
            return None
        except OSError as error:  # perhaps readable another time
            self._refuse_scarcity(error)
            self._say(path, (error.strerror or type(error).__name__).lower())
        except Damaged as error:
            self._say(path, error)
            with contextlib.suppress(OSError):
                path.unlink()
        return None

    def _say(self, path: Path, why: object) -> None:
        self.say(f"The cached shard {path} cannot be used ({why}): what it held is computed again.")

    def _refuse_scarcity(self, error: OSError) -> None:
        """Without files to open nothing here is known: to compute it all again would not help."""
        if error.errno in SCARCE:
            raise self.unreadable(error) from error

    def _index(self, added: Sequence[tuple[Shard, np.ndarray]]) -> None:
        """Sort the new shards' keys in among the others; of rows with one key the first shard's is used."""
        numbered = [
            (np.int64(number) << 32) + np.arange(shard.count, dtype=np.int64)
            for number, (shard, _) in enumerate(added, start=len(self.shards))
        ]
        self.shards += [shard for shard, _ in added]
        keys, first = np.unique(np.concatenate([keys for _, keys in added]), return_index=True)
        places = np.concatenate(numbered)[first]
        new = self.find(keys) < 0
        at = np.searchsorted(self._keys, keys[new])
        self._keys, self._places = np.insert(self._keys, at, keys[new]), np.insert(self._places, at, places[new])

    def forget_keys(self) -> None:
        """From now on rows are read by the places that were found; a row can no longer be found or added."""
        self._keys = self._places = None  # type: ignore[assignment]  # so that `find` fails instead of finding nothing

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Where the rows with these keys are, an int64 each; -1 for those that are not here."""
        found = np.full(len(keys), -1, np.int64)
        for first in range(0, len(keys) if len(self._keys) else 0, SOUGHT):
            some = keys[first : first + SOUGHT]
            order = np.argsort(some)  # neighbours are found near each other: three times as fast among a million
            at = np.minimum(np.searchsorted(self._keys, some[order]), len(self._keys) - 1)
            here = self._keys[at] == some[order]
            found[first + order[here]] = self._places[at[here]]
        return found

    def read(self, places: Sequence[int] | np.ndarray, names: Sequence[str]) -> list[torch.Tensor]:
        """The named columns of these rows, (N, ...) each; rows of one batch have one shape. Raises SdxlNbError."""
        first = self.shards[int(places[0]) >> 32] if len(places) else None
        columns = [first.columns[name] for name in names] if first else []
        tensors = [torch.empty((len(places), *shape), dtype=dtype) for _, _, shape, dtype in columns]
        into = [out.view(torch.uint8).numpy().reshape(len(places), -1) for out in tensors]
        for number, place in enumerate(map(int, places)):
            shard, row = self.shards[place >> 32], place & 0xFFFFFFFF
            content = self._content(shard)
            for name, rows in zip(names, into, strict=True):
                start, width, _, _ = shard.columns[name]
                rows[number] = content[start + row * width : start + (row + 1) * width]
                self._touched += width + AROUND
        return tensors

    def column(self, places: np.ndarray, name: str) -> np.ndarray:
        """One column of many rows, (N, ...) of bytes as they are stored; a shard is opened once. Raises SdxlNbError."""
        numbers, rows = places >> 32, places & 0xFFFFFFFF
        order = np.argsort(numbers, kind="stable")
        found: np.ndarray | None = None
        for part in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(places) else ():
            shard = self.shards[int(numbers[part[0]])]
            start, width, _, _ = shard.columns[name]
            content = self._content(shard)[start : start + shard.count * width].reshape(-1, width)
            found = np.empty((len(places), width), np.uint8) if found is None else found
            found[part] = content[rows[part]]
            self._touched += len(part) * width + AROUND
        return np.empty((0, 0), np.uint8) if found is None else found

    def _content(self, shard: Shard) -> np.ndarray:
        """A shard's bytes, in use until TOUCHED: bounds what this process holds of memory and of open files."""
        if self._touched > TOUCHED:
            self._open_now.clear()
            self._touched = 0
        if shard not in self._open_now:
            try:
                self._open_now[shard] = shard.open()
            except (OSError, ValueError) as error:  # ValueError: it is shorter than it was
                raise self.unreadable(error) from error
        return self._open_now[shard]

    def writer(self, **metadata: str) -> "Writer":
        """A place to put rows; see Writer."""
        return Writer(self, metadata)

    def refuse_to_fill(self, needed: int) -> None:
        """Raise SdxlNbError when the disk has no room for so many more bytes."""
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        with contextlib.suppress(OSError):
            about = os.statvfs(existing)
            free = about.f_bavail * about.f_frsize
            if free < needed:
                raise SdxlNbError(
                    f"The cache folder {self.folder} has {_size(free)} free and this cache needs {_size(needed)}: "
                    f"make room, {self.advice}."
                )

    def unreadable(self, error: OSError | ValueError) -> SdxlNbError:
        scarce = getattr(error, "errno", None) in SCARCE
        remedy = "allow more open files (ulimit -n)" if scarce else "it lost files while it was used, start again"
        reason = (getattr(error, "strerror", None) or "file too short").lower()
        return SdxlNbError(f"Cannot read the cache folder {self.folder} ({reason}): {remedy}, or {self.advice}.")

    def unwritable(self, error: OSError, needed: int) -> SdxlNbError:
        reason = (error.strerror or type(error).__name__).lower()
        return SdxlNbError(
            f"Cannot write {_size(needed)} to the cache folder {self.folder} ({reason}): make room, {self.advice}."
        )


class Writer:
    """Gathers rows into shards of one shape; leaving the `with` block publishes what is left, also when stopped.

    Raises SdxlNbError when the folder cannot be written; earlier shards stay.
    """

    def __init__(self, store: Store, metadata: dict[str, str]):
        self.store, self.metadata = store, metadata
        self.rows: list[dict[str, torch.Tensor]] = []
        self.keys: list[bytes] = []

    def __enter__(self) -> "Writer":
        try:
            self.store.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise self.store.unwritable(error, 0) from error
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt | Stopped):
            self.publish()

    def _sweep(self) -> None:
        """Remove what killed runs left half-written; a draft is written in seconds."""
        for draft in self.store.folder.glob(".*.draft"):
            with contextlib.suppress(OSError):
                if draft.stat().st_mtime < time.time() - 3600:
                    draft.unlink()

    def add(self, key: bytes, **row: torch.Tensor) -> None:
        """Put one row, the same columns each time; a full shard is published at once."""
        self.keys.append(key)
        self.rows.append(row)
        if len(self.keys) >= ROWS or len(self.keys) * _bytes(row) >= BYTES:
            self.publish()

    def publish(self) -> None:
        """Write the gathered rows as one shard, unless another run has published all of them meanwhile."""
        if not self.keys:
            return
        keys, self.keys, rows, self.rows = self.keys, [], self.rows, []
        self.store.refresh()
        if (self.store.find(np.array(keys, KEY)) >= 0).all():
            return
        columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        packed = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(len(keys), 16)
        try:
            _write(self.store.folder, columns | {"keys": packed}, self.metadata)
        except OSError as error:
            raise self.store.unwritable(error, sum(map(_bytes, rows))) from error
        self.store.refresh()


def _bytes(row: dict[str, torch.Tensor]) -> int:
    return 16 + sum(tensor.nbytes for tensor in row.values())


def _write(folder: Path, columns: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    """One shard, complete or not at all. Larger items first, as safetensors wants it: every column is then aligned."""
    name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.safetensors"
    draft = folder / f".{name}.draft"
    checksum, sealed = 0, int(time.time())
    parts: list[memoryview] = []
    header: dict[str, object] = {}
    for column, tensor in sorted(columns.items(), key=lambda item: -item[1].dtype.itemsize):
        data = tensor.contiguous().view(torch.uint8).numpy().reshape(-1)
        begin = sum(part.nbytes for part in parts)
        offsets = [begin, begin + len(data)]
        header[column] = {"dtype": TAGS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(data.data)
        checksum = zlib.crc32(data.data, checksum)
    header["__metadata__"] = metadata | {"crc32": str(checksum), "sealed": str(sealed)}
    try:
        with open(draft, "wb") as file:
            _write_all(file, [_padded(json.dumps(header).encode()), *parts])
        os.utime(draft, (sealed, sealed))
        os.rename(draft, folder / name)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(folder)
    return folder / name


def _padded(head: bytes) -> bytes:
    """The header with its length, filled up with spaces to a multiple of 64 bytes."""
    head += b" " * (-(8 + len(head)) % 64)
    return len(head).to_bytes(8, "little") + head


def _write_all(file: BinaryIO, parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        file.write(part)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 1) / 1e6:.1f} MB"
