"""How a run ends: the last event and status whatever happens, and a sentence for what the machine refused.

In: exceptions. Out: SdxlNbError where the reason is known (no space, no permission, no memory), the exception else.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from ..config.layout import checkpoints
from ..lora.acceleration import is_compiler, not_compiled
from ..runs.events import EventLog
from ..system.errors import SdxlNbError
from ..system.memory import NO_MEMORY, TooLittleMemory, is_out_of_memory

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)
REFUSED = (*FULL, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


@contextlib.contextmanager
def ending(log: EventLog, begun: float) -> Iterator[dict[str, str]]:
    """Write the `end` event with the status that the block puts into the dict; an exception fails the run."""
    outcome = {"status": "failed"}
    try:
        yield outcome
    except BaseException as problem:
        status = "stopped" if isinstance(problem, KeyboardInterrupt) else "failed"
        with contextlib.suppress(Exception):  # the first problem is the one to tell
            log.end(status=status, error=_in_a_line(problem), seconds=_since(begun))
        raise
    log.end(error=None, seconds=_since(begun), **outcome)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn errors of the disk or of memory into SdxlNbError."""
    try:
        yield
    except RuntimeError as error:
        if is_compiler(error):
            raise not_compiled(error) from error
        if not is_out_of_memory(error):
            raise
        raise TooLittleMemory(NO_MEMORY) from error
    except OSError as error:
        if error.errno not in REFUSED or not _inside(folder, error.filename):
            raise
        raise SdxlNbError(_cannot_write(folder, error.strerror or type(error).__name__)) from error
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        raise SdxlNbError(_cannot_write(folder, str(error).split(": ")[-1].partition(" (os error")[0])) from error


def _inside(folder: Path, name: object) -> bool:
    """Whether an error's file is one of the run's; a write into an open file names none."""
    return not isinstance(name, str | os.PathLike) or Path(name).absolute().is_relative_to(folder.absolute())


def _cannot_write(folder: Path, reason: str) -> str:
    newest = None
    with contextlib.suppress(OSError):  # it may be the folder itself that cannot be read
        newest = next(reversed(checkpoints(folder)), None)
    kept = f"; {newest.name} is complete" if newest else ""
    return f"Cannot write to output_dir {folder} ({reason.lower()}): make room or choose another folder{kept}."


def _in_a_line(problem: BaseException) -> str:
    if isinstance(problem, KeyboardInterrupt):
        return "Interrupted at once: steps since the last checkpoint are lost."
    text = str(problem) if isinstance(problem, SdxlNbError) else f"{type(problem).__name__}: {problem}"
    return text.splitlines()[0]


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 2)
