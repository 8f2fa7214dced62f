"""What every test runs under: few threads, no secrets, no network, and under CI no skipped test."""

import gc
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from costs import Costs

SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # two workers on two cores; and the thread count is part of "bit for bit"
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",  # each thread of a worker would keep memory for itself
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "WANDB_MODE": "offline",
    "AWS_EC2_METADATA_DISABLED": "true",
}

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit what the first process sets, before torch is imported
    _home = tempfile.TemporaryDirectory(prefix="sdxl_nb-hub-")  # kept until the last test is done
    os.environ.update(SETTINGS, HF_HOME=_home.name, SDXL_NB_CACHE=os.path.join(_home.name, "sdxl_nb"))
    for name in (*SECRETS, "PYTHONDONTWRITEBYTECODE"):  # what dozens of processes import is compiled once
        os.environ.pop(name, None)
    sys.dont_write_bytecode = False


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test finds an empty cache: what another has computed must not decide what this one sees."""
    monkeypatch.setenv("SDXL_NB_CACHE", os.path.join(os.environ["HF_HOME"], "sdxl_nb", secrets.token_hex(8)))


@pytest.fixture(autouse=True)
def _no_work_left() -> Iterator[None]:
    """A widget ends with its test: its worker, loading a model, would leave layers that the next one makes empty."""
    yield
    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].Widget.close_all()
    for ending in ("(watch)", "(_watch)", "(_run)"):  # those who watch, monitors too, give work to the others
        for thread in threading.enumerate():
            if thread.name.endswith(ending):
                thread.join(600)


# those that take longest, so that no worker waits at the end
FIRST = ("browser", "aws", "notebooks", "preflight", "training", "runs", "package", "lora", "models", "widgets")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long; `--no-loadscope-reorder` keeps it so. Files stay whole."""
    places = {folder: place for place, folder in enumerate(FIRST)}
    items.sort(key=lambda item: min(places.get(part, len(places)) for part in item.nodeid.split("::")[0].split("/")))


def pytest_configure(config: pytest.Config) -> None:
    """Count what the run costs."""
    config.pluginmanager.register(Costs(), "costs")


gc.disable()  # while modules are imported, nothing is to be found


def pytest_collection_finish() -> None:
    """Sort garbage out again."""
    gc.enable()


_imported = 0  # modules, when garbage was last sorted out


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Keep what imports have left out of the garbage collector's sight: each training collects twice, and would look
    through a million objects that stay."""
    global _imported
    if len(sys.modules) > _imported + 100:
        gc.collect()
        gc.freeze()
        _imported = len(sys.modules)


def _stay_here(event: str, args: tuple[Any, ...]) -> None:
    """Refuse connections that leave this machine, whoever tries."""
    if event != "socket.connect" or not isinstance(args[1], tuple):  # a Unix socket's address is no tuple
        return
    host = str(args[1][0])
    if not host.startswith("127.") and host not in ("::1", "localhost", "0.0.0.0"):
        raise OSError(f"tests connect to this machine only, not to {host}")


sys.addaudithook(_stay_here)


def _skips_under_ci(config: pytest.Config) -> list[Any]:
    """The skipped tests of a CI run; elsewhere none."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter and os.environ.get("CI") == "true" else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI a skipped test fails the run."""
    if _skips_under_ci(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say so, above pytest's closing line."""
    if skipped := _skips_under_ci(config):
        terminalreporter.write_line(f"CI fails: {len(skipped)} skipped; a test must run or be removed.", red=True)
