"""What a run reports while it trains: plain events, one JSON object a line, and the lines it prints.

Training calls `EventLog.emit`; everything that watches reads `events.jsonl`. Events: start, cache, step, heldout,
validation, checkpoint, warning, end; each has "event", "time" (seconds since 1970) and "step".
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from ..system.errors import SdxlNbError

Callback = Callable[[dict[str, Any]], None]
_UPDATING = threading.Lock()
BEGINNING = 64  # bytes by which a file is known again: they hold the time of its first event


class EventLog:
    """Appends to `events.jsonl` and `log.txt`, keeps `run.json`, and calls every listener with every event.

    With `writes=False` (any process but the first) nothing is written, printed or called.
    """

    def __init__(self, folder: Path, listeners: Sequence[Callback] = (), *, writes: bool = True, quiet: bool = False):
        self.folder, self.listeners, self.writes, self.quiet = folder, list(listeners), writes, quiet
        self.step = 0
        if writes:
            _end_torn_line(folder / "events.jsonl")
            self._events, self._log = _added_to(folder / "events.jsonl"), _added_to(folder / "log.txt")

    def emit(self, event: str, **fields: Any) -> None:
        """Report one event; non-finite numbers are written as null, so that every line is JSON."""
        if not self.writes:
            return
        record = {"event": event, "time": round(time.time(), 3), "step": self.step} | fields
        self._events.write(json.dumps(_finite(record), ensure_ascii=False) + "\n")
        self._events.flush()
        for listener in self.listeners:
            listener(record)

    def say(self, line: str) -> None:
        """Print a line above the progress bar and keep it in `log.txt`."""
        if not self.writes:
            return
        self._log.write(line + "\n")
        self._log.flush()
        if not self.quiet:
            from tqdm.std import tqdm

            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            tqdm.write(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)

    def warn(self, line: str) -> None:
        """Say a line and report it as an event too."""
        self.say(f"Note: {line}")
        self.emit("warning", message=line)

    def record(self, **fields: Any) -> None:
        """Update `run.json`."""
        if self.writes:
            update(self.folder / "run.json", **fields)

    def end(self, **fields: Any) -> None:
        """The last event; then `run.json` has its status, and the files are closed, whatever a listener does."""
        try:
            self.emit("end", **fields)
        finally:
            try:
                self.record(status=fields["status"])
            finally:
                self.close()

    def close(self) -> None:
        if self.writes:
            self._events.close()
            self._log.close()


def _added_to(path: Path) -> TextIO:
    """A file to add lines to, as long as the run lives."""
    # a file name may hold bytes that are no text; in JSON a backslash and u read back as what was written
    return open(path, "a", encoding="utf-8", errors="backslashreplace")


def identity() -> dict[str, Any]:
    """Who is running, for `run.json`."""
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": round(time.time(), 3)}


class EventReader:
    """The events of a file, read on from where the last call ended; safe in several threads.

    A half-written last line is left for the next call. What a resumed run did again replaces the first try; a file
    that was replaced by a shorter or another one is read anew.
    """

    def __init__(self, path: Path):
        self.path, self._lock = path, threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._begins, self._offset = b"", 0
        self._events: list[dict[str, Any]] = []

    def __call__(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        with self._lock:
            try:
                with open(self.path, "rb") as lines:
                    self._read_on(lines)
            except FileNotFoundError:
                self._forget()
            return list(self._events)

    def _read_on(self, lines: BinaryIO) -> None:
        begins = lines.read(BEGINNING)
        if begins[: len(self._begins)] != self._begins or os.fstat(lines.fileno()).st_size < self._offset:
            self._forget()
        self._begins = begins
        lines.seek(self._offset)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._offset += len(line)
            try:
                self._add(json.loads(line.decode(errors="replace")))  # a torn line may end within a letter
            except ValueError:
                continue  # a line that a killed run left torn

    def _add(self, event: dict[str, Any]) -> None:
        if event.get("event") == "start" and event.get("resumed_from") is not None:
            kept = event["resumed_from"]
            self._events = [
                e for e in self._events if e["event"] != "end" and (e["step"] <= kept or e["event"] == "start")
            ]
        self._events.append(event)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file; see EventReader."""
    yield from EventReader(path)()


def _end_torn_line(path: Path) -> None:
    """A run that was killed while writing leaves no newline: add it, so that the next event has its own line."""
    if path.exists() and path.stat().st_size:
        with open(path, "rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def noted(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is none. SdxlNbError for a file that holds anything else."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        raise SdxlNbError(f"{path} cannot be read: restore it, or train in another folder.")
    return known


def update(path: Path, **fields: Any) -> None:
    """Put fields into a JSON object's file, which readers see whole at any moment. Raises SdxlNbError as `noted`.

    A thread that watches and one that a button wakes may both have something to note.
    """
    with _UPDATING:
        _write_whole(path, json.dumps(noted(path) | fields, indent=1))


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
