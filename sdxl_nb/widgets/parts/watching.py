"""What every widget does in the same way: say errors where they happen, work aside, look at a run again and again.

Jupyter shows neither an exception of a button's handler nor one of a thread, so each is caught and said in the
widget itself (`Notice`). Nothing here prints, and nothing uses `ipywidgets.Output`, which would swallow errors.
"""

import difflib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from html import escape
from typing import Any, Protocol

from ipywidgets import HTML
from traitlets import TraitType

from ...runs.run import GOING_ON, Run
from ...system.errors import SdxlNbError, in_python

OFTEN, RARELY = 1.0, 4.0  # seconds between two looks at a run that goes on, and at one that is over
SHARE = 0.05  # of one core that looking may take at most


class Notice(HTML):
    """One line of a widget: what was done, or what went wrong and what to do about it."""

    def say(self, text: str) -> None:
        """Show a sentence."""
        self.value = f'<span role="status">{escape(text)}</span>' if text else ""

    def fail(self, error: BaseException) -> None:
        """Show an error: the sentence of one of ours, else its kind and message."""
        text = in_python(str(error)) if isinstance(error, SdxlNbError) else f"{type(error).__name__}: {error}"
        self.value = f'<span role="alert" style="color:var(--jp-error-color1)">{escape(text)}</span>'

    def guard(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """The handler, with its errors shown here instead of lost; it returns None when it fails."""

        def guarded(*arguments: Any) -> Any:
            try:
                return handler(*arguments)
            except Exception as error:
                self.fail(error)
                return None

        return guarded


def after_the_cell(action: Callable[[], object]) -> object:
    """Do it when the cell that builds a widget has ended, at once where no kernel is.

    What a worker does meanwhile, such as importing transformers, takes the interpreter from the cell at each message
    that it sends: with hundreds of models the page comes seconds later.
    """
    shell: Any = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if getattr(shell, "kernel", None) is None:
        return action()

    def ended(*_: Any) -> None:
        shell.events.unregister("post_run_cell", ended)
        action()

    return shell.events.register("post_run_cell", ended)


class Watching(Protocol):
    """A widget that looks at a run: where it says what went wrong, and `comm`, which is None once it is closed."""

    _notice: Notice
    comm: Any


class GoesOn(Protocol):
    """What is looked at again and again: a run, or a list of them."""

    @property
    def status(self) -> str: ...


class Worker:
    """Runs one job at a time in a thread of its own; of those that come meanwhile only the newest follows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: Callable[[], object] | None = None
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], object]) -> None:
        """Run the job now, or after the present one."""
        with self._lock:
            self._next = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                job, self._next = self._next, None
                if job is None:
                    self._thread = None
                    return
            job()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all is done."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)


def watched(widget: Watching, run: GoesOn, refresh: Callable[[], object]) -> threading.Event:
    """Call `refresh` again and again in a thread until the widget is closed; returns the event that ends it."""
    over, look = threading.Event(), widget._notice.guard(refresh)
    goes_on = widget._notice.guard(lambda: run.status in GOING_ON)

    def watch() -> None:
        spent = 0.0  # seconds of a core that the last look took
        while not over.wait(max(OFTEN if goes_on() else RARELY, spent / SHARE)):
            if widget.comm is None:
                return
            begun = time.thread_time()
            look()
            spent = time.thread_time() - begun

    threading.Thread(target=watch, daemon=True).start()
    return over


def run_of(widget: type, given: object) -> Run:
    """The Run that a widget was given, or the one in a folder, S3 prefix or job. Raises SdxlNbError for all else."""
    if isinstance(given, Run):
        return given
    if isinstance(given, str | os.PathLike):
        return Run.open(given)
    kind = type(given).__name__
    raise SdxlNbError(f"{widget.__name__} shows a Run, or the output_dir of one, not a {kind}: give Run.open(folder).")


def check_traits(widget: type, given: Iterable[str], also: Iterable[str] = ()) -> None:
    """Raise TypeError for a keyword that is no trait of this widget's own, naming the nearest one."""
    known = [*also, *(name for name, trait in vars(widget).items() if isinstance(trait, TraitType))]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else f"; it has {', '.join(known)}."
            raise TypeError(f"{widget.__name__} has no setting {name}{hint}")
