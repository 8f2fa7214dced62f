"""Training in a process of its own, which goes on when the kernel that launched it is gone.

In: a TrainConfig. Out: its Run. The process belongs to a session of its own, so that neither an interrupt of the
kernel nor its restart reaches it; what it prints goes to `process.txt` in the run folder, and `process.json` says which
process it is and what it was asked for. The command line and that file hold settings only: no token is one.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .complaints import shown
from .errors import ConfigError, SdxlNbError
from .events import update

if TYPE_CHECKING:
    from .config import TrainConfig
    from .run import Run

PATIENCE = 10.0  # seconds that `launch` waits for the run to begin: what is wrong is mostly known by then
GRACE = 40.0  # seconds that a process which still starts has to end itself; torchrun gives its own 30
SILENCE = 900.0  # seconds without a word after which a run on another machine is gone, if it holds no lock
RAISED = re.compile(
    r"(?:\[rank\d+\]: ?)?((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)"
)  # a traceback's last line
BAR = re.compile(r".*?\|.*?\| *\S+/\S+ \[.*?\]")  # a progress bar's line, as far as it is one
LAUNCHERS = ("CalledProcessError", "ChildFailedError")  # what torchrun raises when one of its processes has failed


def launch(config: "TrainConfig", num_processes: int = 1, *, say: Callable[[str], Any] = print) -> "Run":
    """Train as `config` says in a process of its own, or in several through torchrun; returns the Run at once.

    At once means when the run has begun, or after PATIENCE seconds: with many pictures to look at or a model to
    download the Run is `starting` until then, and `say` gets a line about it. Raises ConfigError before a process is
    started, or DataError for an empty folder of pictures, and SdxlNbError with the sentence that the process ended with
    meanwhile, or the first line of its exception; what fails later is the run's `error`. An interrupt ends the waiting
    and not the run.
    """
    from .config import TrainConfig
    from .folder import RunFolder
    from .machine import check_machine
    from .run import Run

    if not isinstance(config, TrainConfig):
        advice = 'TrainConfig.preset("tiny") starts from a preset, TrainConfig.load(file) reads a file'
        raise TypeError(f"launch takes a TrainConfig, not {shown(config)}: {advice}")
    check_machine(config)
    _refuse_empty(config)
    _check_processes(num_processes)
    launched = Launched(Path(config.output_dir))
    if launched.status() == "starting":  # it takes the folder's lock only when it has imported torch
        raise ConfigError(f"output_dir {config.output_dir} belongs to a run that is starting: choose another")
    folder = RunFolder(config)
    try:
        folder.refuse_foreign(config)
    finally:
        folder.release()
    process = launched.start(
        command(config, num_processes), config=config.model_dump(mode="json"), processes=num_processes
    )
    try:
        begun = _wait(launched, process)
    except KeyboardInterrupt:  # a kernel that is restarted sends one before it goes
        begun = False
    except SdxlNbError:
        launched.forget()
        raise
    finally:
        threading.Thread(target=process.wait, daemon=True).start()  # or it would stay as a zombie when it has ended
    if not begun:
        say(f"The run in {config.output_dir} is still starting: RunMonitor(run) follows it, run.stop() ends it.")
    return Run(config.output_dir)


def command(config: "TrainConfig", num_processes: int = 1) -> list[str]:
    """The command line that trains as `config` says."""
    python = [sys.executable, "-m"]
    if num_processes > 1:  # accelerate launch cannot do it on CPUs; accelerate itself finds torchrun's processes
        python += ["torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}", "-m"]
    return [*python, "sdxl_nb.train", *config.to_flags()]


def _refuse_empty(config: "TrainConfig") -> None:
    """Raise DataError when the pictures' folder holds nothing at all. To list what it holds may take long: not here."""
    place = config.train_data_dir or config.dataset_name
    folder = os.path.expanduser(place)
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        if next(entries, None):
            return
    from .data import list_directory

    list_directory(place, config)  # which says what is wrong


def _check_processes(wanted: int) -> None:
    import torch

    if wanted < 1:
        raise ConfigError(f"num_processes must be at least 1, not {wanted}")
    if torch.cuda.is_available() and wanted > torch.cuda.device_count():
        raise ConfigError(f"num_processes {wanted} is more than the {torch.cuda.device_count()} GPUs of this machine")


def _wait(launched: "Launched", process: subprocess.Popen[bytes]) -> bool:
    """Whether the run has begun, waiting a while for it; SdxlNbError when the process ends before."""
    until = time.monotonic() + PATIENCE
    while not launched.has_begun():
        ended = process.poll() is not None  # asked first: it may begin, and even end, between the two questions
        if ended and not launched.has_begun():
            raise SdxlNbError(launched.error())
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


class Launched:
    """The process that `launch` started for a run folder, as its two files tell of it."""

    def __init__(self, folder: Path):
        self.folder, self.made, self.again = folder, [], False
        self.file, self.output = folder / "process.json", folder / "process.txt"

    def about(self) -> dict[str, Any]:
        """pid, host, when it was started, whether it was ended, and what `start` was told; empty when not launched."""
        return _read(self.file)

    def start(self, command: list[str], **about: Any) -> "subprocess.Popen[bytes]":
        """Start the command in a session of its own, its output going to `process.txt`; `about` is kept beside it."""
        self.again = self.status() is not None
        self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
        started = round(time.time(), 3)
        with open(self.output, "wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        update(self.file, pid=process.pid, host=socket.gethostname(), started=started, ended=False, **about)
        return process

    def has_begun(self) -> bool:
        """Whether `run.json` is this process's own, and so says more than it."""
        return _read(self.folder / "run.json").get("started", 0) >= self.about().get("started", 0)

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
        from .config import TrainConfig

        asked = self.about().get("config") if self.status() else None
        return TrainConfig(**asked) if asked else None

    def replaces(self) -> bool:
        """Whether what the folder holds is of another run, which this one has not replaced yet."""
        asked = self.about().get("config")
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
        log, words = self.folder / "log.txt", []
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
            _signal(about["pid"], signal.SIGTERM)
            threading.Thread(target=self._insist, args=(about["pid"],), daemon=True).start()

    def _insist(self, pid: int) -> None:
        """Kill the process when it has not heard that it is to end: a download may be deaf to signals."""
        until = time.monotonic() + GRACE
        while alive(pid) and time.monotonic() < until:
            time.sleep(0.1)
        if alive(pid) and not self.has_begun():
            _signal(pid, signal.SIGKILL)

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


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def is_taken(folder: Path) -> bool:
    """Whether a process holds the folder's lock; a killed one does not, whoever has its pid now. OSError if unknown."""
    if not (folder / "lock").exists():
        return False
    try:
        with FileLock(folder / "lock", timeout=0):
            return False
    except Timeout:
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
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (PermissionError, FileNotFoundError):  # another user's, or a system without /proc
        return True
