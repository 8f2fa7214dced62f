"""The monitor, in process: what it shows of runs that go on, are over, or went wrong; and its buttons."""

import json
import shutil
import threading
import time

import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.monitor import monitor as monitors
from sdxl_nb.widgets.monitor import sights
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


@pytest.fixture
def trainer(tmp_path):
    made = Trainer(tmp_path / "run")
    yield made
    made.log.close()
    made.folder.release()


@pytest.fixture
def watch(trainer):
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


def test_a_run_from_caching_to_its_end(trainer, watch):
    monitor = watch()
    assert monitor.status == "running" and monitor.steps == 0 and monitor._curve.layout.display == "none"
    trainer.start(10)
    monitor.refresh()
    assert "step 0 of 10, loading what encodes captions and pictures" in text(monitor)
    trainer.log.emit("cache", kind="latents", done=30, total=120)
    monitor.refresh()
    assert "encoding latents, 30 of 120, before the first step" in text(monitor) and monitor._bar.value == 0.25
    trainer.log.emit("cache", pictures=120, captions=7)  # all of it
    monitor.refresh()
    assert "step 0 of 10" in text(monitor) and monitor._bar.value == 0
    trainer.draw(0)
    trainer.steps(1, 5)
    trainer.log.emit("heldout", loss=0.125)
    trainer.log.say("five <steps>")
    monitor.refresh()
    assert (monitor.step, monitor.steps, monitor._bar.value, monitor._stop.disabled) == (5, 10, 0.5, False)
    for said in ("step 5 of 10", "<td>0.1250</td>", "1.00e-04", "3.50 GB", "five <steps>"):
        assert said in text(monitor)
    said = "up to step 5: training loss, smoothed, 0.4208 at step 5, held-out loss 0.1250 at step 5"
    assert monitor._curve.words == f"Curve of the loss {said}" and monitor._curve.layout.display is None
    assert [line["name"] for line in monitor._curve.lines] == ["each step", "smoothed", "held out", "learning rate"]
    (picture,) = monitor._drawn.children
    small, words = (part.value for part in picture.children)
    assert len(small) < 4000 and 'alt="a &lt;b&gt;card&lt;/b&gt;, step 0, seed 0"' in small
    assert "object-fit:contain" in small and "a &lt;b&gt;card&lt;/b&gt;<br>step 0, seed 0" in words
    trainer.steps(6, 10)
    trainer.end("completed")
    monitor.refresh()
    assert monitor.status == "completed" and monitor._stop.disabled and monitor._resume.disabled
    assert "✓ Completed: step 10 of 10" in text(monitor) and monitor.error == ""
    assert len(monitor.figure().axes[0].lines) == 3  # each step, smoothed, held out


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


def test_a_long_prompt_is_cut_and_whole_where_one_points(trainer, watch):
    known = json.loads((trainer.path / "config.json").read_text())
    (trainer.path / "config.json").write_text(json.dumps(known | {"validation_prompt": ["字" * 400]}))
    trainer.draw(0)
    words = watch()._drawn.children[0].children[1].value
    assert f'title="{"字" * 400}"' in words and words.partition(">")[2].count("字") == 79 and "…<br>step 0" in words


def test_pictures_of_a_run_that_was_overwritten_are_shown_anew(trainer, watch):
    trainer.draw(0)
    monitor = watch()
    (before,) = monitor._drawn.children
    monitor.refresh()
    assert monitor._drawn.children == (before,)
    shutil.rmtree(trainer.path / "validation")
    trainer.draw(0, size=512)
    trainer.log.say("over")
    monitor.refresh()
    assert monitor._drawn.children != (before,) and before.comm is None
    about = json.loads((trainer.path / "run.json").read_text())
    (trainer.path / "run.json").write_text(json.dumps(about | {"id": "another"}))
    seen = monitor._seen
    monitor.refresh()  # as many events, the same log: another run all the same
    assert monitor._seen != seen


def test_opened_again_it_shows_the_whole_history(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 3)
    trainer.end("stopped")
    monitor = watch()
    assert (monitor.status, monitor.step, monitor._resume.disabled, monitor._stop.disabled) == (
        "stopped",
        3,
        False,
        True,
    )
    (axes,) = monitor.figure().axes
    assert len(axes.lines[0].get_xdata()) == 3 and all(tick == int(tick) for tick in axes.get_xticks())


def test_a_failure_is_told_escaped(trainer, watch):
    trainer.start(4)
    trainer.end("failed", error="The loss <is> not finite.")
    monitor = watch()
    assert monitor.error == "The loss <is> not finite." and "The loss &lt;is&gt; not finite." in text(monitor)
    assert "✗ Failed" in text(monitor) and 'role="alert"' in text(monitor)


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
    thread.join(120)
    assert not thread.is_alive()  # so it sees no more


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


