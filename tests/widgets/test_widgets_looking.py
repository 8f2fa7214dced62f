"""How the monitor looks at a run: how often, what it costs, what it says of trouble with looking."""

import shutil
import threading
import time

import pytest
from monitored import Elsewhere, Trainer, text, trainer_fixture, turn, watch_fixture  # noqa: F401 - fixtures

from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.monitor import monitor as monitors
from sdxl_nb.widgets.monitor import sights
from sdxl_nb.widgets.monitor.readings import duration


def test_only_the_state_is_announced_not_every_step(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 1)
    monitor, announced = watch(), []
    monitor._announced.observe(lambda change: announced.append(change.new), "value")
    assert ">Running</span>" in monitor._announced.value and 'role="status"' in monitor._announced.value
    trainer.steps(2, 3)
    monitor.refresh()
    assert "step 3 of 4" in monitor._headline.value and 'role="status"' not in monitor._headline.value
    assert announced == []
    trainer.end("stopped")
    monitor.refresh()
    assert len(announced) == 1 and ">Stopped</span>" in announced[0]


def test_the_thread_follows_by_itself_until_closed(trainer, watch):
    before = set(threading.enumerate())
    monitor = watch(interval=0.05)
    (thread,) = set(threading.enumerate()) - before
    heard = threading.Event()
    monitor.observe(lambda change: change.new == 2 and heard.set(), "step")
    trainer.start(4)
    trainer.steps(1, 2)
    assert heard.wait(600)
    monitor.close()
    thread.join(600)
    assert not thread.is_alive()  # so it sees no more


def test_the_thread_leaves_the_first_look_to_who_opens(trainer, watch, monkeypatch):
    """A second look at once would be of what has just been seen, at the same time as the cell that goes on."""
    looked, refresh = [], monitors.RunMonitor.refresh
    monkeypatch.setattr(
        monitors.RunMonitor, "refresh", lambda monitor: [looked.append(threading.current_thread()), refresh(monitor)]
    )
    trainer.start(4)
    turn(watch())
    assert len(looked) == 2 and looked[0] is threading.main_thread() and looked[1] is not looked[0]


def test_what_goes_wrong_while_looking_is_shown_and_looking_goes_on(trainer, watch):
    trainer.start(4)
    monitor = watch()
    shutil.move(trainer.path / "run.json", trainer.path / "elsewhere")
    turn(monitor)
    assert "any more: it was moved or deleted" in monitor._notice.value
    shutil.move(trainer.path / "elsewhere", trainer.path / "run.json")
    trainer.steps(1, 2)
    turn(monitor)
    assert monitor.step == 2 and monitor._notice.value == ""


def test_trouble_with_looking_is_shown_as_long_as_it_lasts(trainer, watch):
    trainer.start(4)
    monitor = watch()
    monitor.run = Elsewhere(trainer.path)
    monitor.run.trouble = SdxlNbError("AWS cannot be reached.")
    monitor.refresh()
    monitor.refresh()
    assert "AWS cannot be reached." in monitor._notice.value and 'role="alert"' in monitor._notice.value
    monitor.run.trouble = None
    monitor.refresh()
    assert monitor._notice.value == ""
    monitor._notice.say("Stopping.")
    monitor.refresh()
    assert "Stopping." in monitor._notice.value  # only what it said itself is taken away


def test_the_curve_is_sent_seldom_and_at_the_end(trainer, watch, monkeypatch):
    sent = []

    def dear(run):
        begun = time.thread_time()
        while time.thread_time() < begun + 0.1:
            pass
        sent.append(run.step)
        return []

    monkeypatch.setattr(sights, "curves", dear)
    monkeypatch.setattr(sights, "SHARE", 0.0001)  # for a thousand seconds
    trainer.start(9)
    trainer.steps(1, 2)
    monitor = watch()
    for step in range(3, 9):
        trainer.steps(step, step)
        monitor.refresh()
        assert monitor.step == step
    assert sent == [2]
    monkeypatch.setattr(sights, "SHARE", 1.0)
    monitor._curve._next = 0.0
    monitor.refresh()
    monitor.refresh()  # nothing new
    assert sent == [2, 8]
    monitor._curve._next = time.monotonic() + 1000
    trainer.steps(9, 9)
    trainer.end("completed")
    monitor.refresh()
    assert sent == [2, 8, 9]


def turned(monitor, looks):
    """The looks that one more turn takes, and the seconds after it."""
    before = len(looks)
    seconds = turn(monitor)
    return len(looks) - before, seconds


def test_a_run_that_is_over_is_left_alone_until_it_goes_on(trainer, watch, monkeypatch):
    looks = []
    monkeypatch.setattr(monitors.Log, "follow", lambda log, run: looks.append(1) or 0)
    trainer.start(4)
    trainer.steps(1, 1)
    trainer.end("stopped")
    monkeypatch.setattr(monitors, "SHARE", 1.0)
    monkeypatch.setattr(Run, "trouble", SdxlNbError("AWS cannot be reached."))
    monitor = watch(interval=50.0)
    turn(monitor)
    assert turned(monitor, looks) == (1, 150)
    monkeypatch.setattr(monitors, "SETTLED", -1.0)
    assert turned(monitor, looks) == (1, 150)  # until all of it has come
    monkeypatch.setattr(Run, "trouble", None)
    assert turned(monitor, looks) == (1, 150) and not monitor._troubled and monitor._notice.value == ""
    monkeypatch.setattr(monitors, "RARELY", 400.0)
    assert turned(monitor, looks) == (0, 400)  # only its status is asked for
    again = Trainer(trainer.path)  # from elsewhere
    again.steps(2, 2)
    assert turned(monitor, looks) == (1, 50)
    assert monitor.status == "running" and monitor._resume.disabled
    again.end("stopped")


def test_ten_thousand_steps_are_looked_at_quickly(trainer, watch):
    trainer.start(20_000)
    trainer.steps(1, 10_000)
    monitor = watch()
    trainer.steps(10_001, 10_010)
    begun = time.thread_time()
    monitor.refresh()
    assert monitor.step == 10_010 and time.thread_time() - begun < 2
    assert len(Run.open(trainer.path).plot().axes[0].lines[0].get_xdata()) <= 2000


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59, "59 s"), (61, "1 min 1 s"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said
