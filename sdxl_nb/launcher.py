"""Training in a process of its own, which goes on when the kernel that launched it is gone.

In: a TrainConfig. Out: its Run. The process belongs to a session of its own, so that neither an interrupt of the
kernel nor its restart reaches it; what it prints goes to `process.txt` in the run folder, and `process.json` says which
process it is. The command line holds settings only: no token is one.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, SdxlNbError
from .events import update

if TYPE_CHECKING:
    from .config import TrainConfig
    from .run import Run

PATIENCE = 120.0  # seconds that `launch` waits for the first sign of life: a model may be downloading
RAISED = re.compile(
    r"(?:\[rank\d+\]: ?)?((?:\w+\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)"
)  # a traceback's last line
LAUNCHERS = ("CalledProcessError", "ChildFailedError")  # what torchrun raises when one of its processes has failed


def launch(config: "TrainConfig", num_processes: int = 1) -> "Run":
    """Train as `config` says in a process of its own, or in several through torchrun; returns the Run at once.

    At once means when the run has begun, or is known to have failed: after the seconds that importing torch and looking
    at the pictures take. Raises ConfigError before a process is started, and SdxlNbError with the sentence that the
    process ended with, or the first line of its exception.
    """
    from .folder import RunFolder
    from .machine import check_machine
    from .run import Run

    check_machine(config)
    _check_processes(num_processes)
    folder = RunFolder(config)
    try:
        folder.refuse_foreign(config)
    finally:
        folder.release()
    launched = Launched(Path(config.output_dir))
    process = launched.start(command(config, num_processes))
    try:
        _wait(launched, process)
    except BaseException:  # an interrupt too: whoever gives up here wants no run
        launched.end()
        launched.forget()
        raise
    finally:
        threading.Thread(target=process.wait, daemon=True).start()  # or it would stay as a zombie when it has ended
    return Run(config.output_dir)


def command(config: "TrainConfig", num_processes: int = 1) -> list[str]:
    """The command line that trains as `config` says."""
    python = [sys.executable, "-m"]
    if num_processes > 1:  # accelerate launch cannot do it on CPUs; accelerate itself finds torchrun's processes
        python += ["torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}", "-m"]
    return [*python, "sdxl_nb.train", *config.to_flags()]


def _check_processes(wanted: int) -> None:
    import torch

    if wanted < 1:
        raise ConfigError(f"num_processes must be at least 1, not {wanted}")
    if torch.cuda.is_available() and wanted > torch.cuda.device_count():
        raise ConfigError(f"num_processes {wanted} is more than the {torch.cuda.device_count()} GPUs of this machine")


def _wait(launched: "Launched", process: subprocess.Popen[bytes]) -> None:
    """Until the run has begun; SdxlNbError when the process ends before."""
    until = time.monotonic() + PATIENCE
    while not launched.has_begun() and time.monotonic() < until:
        ended = process.poll() is not None  # asked first: it may begin, and even end, between the two questions
        if ended and not launched.has_begun():
            raise SdxlNbError(launched.error())
        time.sleep(0.1)


class Launched:
    """The process that `launch` started for a run folder, as its two files tell of it."""

    def __init__(self, folder: Path):
        self.folder, self.made = folder, []
        self.file, self.output = folder / "process.json", folder / "process.txt"

    def about(self) -> dict[str, Any]:
        """pid, host, when it was started, and whether it was ended; empty when the run was not launched."""
        return _read(self.file)

    def start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start the command in a session of its own, its output going to `process.txt`."""
        self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"TQDM_MININTERVAL": "10", "PYTHONUNBUFFERED": "1"}
        started = round(time.time(), 3)
        with open(self.output, "wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        update(self.file, pid=process.pid, host=socket.gethostname(), started=started, ended=False)
        return process

    def has_begun(self) -> bool:
        """Whether `run.json` is this process's own, and so says more than it."""
        return _read(self.folder / "run.json").get("started", 0) >= self.about().get("started", 0)

    def status(self) -> str | None:
        """starting, failed or stopped as long as the process has not begun its run; None from then on."""
        about = self.about()
        if not about or self.has_begun():
            return None
        if about["host"] != socket.gethostname() or alive(about["pid"]):
            return "starting"
        return None if self.has_begun() else "stopped" if about["ended"] else "failed"

    def error(self) -> str:
        """The sentence that the process ended with, or the first line of its exception."""
        lines = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raised = [match[1] for match in map(RAISED.fullmatch, lines) if match]
        raised = [line for line in raised if line.partition(":")[0].rpartition(".")[2] not in LAUNCHERS]
        last = next((line for line in reversed(lines) if line.strip()), "it was killed, or ran out of memory")
        return (said or raised or [f"The training process ended before it began: {last}"])[-1]

    def end(self) -> None:
        """End the process, and those it has started."""
        about = self.about()
        update(self.file, ended=True)
        if about["host"] == socket.gethostname() and alive(about["pid"]):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(about["pid"], signal.SIGTERM)

    def forget(self) -> None:
        """Remove the two files, and the folders that were made for them if nothing else is there."""
        for file in (self.file, self.output):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, then
            for folder in self.made:
                folder.rmdir()


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def alive(pid: int) -> bool:
    """Whether a process has this pid and goes on; one that has ended and is only not asked for its code does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except (PermissionError, FileNotFoundError):  # another user's, or a system without /proc
        return True
