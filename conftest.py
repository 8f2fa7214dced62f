"""For notebooks run by nbmake: what goes wrong in a thread, a handler or a task fails the notebook too.

nbmake sees only what a cell raises. So each kernel starts with hooks that write every other exception to a file, and
the notebook fails when there is one. (What tests run under is in tests/conftest.py.)
"""

import os
from pathlib import Path

import pytest

HOOKS = """
import asyncio, logging, os, threading, traceback

_lost = os.environ["SDXL_NB_LOST_ERRORS"]


def _write(kind, value, trace):
    with open(_lost, "a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(kind, value, trace)))


class _Tasks(logging.Handler):
    def emit(self, record):
        with open(_lost, "a", encoding="utf-8") as file:
            file.write(self.format(record) + chr(10))


def _shown(shell, *arguments, **options):  # by a button's handler, an Output, an interact
    shell._sdxl_nb_showtraceback(*arguments, **options)
    import sys

    _write(*sys.exc_info())


threading.excepthook = lambda told: _write(told.exc_type, told.exc_value, told.exc_traceback)
logging.getLogger("asyncio").addHandler(_Tasks(logging.ERROR))
_shell = get_ipython()
_shell._sdxl_nb_showtraceback = _shell.showtraceback
_shell.showtraceback = _shown.__get__(_shell)
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    """Run a notebook in kernels with HOOKS; fail it for what they wrote."""
    if item.path.suffix != ".ipynb":
        return (yield)
    folder = Path(item.config._tmp_path_factory.mktemp("kernel"))  # a function of pytest's that has no public name
    (folder / "profile_default" / "startup").mkdir(parents=True)
    (folder / "profile_default" / "startup" / "hooks.py").write_text(HOOKS, encoding="utf-8")
    lost, before = folder / "lost.txt", os.environ.copy()
    os.environ |= {"IPYTHONDIR": str(folder), "SDXL_NB_LOST_ERRORS": str(lost)}
    try:
        result = yield
    finally:
        os.environ.clear()
        os.environ.update(before)
    if lost.exists():
        pytest.fail(f"{item.path.name} lost an exception:\n{lost.read_text(encoding='utf-8')}", pytrace=False)
    return result
