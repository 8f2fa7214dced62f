"""Being asked for something: to stop, by Ctrl-C, SIGTERM, or a file named `stop` in the run folder; to draw or to save
now, by a file `draw_now` or `save_now` there. Training looks once a step.
"""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..config.layout import DRAW, SAVE

Handler = Callable[[int, FrameType | None], Any] | int | None  # what Python had for a signal


class StopRequest:
    """While active, SIGINT and SIGTERM interrupt at once as long as there is no step to finish (KeyboardInterrupt).

    After `defer` they ask for a stop after the current step, and only a second SIGINT interrupts.
    """

    def __init__(self, file: Path):
        self.file, self._asked, self._deferred = file, False, False
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows signal handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """From now on a signal waits for the end of the step."""
        self._deferred = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._deferred or (self._asked and number == signal.SIGINT):
            raise KeyboardInterrupt
        self._asked = True

    def asked(self) -> bool:
        """Whether anyone has asked; cheap."""
        return self._asked or self.file.exists()


def taken(folder: Path) -> set[str]:
    """What a run is asked for while it goes on, since the last time: a file for each, gone as soon as it is taken."""
    asked = {wish for wish in (DRAW, SAVE) if (folder / wish).exists()}
    for wish in asked:
        (folder / wish).unlink(missing_ok=True)
    return asked
