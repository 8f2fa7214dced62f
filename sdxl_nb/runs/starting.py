"""Starting the process that trains: what is wrong is refused before, and what goes wrong at its start is raised.

In: a TrainConfig. Out: a process of its own (process.py), for which the run folder is free. The command line holds
settings only: no token is one.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.messages import shown
from ..system.errors import ConfigError, SdxlNbError
from .process import Launched

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

PATIENCE = 10.0  # seconds that `launch` waits for the run to begin: what is wrong is mostly known by then


def begin(config: "TrainConfig", num_processes: int = 1, *, say: Callable[[str], object] = print) -> None:
    """`launch`, but for the Run: the process is started, and has begun its run or is still starting."""
    from ..config.machine import check_machine
    from ..config.train_config import TrainConfig
    from .folder import RunFolder

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


def command(config: "TrainConfig", num_processes: int = 1) -> list[str]:
    """The command line that trains as `config` says."""
    python = [sys.executable, "-m"]
    if num_processes > 1:  # accelerate launch cannot do it on CPUs; accelerate itself finds torchrun's processes
        python += ["torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}", "-m"]
    return [*python, "sdxl_nb.train", *config.to_flags()]


def _refuse_empty(config: "TrainConfig") -> None:
    """Raise DataError when the pictures' folder holds nothing at all. To list what it holds may take long: not here."""
    place = config.train_data_dir or config.dataset_name or ""
    folder = os.path.expanduser(place)
    if not os.path.isdir(folder):
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        if next(entries, None):
            return
    from ..data.dataset import list_directory

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