def test_stop_asks_the_run(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 1)
    monitor = watch()
    monitor._stop.click()
    assert (trainer.path / "stop").exists() and monitor._stop.disabled and "its state is kept" in monitor._notice.value
    trainer.end("stopped")
    monitor.refresh()
    assert monitor._notice.value == "" and not monitor._resume.disabled


def test_draw_now_and_save_now_ask_the_run_while_it_goes_on(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 1)
    monitor = watch()
    monitor._draw_now.click()
    assert (trainer.path / "draw_now").exists() and "Pictures are drawn after the current" in monitor._notice.value
    monitor._save_now.click()
    assert (trainer.path / "save_now").exists() and "A checkpoint is saved" in monitor._notice.value
    trainer.end("completed")
    monitor._save_now.click()  # before the monitor has seen it
    assert "is completed: only one that is running draws or saves now" in monitor._notice.value
    monitor.refresh()
    assert monitor._draw_now.disabled and monitor._save_now.disabled


def test_stop_of_a_run_that_is_over_meanwhile_says_so(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 4)
    monitor = watch()
    trainer.end("completed")
    monitor.stop()  # pressed before the monitor has seen it
    assert "There was nothing to stop: the run was completed before." in monitor._notice.value
    assert monitor.status == "completed" and not (trainer.path / "stop").exists()


def test_stop_while_caching_says_what_is_kept(trainer, watch):
    trainer.start(9, resumed=True)
    trainer.steps(1, 3)
    trainer.log.emit("cache", kind="pictures", done=30, total=120)  # of a run that goes on with step 3
    monitor = watch()
    monitor._stop.click()
    said = "Stopping before the first step; what is encoded is kept for the next run."
    assert said in monitor._notice.value and (trainer.path / "stop").exists()


class Elsewhere(Run):
    """A run whose looks may fail, and that costs something to resume."""

    price = "It costs at most $3.00."

    def resume(self, *, say):
        self.price = None
        say("A job is starting.")
        return Run(self.folder)


def test_resume_that_costs_is_agreed_to_by_a_second_press(trainer, watch):
    trainer.start(4)
    trainer.end("stopped")
    monitor = watch()
    run = monitor.run = Elsewhere(trainer.path)
    monitor._resume.click()
    monitor._work.wait(600)
    assert "It costs at most $3.00. Press Resume once more to start it." in monitor._notice.value
    assert monitor.run is run and not monitor._resume.disabled
    monitor._resume.click()
    monitor._work.wait(600)
    assert monitor.run is not run and "A job is starting." in monitor._notice.value


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
    assert [turned(monitor, looks) for _ in range(2)] == [(1, 400), (1, 50)]
    assert monitor.status == "running" and monitor._resume.disabled
    again.end("stopped")


def test_a_page_without_widgets_shows_the_table_or_the_curve(trainer, watch):
    trainer.start(4)
    bundle = watch()._repr_mimebundle_()
    assert "<td>running</td>" in bundle["text/html"] and bundle["text/plain"] == "RunMonitor"
    trainer.steps(1, 2)
    bundle = watch()._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG") and "text/html" not in bundle


def test_resume_that_fails_is_told(trainer, watch):
    trainer.start(4)
    trainer.end("stopped")
    known = json.loads((trainer.path / "config.json").read_text())
    (trainer.path / "config.json").write_text(json.dumps(known | {"train_data_dir": "gone", "dataset_name": None}))
    monitor = watch()
    monitor._resume.click()
    monitor._work.wait(600)
    assert "train_data_dir gone is not a folder" in monitor._notice.value and not monitor._resume.disabled


def test_no_run_and_unknown_settings(trainer, tmp_path):
    with pytest.raises(SdxlNbError, match="There is no run in"):
        RunMonitor(tmp_path / "none")
    with pytest.raises(TypeError, match="RunMonitor has no setting intervall: did you mean interval"):
        RunMonitor(trainer.path, intervall=2)
    with pytest.raises(SdxlNbError, match=r"^RunMonitor shows a Run, or the output_dir of one, not a TrainConfig"):
        RunMonitor(trainer.config)


def test_ten_thousand_steps_are_looked_at_quickly(trainer, watch):
    trainer.start(20_000)
    trainer.steps(1, 10_000)
    monitor = watch()
    trainer.steps(10_001, 10_010)
    begun = time.thread_time()
    monitor.refresh()
    assert monitor.step == 10_010 and time.thread_time() - begun < 2
    assert len(Run.open(trainer.path).plot().axes[0].lines[0].get_xdata()) <= 2000
