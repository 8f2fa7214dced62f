"""The process that `launch` started for a run folder, as seen by whoever watches it: begun, going on, ended, and why.

In: a run folder. Out: what `process.json` and `process.txt` tell; whether its lock is held, and its pid alive. The
process belongs to a session of its own, so that neither an interrupt of the kernel nor its restart reaches it.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import fcntl

import psutil
from filelock import FileLock, Timeout

from .events import noted, update

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

# a session of its own; what Windows has for that is a group of processes
APART: dict[str, Any] = {"start_new_session": True}
if sys.platform == "win32":
    APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
GRACE = 40.0  # seconds that a process which still starts has to end itself; torchrun gives its own 30
SILENCE = 900.0  # seconds without a word after which a run on another machine is gone, if it holds no lock
RAISED = re.compile(
    r"(?:\[rank\d+\]: ?)?((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)"
)  # a traceback's last line
BAR = re.compile(r".*?\|.*?\| *\S+/\S+ \[.*?\]")  # a progress bar's line, as far as it is one
LAUNCHERS = ("CalledProcessError", "ChildFailedError")  # what torchrun raises when one of its processes has failed


class Launched:
    """The process that `launch` started for a run folder, as its two files tell of it."""

    def __init__(self, folder: Path):
        self.folder, self.again = folder, False
        self.made: list[Path] = []  # folders that were not there before
        self.file, self.output = folder / "process.json", folder / "process.txt"

    def about(self) -> dict[str, Any]:
        """pid, host, when it was started, whether it was ended, and what `start` was told; empty when not launched."""
        return noted(self.file)

    def start(self, command: list[str], **about: Any) -> "subprocess.Popen[bytes]":
        """Start the command in a session of its own, its output going to `process.txt`; `about` is kept beside it."""
        self.again = self.status() is not None
        self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
        started = round(time.time(), 3)
        with open(self.output, "wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, **APART
            )
        update(self.file, pid=process.pid, host=socket.gethostname(), started=started, ended=False, **about)
        return process

    def has_begun(self) -> bool:
        """Whether `run.json` is this process's own, and so says more than it."""
        begun: float = noted(self.folder / "run.json").get("started", 0)
        launched: float = self.about().get("started", 0)
        return begun >= launched

    def status(self) -> str | None:
        """starting, failed or stopped as long as the process has not begun its run; None from then on."""
        about = self.about()
        if not about or self.has_begun():
            return None
        here = about["host"] == socket.gethostname()
        if alive(about["pid"]) if here else is_heard_of(self.folder, self.output):
            return "starting"
        return None if self.has_begun() else "stopped" if about["ended"] else "failed"

    def config(self) -> "TrainConfig | None":
        """What the process was asked for, as long as it has not begun its run; None from then on."""
        from ..config.train_config import TrainConfig

        asked = self.about().get("config") if self.status() else None
        return TrainConfig(**asked) if asked else None

    def replaces(self) -> bool:
        """Whether what the folder holds is of another run, which this one has not replaced yet."""
        asked = self.about().get("config") or {}
        return bool(asked) and not asked["resume_from_checkpoint"] and not self.has_begun()

    def error(self) -> str:
        """The sentence that the process ended with, or the first line of its exception."""
        lines = self._lines()
        last = next(reversed(lines), "it was killed, or ran out of memory")
        return _reason(lines) or f"The training process ended before it began: {last}"

    def last_word(self, since: float) -> str | None:
        """What the process said after its last bar and line of its log, if it was writing later than `since`."""
        if not self.output.exists() or self.output.stat().st_mtime < since:  # another process is the run's
            return None
        log = self.folder / "log.txt"
        words: list[str] = []
        known = set(log.read_text(errors="replace").splitlines()) if log.exists() else set()
        for line in self._lines():
            rest = BAR.sub("", line).strip()
            words = [*words, rest] if rest and line not in known else []
        return _reason(words) or next(reversed(words), None)

    def _lines(self) -> list[str]:
        """The lines in `process.txt` that are not empty, of a bar its last state."""
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        lines = (line.rstrip("\r").rpartition("\r")[2].strip() for line in text.split("\n"))
        return [line for line in lines if line]

    def end(self) -> None:
        """End the process, and those it has started."""
        about = self.about()
        update(self.file, ended=True)
        if about["host"] == socket.gethostname() and alive(about["pid"]):
            _end(about["pid"])
            threading.Thread(target=self._insist, args=(about["pid"],), daemon=True).start()

    def _insist(self, pid: int) -> None:
        """Kill the process when it has not heard that it is to end: a download may be deaf to signals."""
        until = time.monotonic() + GRACE
        while alive(pid) and time.monotonic() < until:
            time.sleep(0.1)
        if alive(pid) and not self.has_begun():
            _end(pid, at_once=True)

    def forget(self) -> None:
        """Remove the two files, and the folders made for them if nothing else is there; not when they were before."""
        if self.again:
            return
        for file in (self.file, self.output):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, then
            for folder in self.made:
                folder.rmdir()


def _reason(lines: list[str]) -> str | None:
    """The last sentence of ours, or else the last exception's first line, among these lines."""
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raised = [match[1] for match in map(RAISED.fullmatch, lines) if match]
    raised = [line for line in raised if line.partition(":")[0].rpartition(".")[2] not in LAUNCHERS]
    return next(reversed(said or raised), None)


def _end(pid: int, at_once: bool = False) -> None:
    """Ask the process and those it has started to end, or end them; Windows knows no asking."""
    if sys.platform != "win32":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL if at_once else signal.SIGTERM)
        return
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            each.kill()


def is_taken(folder: Path) -> bool:
    """Whether a process holds the folder's lock; a killed one does not, whoever has its pid now. OSError if unknown.

    It is shared by those who only look, where a system has that: none of two at once takes the other for a run.
    """
    if not (folder / "lock").exists():
        return False
    try:
        if sys.platform == "win32":
            with FileLock(folder / "lock", timeout=0):
                return False
        with open(folder / "lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:  # by now
        return False
    except (Timeout, BlockingIOError):
        return True


def is_heard_of(folder: Path, *files: Path) -> bool:
    """Whether a run on another machine goes on: its lock is held, or it wrote to one of these files not long ago.

    The lock alone would not do: not every network file system shows it to other machines.
    """
    with contextlib.suppress(OSError):
        if is_taken(folder):
            return True
    return any(time.time() - file.stat().st_mtime < SILENCE for file in files if file.exists())


def alive(pid: int) -> bool:
    """Whether a process has this pid and goes on; one that has ended and is only not asked for its code does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's
        return True
