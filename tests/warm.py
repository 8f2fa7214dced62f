"""Processes of this package, forked from the test's own process: they have imported already what they will use.

In: nothing; inside `processes()`, `subprocess` starts `python -m sdxl_nb.train`, and the other modules of MODULES, so.
Out: what it always gives. The process has a pid, a session, signals, an environment, a folder and an output of its own
and runs the module as `__main__`; only its interpreter is not a new one, which saves some six processor seconds. Where
the environment differs in what is read when a library is imported, the process is started as anywhere.

New interpreters start in package/test_option2.py, in the notebooks, and in every job of aws/test_pipeline_runs.py.
"""

import atexit
import contextlib
import faulthandler
import gc
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

MODULES = ("sdxl_nb.train", "sdxl_nb.container", "torch.distributed.run")
AT_IMPORT = ("HF_", "HUGGING_FACE", "OMP_", "MKL_", "PYTHONPATH", "CUDA_", "MPLBACKEND", "WANDB_", "DIFFUSERS_")


@contextlib.contextmanager
def processes() -> Iterator[None]:
    """Fork what tests start in here, and what that starts in its turn."""
    with mock.patch.object(subprocess, "Popen", _Warm):
        yield


class _Warm(subprocess.Popen):  # type: ignore[type-arg]
    """A process that runs a module without a new interpreter: it never comes to the program that it was started for."""

    def __init__(self, args: Sequence[str], *rest: Any, **options: Any):
        module, given = _module(args)
        if module in MODULES and not rest and _alike(options.get("env")):
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            options["preexec_fn"] = lambda: _become(module, given, options.get("env"), options.get("pass_fds", ()))
        super().__init__(args, *rest, **options)


def _module(args: Any) -> tuple[str, list[str]]:
    """The module of `python [-u] -m MODULE ...` and what follows it."""
    words = [word for word in args if word != "-u"] if isinstance(args, (list, tuple)) else []
    return (words[2], list(words[3:])) if words[:2] == [sys.executable, "-m"] and len(words) > 2 else ("", [])


def _alike(env: Mapping[str, str] | None) -> bool:
    """Whether all that is read at an import is as it was when this process imported."""
    if env is None:
        return True
    names = {name for name in {*env, *os.environ} if name.startswith(AT_IMPORT) and name != "HF_HOME"}
    return all(env.get(name) == os.environ.get(name) for name in names)


def _become(module: str, given: list[str], env: Mapping[str, str] | None, kept: Sequence[int]) -> None:
    """In the new process, in place of the program: run the module as `__main__`, and end as Python does."""
    code = 1
    try:
        _forget(env, kept)
        sys.argv = [module, *given]
        sys.modules.pop(module, None)
        code = _run(module)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _run(module: str) -> int:
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _forget(env: Mapping[str, str] | None, kept: Sequence[int]) -> None:
    """Leave behind what is pytest's: files, output, signals, warnings, what is done at the end."""
    gc.freeze()  # what was there before is not looked through
    faulthandler.disable()
    atexit._clear()
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    through = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)
    out = open(1, "w", encoding="utf-8", closefd=False)
    out.reconfigure(write_through=through)
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    _listen()


def _listen() -> None:
    """Logs and warnings go to the new process's own output."""
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    warnings._showwarnmsg_impl = lambda said: sys.stderr.write(warnings._formatwarnmsg(said))  # type: ignore[attr-defined]
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in list(getattr(logger, "handlers", ())):
            if "pytest" in type(handler).__module__:
                logger.removeHandler(handler)  # type: ignore[union-attr]
            elif isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                with contextlib.suppress(AttributeError):  # of some it is always sys.stderr
                    handler.stream = sys.stderr
