"""The monitor, in process: what it shows of runs that go on, are over, or went wrong; and its buttons."""

import json
import shutil

import pytest
from monitored import Elsewhere, text, trainer_fixture, turn, watch_fixture  # noqa: F401 - fixtures

from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.monitor.monitor import RunMonitor


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
    (picture,) = monitor._drawn.tiles
    assert len(picture.now.value) < 4000 and picture.now.alt == "a <b>card</b>, before training, seed 0"
    assert picture.before is None and "a &lt;b&gt;card&lt;/b&gt;<br>before training, seed 0" in picture._words.value
    trainer.steps(6, 10)
    trainer.end("completed")
    monitor.refresh()
    assert monitor.status == "completed" and monitor._stop.disabled and monitor._resume.disabled
    assert "✓ Completed: step 10 of 10" in text(monitor) and monitor.error == ""
    assert len(monitor.figure().axes[0].lines) == 3  # each step, smoothed, held out


def test_a_long_prompt_is_cut_and_whole_where_one_points(trainer, watch):
    known = json.loads((trainer.path / "config.json").read_text())
    (trainer.path / "config.json").write_text(json.dumps(known | {"validation_prompt": ["字" * 400]}))
    trainer.draw(0)
    words = watch()._drawn.tiles[0]._words.value
    assert f'title="{"字" * 400}"' in words and words.partition(">")[2].count("字") == 79 and "…<br>before" in words


def test_the_newest_picture_stands_beside_the_one_before_training(trainer, watch):
    for step in (0, 4):
        trainer.draw(step)
    (picture,) = watch()._drawn.tiles
    assert picture.before.alt == "a <b>card</b>, before training, seed 0"
    assert picture.now.alt == "a <b>card</b>, step 4, seed 0"
    assert "before training → step 4, seed 0" in picture._words.value


def test_any_step_is_looked_at_by_a_slider_and_large_by_arrow_keys(trainer, watch):
    trainer.start(20)
    for step in (0, 4, 8):
        trainer.draw(step)
    monitor = watch()
    drawn = monitor._drawn
    (picture,) = drawn.tiles
    assert (drawn._stepper.steps, drawn._stepper.place, drawn._stepper.layout.display) == ([4, 8], 1, None)
    drawn._stepper.place = 0
    assert picture.now.alt.endswith("step 4, seed 0")
    trainer.draw(12)
    trainer.steps(1, 12)
    monitor.refresh()  # who looks at an earlier step stays there
    assert drawn.tiles == (picture,) and picture.now.alt.endswith("step 4, seed 0")
    assert (drawn._stepper.steps, drawn._stepper.place) == ([4, 8, 12], 0)
    drawn._stepper.place = 2  # the newest, whichever it is
    trainer.draw(16)
    trainer.steps(13, 16)
    monitor.refresh()
    assert picture.now.alt.endswith("step 16, seed 0") and drawn._stepper.place == 3
    picture.now.clicks += 1
    large = drawn._large.children[1]
    seen = [large.alt]
    for move in ((1, 0), (-1, 0), (0, 1), (-1, 0), (-1, 0), (-1, 0), (-1, 0)):
        large._handle_custom_msg({"move": move}, [])
        seen.append(large.alt)
    assert [alt.split(", ")[1] for alt in seen] == [
        *("step 16", "step 16", "step 12", "step 12", "step 8", "step 4", "before training", "before training"),
    ]
    large.clicks += 1
    assert drawn._large.children == ()
    picture.before.clicks += 1
    assert "before training" in drawn._large.children[1].alt
    shutil.rmtree(trainer.path / "validation")
    trainer.log.say("another run")
    monitor.refresh()
    assert drawn._large.children == drawn.tiles == () and drawn._stepper.layout.display == "none"


def test_pictures_of_a_run_that_was_overwritten_are_shown_anew(trainer, watch):
    trainer.draw(0)
    monitor = watch()
    (before,) = monitor._drawn.tiles
    first = before.now.value
    monitor.refresh()
    assert monitor._drawn.tiles == (before,)
    shutil.rmtree(trainer.path / "validation")
    trainer.draw(0, size=64)
    trainer.log.say("over")
    monitor.refresh()
    assert monitor._drawn.tiles == (before,) and before.now.value != first
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


def test_stop_asks_the_run(trainer, watch):
    trainer.start(4)
    trainer.steps(1, 1)
    monitor = watch()
    monitor._stop.click()
    assert (trainer.path / "stop").exists() and monitor._stop.disabled and "its state is kept" in monitor._notice.value
    trainer.end("stopped")
    monitor.refresh()
    assert monitor._notice.value == "" and not monitor._resume.disabled
    assert monitor._bell.text == f"{trainer.path.name}: stopped at step {monitor.step}"
    assert monitor._bell.layout.display == "none"  # there is nothing more to tell


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
