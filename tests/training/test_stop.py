"""Asked to stop: the step is finished, everything is saved, and going on gives the same bits."""

import os
import signal
import sys

import pytest
import small_runs
from small_runs import assert_same, at_call, in_a_process, small, train

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.run import Run
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.signals import StopRequest
from sdxl_nb.training.step import Step

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole():
    return small_runs.whole().folder


def send(number):
    os.kill(os.getpid(), number)


def command_line(config, owner, name, number):
    """python -m sdxl_nb.train in this process, a signal sent to it before the second call of a method."""
    from sdxl_nb.train import main

    setattr(owner, name, at_call(2 if owner is Step else 1, lambda: send(number), getattr(owner, name)))
    sys.exit(main(config.to_flags()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_command_cleanly(tmp_path, whole, number):
    assert in_a_process(command_line, small(tmp_path), Step, "_loss", number) == 0
    run = Run.open(tmp_path)
    assert run.status == "stopped" and run.losses()[0] == [1, 2]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert (tmp_path / "small.safetensors").is_file() and (tmp_path / "README.md").is_file()
    assert [e["status"] for e in run.events("end")] == ["stopped"]
    again = train(small(tmp_path, resume_from_checkpoint="latest"))
    assert again.status == "completed" and again.losses()[0] == [1, 2, 3, 4, 5, 6]
    assert_same(tmp_path, whole)


def test_a_stop_file_does_the_same(tmp_path, whole):
    def listen(event):
        if (event["event"], event["step"]) == ("step", 3):
            Run.open(tmp_path).stop()

    run = train(small(tmp_path), listen)
    assert run.status == "stopped" and run.losses()[0] == [1, 2, 3] and not (tmp_path / "stop").exists()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-3"]
    assert_same(train(small(tmp_path, resume_from_checkpoint="latest")).folder, whole)


def test_a_stop_file_before_the_first_step_leaves_out_what_comes_before_it(tmp_path, whole):
    prompts = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}
    asking = small(tmp_path, validation_data_dir=small(tmp_path).train_data_dir, **prompts)

    def listen(event):
        if event["event"] == "heldout":
            Run.open(tmp_path).stop()

    run = train(asking, listen)
    assert run.status == "stopped" and run.losses() == ([], []) and run.pictures() == {} and run.heldout()[0] == [0]
    again = train(asking.replace(resume_from_checkpoint="latest"))
    assert again.status == "completed" and list(again.pictures()) == [0, 4, 6]
    assert_same(tmp_path, whole)


def test_asked_at_the_last_step_it_is_complete(tmp_path, whole):
    prompts = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}

    def listen(event):
        if (event["event"], event["step"]) == ("step", 6):
            send(signal.SIGTERM)

    run = train(small(tmp_path, **prompts), listen)
    assert run.status == "completed" and list(run.pictures()) == [0, 4, 6]
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_anything_is_written_a_signal_interrupts(tmp_path, number):
    config = small(tmp_path / "new" / "run")
    assert in_a_process(command_line, config, Studio, "__init__", number) == 130
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_step_a_signal_interrupts(tmp_path):
    assert in_a_process(command_line, small(tmp_path), Studio, "encode", signal.SIGTERM) == 130
    run = Run.open(tmp_path)
    assert run.status == "stopped" and run.summary()["error"].startswith("Interrupted at once")
    assert checkpoints(tmp_path) == [] and not (tmp_path / "lock").exists()


def test_a_second_ctrl_c_interrupts_and_handlers_come_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with StopRequest(tmp_path / "stop") as stop:
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        stop.defer()
        assert not stop.asked()
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.asked()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
