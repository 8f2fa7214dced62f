"""Training in a process of its own: launched, failed early, stopped, killed, resumed; seen from the run folder."""

import os
import signal
import time

import pytest
from small_runs import assert_same, small, train

from sdxl_nb.errors import ConfigError, SdxlNbError
from sdxl_nb.launcher import Launched, alive, command, launch
from sdxl_nb.run import Run


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_launched_killed_resumed_stopped_and_finished_it_ends_with_the_same_lora(tmp_path):
    steps = {"max_train_steps": 60, "checkpointing_steps": 10}
    whole = train(small(tmp_path / "whole", **steps)).folder
    run = launch(small(tmp_path / "run", **steps))
    assert run.status == "running" and run.info["pid"] == Launched(run.folder).about()["pid"] != os.getpid()
    assert os.getsid(run.info["pid"]) == run.info["pid"]  # a session of its own
    with pytest.raises(ConfigError, match="belongs to a run that is going on"):
        launch(small(tmp_path / "run"))
    with pytest.raises(SdxlNbError, match="is running: there is nothing to resume"):
        run.resume()
    wait_for(lambda: run.step > 12)
    os.kill(run.info["pid"], signal.SIGKILL)
    assert run.wait(30) == "interrupted"
    gone = "The process is gone without a word, killed or out of memory; resume goes on from checkpoint-"
    assert run.error.startswith(gone)

    assert run.resume() is run and run.status == "running"
    wait_for(lambda: run.step > 22)
    run.stop()
    assert run.wait(60) == "stopped" and 22 < run.step < 60 == run.steps and run.error is None
    train(small(run.folder, resume_from_checkpoint="latest", **steps))
    assert run.status == "completed" and run.losses()[0] == list(range(1, 61))
    assert run.seconds_per_step > 0 and run.seconds_left is None
    assert_same(run.folder, whole)
    with pytest.raises(SdxlNbError, match="is completed: to train longer"):
        run.resume()


def test_what_the_process_says_at_its_start_is_raised_and_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    config = small(tmp_path / "new" / "run", train_data_dir=str(tmp_path / "empty"))
    with pytest.raises(SdxlNbError, match="empty") as raised:
        launch(config)
    assert "Traceback" not in str(raised.value) and "error:" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_bad_setting_is_refused_before_a_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(Launched, "start", lambda *arguments: pytest.fail("a process was started"))
    with pytest.raises(ConfigError, match="is not a folder"):
        launch(small(tmp_path / "run", train_data_dir=str(tmp_path / "missing")))
    with pytest.raises(ConfigError, match="num_processes must be at least 1, not 0"):
        launch(small(tmp_path / "run"), num_processes=0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that a run would replace"):
        launch(small(tmp_path / "run"))


def test_the_command_line_holds_settings_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    one, two = command(small(tmp_path)), command(small(tmp_path), num_processes=2)
    assert one[1:3] == ["-m", "sdxl_nb.train"] and one[3:] == small(tmp_path).to_flags()
    assert two[-len(one) + 1 :] == one[1:] and "--nproc_per_node=2" in two
    assert "hf_secret" not in " ".join(two)


def fake(tmp_path, code):
    """A launched process that runs this shell code instead of a training."""
    launched = Launched(tmp_path / "run")
    process = launched.start(["sh", "-c", code])
    return launched, process


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("error: first, error: second", "second"),
        (
            "Traceback (most recent call last):,  File x,torch.OutOfMemoryError: CUDA out of memory",
            "CUDA out of memory",
        ),
        ("Traceback:,[rank0]: ValueError: mine,torch.x.ChildFailedError: train FAILED", "ValueError: mine"),
        ("Killed", "The training process ended before it began: Killed"),
        ("", "it was killed, or ran out of memory"),
    ],
)
def test_the_sentence_of_a_process_that_fails_at_its_start(tmp_path, printed, said):
    launched, process = fake(tmp_path, "".join(f"echo '{line.strip()}';" for line in printed.split(",")) + "exit 1")
    process.wait(10)
    run = Run.open(tmp_path / "run")
    assert run.status == "failed" and run.info == {} and run.step == 0 and run.steps is None
    assert run.error.endswith(said) and not run.error.startswith(("error:", "[rank0]"))
    launched.forget()
    assert not (tmp_path / "run").exists()


def test_a_process_that_starts_is_seen_and_can_be_ended(tmp_path):
    _, process = fake(tmp_path, "echo loading; sleep 60")
    run = Run.open(tmp_path / "run")
    wait_for(lambda: run.log() == "loading")
    assert run.status == "starting"
    run.stop()
    process.wait(10)
    assert run.status == "stopped" and run.error is None and not alive(process.pid)


@pytest.mark.soak
def test_two_processes_are_launched_stopped_and_resumed_together(tmp_path):
    steps = {"max_train_steps": 40, "checkpointing_steps": 10}
    run = launch(small(tmp_path / "run", **steps), num_processes=2)
    assert next(run.events("start"))["processes"] == 2
    wait_for(lambda: run.step > 2)
    run.stop()
    assert run.wait(120) == "stopped" and 2 < run.step < 40
    assert run.resume().wait(120) == "completed"  # on two again, without being told
    assert [event["processes"] for event in run.events("start")] == [2, 2] and run.step == 40
    with pytest.raises(SdxlNbError, match="holds no pictures"):
        launch(small(tmp_path / "bad", train_data_dir=str(tmp_path)), num_processes=2)
    assert not (tmp_path / "bad").exists()
