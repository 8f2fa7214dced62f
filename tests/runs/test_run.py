"""A run seen from outside: from its folder alone."""

import json
import os
import socket
import threading
import time

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog, update
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.plots import smooth
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError

PROMPTS = ["a <b>card</b>", "costs $5 or $\\bad"]


@pytest.fixture
def folder(tmp_path):
    """A run folder as a finished run of three steps leaves it."""
    path = tmp_path / "run"
    config = TrainConfig(output_dir=str(path), seed=0, validation_prompt=PROMPTS, num_validation_images=1)
    taken = RunFolder(config)
    taken.begin(config, resumed_from=None)
    log = EventLog(path, quiet=True)
    for log.step in (1, 2, 3):
        log.emit("step", train_loss=1.0 / log.step, lr=1e-4, seconds=0.1)
    for step in (0, 3, 10):
        (path / "validation" / f"step-{step}").mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), "red").save(path / "validation" / f"step-{step}" / f"{number:02d}-0.png")
    log.end(status="completed", error=None, seconds=90.0)
    taken.release()
    return path


def set_info(folder, **fields):
    update(folder / "run.json", **fields)


def test_what_a_finished_run_says(folder):
    run = Run.open(folder)
    assert run.status == "completed" and run.losses() == ([1, 2, 3], [1.0, 0.5, pytest.approx(1 / 3)])
    assert repr(run) == f"Run(status=completed, folder={folder}, steps=3, loss=0.6111, minutes=1.5)"
    assert "<td>completed</td>" in run._repr_html_()
    assert list(run.pictures()) == [0, 3, 10] and run.config.validation_prompt == PROMPTS
    assert run.wait(timeout=0) == "completed"


def test_there_is_no_run(tmp_path):
    with pytest.raises(SdxlNbError, match="There is no run in"):
        Run.open(tmp_path)


def test_status_running_elsewhere_and_gone(folder):
    set_info(folder, status="running", host="another-machine", pid=1)
    assert Run.open(folder).status == "running"
    set_info(folder, host=socket.gethostname(), pid=os.getpid())  # the pid lives, but it is not the run's any more
    assert Run.open(folder).status == "interrupted"
    assert not (folder / "lock").exists()


def test_a_machine_of_which_nothing_is_heard_is_gone(folder):
    set_info(folder, status="running", host="another-machine")
    long_ago = time.time() - 3600
    for name in ("run.json", "events.jsonl"):
        os.utime(folder / name, (long_ago, long_ago))
    with FileLock(folder / "lock"):  # a file system that shows it to other machines
        assert Run.open(folder).status == "running"
    run = Run.open(folder)
    gone = "Nothing was heard of it, or of its machine another-machine, for 15 minutes; there is no checkpoint yet"
    assert run.status == "interrupted" and run.error.startswith(gone)
    os.utime(folder / "events.jsonl")
    assert run.status == "running" and run.error is None


def test_wait_and_stop(folder):
    set_info(folder, status="running", host="another-machine")
    run = Run.open(folder)
    with pytest.raises(TimeoutError, match=r"still going after 0\.1 s"):
        run.wait(timeout=0.1, interval=0.02)
    run.stop()
    assert (folder / "stop").exists()
    ends = threading.Thread(target=lambda: (time.sleep(0.1), set_info(folder, status="stopped")))
    ends.start()
    assert run.wait(timeout=1200, interval=0.02) == "stopped"
    ends.join()


def test_an_error_is_shown_escaped(folder):
    log = EventLog(folder, quiet=True)
    log.end(status="failed", error="<script>x</script>")
    assert "&lt;script&gt;" in Run.open(folder)._repr_html_() and "<script>" not in Run.open(folder)._repr_html_()


def test_figures(folder, tmp_path):
    run = Run.open(folder)
    assert len(run.plot().axes[0].lines) == 2
    figure = run.validation_figure()
    assert len(figure.axes) == 6 and [axes.get_title() for axes in figure.axes[:3]] == ["step 0", "step 3", "step 10"]
    figure.savefig(tmp_path / "figure.png")  # a prompt with dollar signs is no formula
    TrainConfig(output_dir=str(folder), seed=0).save(folder / "config.json")  # now without prompts
    assert "prompt 00" in run.validation_figure().axes[0].get_ylabel()
    (folder / "events.jsonl").unlink()
    assert run.plot().axes[0].texts[0].get_text() == "no step yet" and run.summary()["loss"] is None


