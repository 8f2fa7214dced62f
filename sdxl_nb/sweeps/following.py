"""One trial trained in a process of its own, followed until it is over: begun, gone on with, or found still going.

In: a TrainConfig whose output_dir is the trial's. Out: its Run, over. What is told of every event may end it.
"""

import time
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..runs.launcher import launch
from ..runs.run import GOING_ON, Run
from ..system.errors import SdxlNbError

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

INTERVAL = 0.5  # seconds between two looks

Told = Callable[[dict[str, Any]], bool]  # whether to end the trial after this event


def train(config: "TrainConfig", told: Told) -> Run:
    """Train a trial, or go on with it, and tell of every event, from the first one on; end it where that says True."""
    run, found = _begun(config)
    seen, ended = 0, False
    while True:
        going = run.status in GOING_ON  # asked first: what it writes before it ends is read after
        events = list(run.events())
        for event in events[seen:]:
            ended = ended or told(event)
        seen = len(events)
        if found and not ended and run.status == "interrupted":  # whoever killed the sweep before killed it too
            run, found = run.resume(say=_silent), False
            continue
        if not going:
            return run
        if ended or told({"event": "look"}):
            run.stop()
            ended = True
        time.sleep(INTERVAL)


def _begun(config: "TrainConfig") -> tuple[Run, bool]:
    """The run of a trial, going on or over, and whether it was found going on."""
    try:
        run = Run.open(config.output_dir)
        status = run.status
    except SdxlNbError:
        return launch(config, say=_silent), False
    if status in (*GOING_ON, "completed", "failed"):
        return run, status in GOING_ON
    return run.resume(say=_silent), False


def _silent(line: str) -> None:
    """Nothing is said of a process that still starts: the sweep says what it does."""


def training_seconds(run: Run) -> float:
    """Seconds that a run has trained, pauses between two processes left out."""
    events = list(run.events())
    pairs = pairwise(events)
    return sum(max(0.0, later["time"] - one["time"]) for one, later in pairs if later["event"] != "start")
