"""A run at the pace that a test wants, and monitors of it that look when they are told to."""

import threading

import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.run import Run
from sdxl_nb.widgets.monitor.monitor import RunMonitor


class Trainer:
    """Writes a run folder as training does, holding its lock, at the pace that a test wants."""

    def __init__(self, path):
        self.config = TrainConfig(
            output_dir=str(path), seed=0, validation_prompt="a <b>card</b>", num_validation_images=1
        )
        self.folder = RunFolder(self.config)
        self.folder.begin(self.config, resumed_from=None)
        self.log = EventLog(path, quiet=True)
        self.path = path

    def start(self, steps, **more):
        self.log.emit("start", steps=steps, processes=1, resumed_from=None, **more)

    def steps(self, first, last):
        for self.log.step in range(first, last + 1):
            loss = {"train_loss": 1 / self.log.step, "lr": 1e-4, "seconds": 0.25, "memory": 3_500_000_000}
            self.log.emit("step", **loss)

    def draw(self, step, size=1024):
        (self.path / "validation" / f"step-{step}").mkdir(parents=True)
        Image.new("RGB", (size, size), "red").save(self.path / "validation" / f"step-{step}" / "00-0.png")

    def end(self, status, error=None):
        self.log.end(status=status, error=error, seconds=1.0)
        self.folder.release()


@pytest.fixture(name="trainer")
def trainer_fixture(tmp_path):
    made = Trainer(tmp_path / "run")
    yield made
    made.log.close()
    made.folder.release()


@pytest.fixture(name="watch")
def watch_fixture(trainer):
    """A monitor of the run; its thread is slow enough to leave the looking to the test."""
    opened = []

    def look(**traits):
        opened.append(RunMonitor(trainer.path, **{"interval": 1000.0} | traits))
        return opened[-1]

    yield look
    for monitor in opened:
        monitor.close()


def turn(monitor):
    """Let the monitor's thread look once more; the seconds after which it would look again."""
    wake, rested, asked = monitor._wake, threading.Event(), []

    def wait(seconds):
        if not wake.is_set():
            asked.append(seconds)
            rested.set()
        return threading.Event.wait(wake, seconds)

    wake.wait = wait
    wake.set()
    assert rested.wait(600)
    return asked[0]


def text(monitor):
    return monitor._headline.value + monitor._numbers.value + monitor._log.value


class Elsewhere(Run):
    """A run whose looks may fail, and that costs something to resume."""

    price = "It costs at most $3.00."

    def resume(self, *, say):
        self.price = None
        say("A job is starting.")
        return Run(self.folder)