def test_smoothing_by_hand():
    values = smooth(np.array([1.0, np.nan, 3.0]), span=3)  # share 1/2
    assert values.tolist() == pytest.approx([1.0, 1.0, (0.25 * 1 + 0.5 * 3) / 0.75])


def test_the_lora_is_the_finished_one_or_that_of_the_newest_checkpoint(folder):
    for step in (2, 10):
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "state.json").write_text("{}")
        (folder / f"checkpoint-{step}" / "pytorch_lora_weights.safetensors").touch()
    assert Run.open(folder).lora.path.parent.name == "checkpoint-10"
    (folder / "pytorch_lora_weights.safetensors").touch()
    assert Run.open(folder).lora.path.parent == folder


def test_held_out_loss_pace_and_what_is_left(folder):
    run = Run.open(folder)
    assert run.heldout() == ([], []) and run.step == 3 and run.steps is None
    (folder / "events.jsonl").unlink()
    lines = [{"event": "start", "time": 0.0, "step": 0, "steps": 9}]
    lines += [{"event": "step", "time": 10.0 + 2 * n, "step": n, "train_loss": 1.0, "seconds": 0.5} for n in (1, 2, 3)]
    lines += [
        {"event": "heldout", "time": 17.0, "step": 3, "loss": 0.25},
        {"event": "heldout", "step": 4, "loss": None},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    assert run.seconds_per_step == 0.5  # one step says nothing of what comes between two
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.heldout() == ([3], [0.25]) and (run.step, run.steps, run.seconds_per_step) == (3, 9, 2.0)
    assert run.seconds_left is None  # it is over
    set_info(folder, status="running", host="another-machine")
    assert run.seconds_left == 12.0
    assert len(run.plot().axes[0].lines) == 3 and run.plot().axes[0].get_ylabel() == "loss"
    again = {"event": "start", "time": 99.0, "step": 3, "steps": 9, "resumed_from": 3}
    with open(folder / "events.jsonl", "a") as file:
        file.write(json.dumps(again) + "\n")
    assert run.seconds_per_step is None and run.step == 3  # the night between two processes is no training


def test_the_log_ends_with_its_last_lines_and_of_a_bar_its_last_state(folder):
    run = Run.open(folder)
    (folder / "log.txt").write_text("one\ntwo\n 10%|#\r 90%|#########\r\nlast é\n\n", encoding="utf-8")
    assert run.log(2) == " 90%|#########\nlast é" and run.log().startswith("one\ntwo")
    (folder / "log.txt").write_bytes(b"x" * 200_000 + b"\n" + b"y\n" * 5)
    assert run.log(3) == "y\ny\ny"
    (folder / "log.txt").unlink()
    assert run.log() == ""


def test_only_what_looks_like_a_job_is_looked_for_in_aws(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sdxl_nb.open_run", lambda place: asked.append(place) or "the job")
    monkeypatch.chdir(tmp_path)
    for place in ("s3://bucket/runs/job", "sdxl-nb-2026-01-02", "arn:aws:sagemaker:eu-west-1:1:training-job/x"):
        assert Run.open(place) == "the job" == Run.open(place)
    (tmp_path / "run-2").mkdir()
    for place in ("output", "output/run-2", "./run-2", "run-2", tmp_path / "run-3"):
        with pytest.raises(SdxlNbError, match=r"There is no run in .*: give the output_dir of one"):
            Run.open(place)
    assert len(asked) == 6


def test_a_folder_that_is_gone(folder):
    run = Run.open(folder)
    (folder / "run.json").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(SdxlNbError, match=r"has no config\.json: it has not begun yet, or was moved"):
        run.config  # noqa: B018
    assert run.info == {}
    with pytest.raises(SdxlNbError, match="any more: it was moved or deleted"):
        run.status  # noqa: B018
