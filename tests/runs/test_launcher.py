"""Training in a process of its own: launched, failed early, stopped, killed, resumed; seen from the run folder."""

import os
import signal
import time

import pytest
from small_runs import assert_same, small, train

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.runs import process as processes
from sdxl_nb.runs import starting
from sdxl_nb.runs.launcher import launch
from sdxl_nb.runs.process import Launched, alive
from sdxl_nb.runs.run import Run
from sdxl_nb.runs.starting import command
from sdxl_nb.system.errors import ConfigError, DataError, SdxlNbError
from sdxl_nb.widgets.grid.grid import ValidationGrid
from sdxl_nb.widgets.monitor.monitor import RunMonitor

pytestmark = pytest.mark.slow

DRAWN = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """On a machine with much to do it takes long until a run begins."""
    monkeypatch.setattr(starting, "PATIENCE", 600.0)


@pytest.fixture
def instead(monkeypatch):
    """`launch` runs this shell code instead of a training, and does not wait long for it; in the end it is killed."""
    pids, start = [], Launched.start

    def noting(launched, *arguments, **about):
        process = start(launched, *arguments, **about)
        pids.append(process.pid)
        return process

    def use(code, patience=0.3):
        monkeypatch.setattr(starting, "command", lambda config, processes: ["sh", "-c", code])
        monkeypatch.setattr(starting, "PATIENCE", patience)

    monkeypatch.setattr(Launched, "start", noting)
    yield use
    for pid in filter(alive, pids):
        os.killpg(pid, signal.SIGKILL)


def wait_for(condition, seconds=1200):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_launched_killed_resumed_stopped_and_finished_it_ends_with_the_same_lora(tmp_path):
    steps = {"max_train_steps": 90, "checkpointing_steps": 10}
    whole = train(small(tmp_path / "whole", **steps)).folder
    run = launch(small(tmp_path / "run", **steps))
    assert run.status == "running" and run.info["pid"] == Launched(run.folder).about()["pid"] != os.getpid()
    assert os.getsid(run.info["pid"]) == run.info["pid"]  # a session of its own
    with pytest.raises(ConfigError, match="belongs to a run that is going on"):
        launch(small(tmp_path / "run"))
    with pytest.raises(SdxlNbError, match="is running: there is nothing to resume"):
        run.resume()
    wait_for(lambda: run.step > 11)
    os.kill(run.info["pid"], signal.SIGKILL)
    assert run.wait(1200) == "interrupted"
    gone = "The process is gone without a word, killed or out of memory; resume goes on from checkpoint-"
    assert run.error.startswith(gone)
    with open(run.folder / "process.txt", "a") as output:
        output.write("\nterminate called\n  what():  CUDA error: unspecified failure\n")
    said = "The process is gone, and the last it said was: what():  CUDA error: unspecified failure; resume goes on"
    assert run.error.startswith(said)

    assert run.resume() is run and run.status == "running"
    wait_for(lambda: run.step > 22)
    run.stop()
    assert run.wait(1200) == "stopped" and 22 < run.step < 90 == run.steps and run.error is None
    train(small(run.folder, resume_from_checkpoint="latest", **steps))
    assert run.status == "completed" and run.losses()[0] == list(range(1, 91))
    assert run.seconds_per_step > 0 and run.seconds_left is None
    assert_same(run.folder, whole)
    with pytest.raises(SdxlNbError, match="is completed: to train longer"):
        run.resume()


def test_what_the_process_says_at_its_start_is_raised_and_leaves_nothing(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    config = small(tmp_path / "new" / "run", train_data_dir=str(tmp_path / "texts"))
    with pytest.raises(SdxlNbError, match="holds no pictures") as raised:
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


def test_an_empty_folder_of_pictures_is_refused_before_a_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(Launched, "start", lambda *arguments: pytest.fail("a process was started"))
    empty = str(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    for source in ({"train_data_dir": empty}, {"dataset_name": empty, "train_data_dir": None}):
        config = small(tmp_path / "run", **source)
        for refused in (open_dataset, launch):
            with pytest.raises(DataError) as raised:
                refused(config)
            assert str(raised.value) == f"The folder {empty} is empty: check --train_data_dir."
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["tiny", None, {"rank": 4}, TrainConfig])
def test_what_is_no_configuration_is_refused_in_one_sentence(wrong):
    with pytest.raises(TypeError, match=r"launch takes a TrainConfig, not .*: TrainConfig.preset\(.tiny.\) starts"):
        launch(wrong)


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
    process.wait(1200)
    run = Run.open(tmp_path / "run")
    assert run.status == "failed" and run.info == {} and run.step == 0 and run.steps is None
    assert run.error.endswith(said) and not run.error.startswith(("error:", "[rank0]"))
    launched.forget()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("printed", "word"),
    [
        ("a warning\n7 pictures\n\r  0%|          | 0/6 [00:00<?]\r 50%|#####     | 3/6 [00:01<00:01, loss=1]", None),
        (
            "\r 50%|#####     | 3/6 [00:01<00:01, loss=1]Fatal Python error: Bus error\n",
            "Fatal Python error: Bus error",
        ),
        ("\r 50%|#####     | 3/6 [00:01]\nRuntimeError: first\n  at last\n", "RuntimeError: first"),
        ("\rencoding pictures: |          | 0/? [00:00<?, ?s/it]", None),
        ("7 pictures\n", None),
        ("", None),
    ],
)
def test_the_last_word_of_a_process_is_neither_its_bar_nor_its_log(tmp_path, printed, word):
    (tmp_path / "log.txt").write_text("7 pictures\n")
    launched = Launched(tmp_path)
    launched.output.write_text(printed)
    assert launched.last_word(0) == word and launched.last_word(time.time() + 60) is None


def test_a_process_that_starts_is_seen_and_can_be_ended(tmp_path):
    _, process = fake(tmp_path, "echo loading; sleep 3600")
    run = Run.open(tmp_path / "run")
    wait_for(lambda: run.log() == "loading")
    assert run.status == "starting"
    run.stop()
    process.wait(1200)
    assert run.status == "stopped" and run.error is None and not alive(process.pid)


def test_a_run_that_takes_long_to_begin_is_returned_while_it_starts(tmp_path, instead, monkeypatch, capsys):
    instead("echo loading; sleep 3600")
    config = small(tmp_path / "run", **DRAWN)
    run = launch(config, num_processes=2)
    assert run.status == "starting" and run.config == config
    said = f"The run in {run.folder} is still starting: RunMonitor(run) follows it, run.stop() ends it."
    assert capsys.readouterr().out == said + "\n"
    assert (run.step, run.steps, run.pictures(), run.error) == (0, None, {}, None)
    assert run.preparing == "looking at the pictures, then loading the model"
    with pytest.raises(ConfigError, match="belongs to a run that is starting"):
        launch(config)
    with pytest.raises(SdxlNbError, match="is starting: there is nothing to resume"):
        run.resume()
    run.stop()
    assert run.wait(1200) == "stopped" and run.config == config
    asked = []
    monkeypatch.setattr(starting, "command", lambda *arguments: asked.append(arguments) or ["sleep", "3600"])
    assert run.resume(say=asked.append).status == "starting"  # from the beginning, as it was asked for
    assert asked == [(config, 2), said]


def test_widgets_of_a_run_that_starts(tmp_path, instead, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    instead("echo loading; sleep 3600")
    run = launch(small(tmp_path / "run", **DRAWN, pretrained_model_name_or_path="someone/some-sdxl"))
    wait_for(lambda: run.log() == "loading")
    monitor, grid = RunMonitor(run, interval=1000.0), ValidationGrid(run)
    grid.close()
    assert "looking at the pictures, then loading someone/some-sdxl, which is downloaded the first time" in (
        monitor._headline.value
    )
    assert "(0.0 GB of it are here)" in monitor._headline.value
    blobs = tmp_path / "hub" / "models--someone--some-sdxl" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.incomplete").write_bytes(bytes(range(256)) * 800_000)
    monitor.refresh()
    assert "(0.2 GB of it are here)" in monitor._headline.value
    assert "loading" in monitor._log.value and monitor._resume.disabled and not monitor._stop.disabled
    monitor._stop.click()
    assert "it has not begun to train, so there is nothing new to keep" in monitor._notice.value
    assert run.wait(1200) == "stopped"
    monitor.refresh()
    assert monitor.status == "stopped" and not monitor._resume.disabled and monitor._notice.value == ""
    monitor._resume.click()
    monitor._work.wait(600)
    assert monitor.status == "starting" and "is still starting" in monitor._notice.value
    monitor.close()


def test_a_run_that_was_stopped_while_it_started_is_resumed_from_its_beginning(tmp_path, instead, monkeypatch):
    config, real = small(tmp_path / "run"), starting.command
    instead("sleep 3600")
    run = launch(config)
    run.stop()
    assert run.wait(1200) == "stopped"
    instead("echo 'error: no network'; exit 1", patience=600)
    with pytest.raises(SdxlNbError, match="no network"):
        run.resume()
    assert run.status == "failed" and run.error == "no network"  # and may be tried again
    monkeypatch.setattr(starting, "PATIENCE", 600)
    monkeypatch.setattr(starting, "command", real)
    assert run.resume().wait(600) == "completed" and run.losses()[0] == [1, 2, 3, 4, 5, 6]
    assert run.config == config


@pytest.mark.soak
def test_a_run_that_fails_after_a_while_says_why(tmp_path, instead):
    go = tmp_path / "go"
    instead(f"while ! [ -e '{go}' ]; do sleep 0.1; done; echo 'error: the hub cannot be reached'; exit 1")
    run = launch(small(tmp_path / "run"))
    assert run.status == "starting"
    go.touch()
    assert run.wait(1200) == "failed" and run.error == "the hub cannot be reached"


def test_of_a_run_that_is_being_replaced_nothing_is_shown(tmp_path, instead):
    old = train(small(tmp_path / "run", **DRAWN))
    assert old.step == 6 and old.pictures()
    instead("echo loading; sleep 3600")
    config = small(tmp_path / "run", overwrite_output_dir=True, rank=3)
    run = launch(config)
    assert (run.step, list(run.events()), run.pictures(), run.config.rank) == (0, [], {}, 3)
    assert not run.config.overwrite_output_dir  # loaded again it must not replace a run by itself
    wait_for(lambda: run.log() == "loading")
    run.stop()
    assert run.wait(1200) == "stopped" and run.summary()["steps"] == 0 and run.log() == "loading"


def test_an_interrupt_while_waiting_leaves_the_run_alone(tmp_path, instead, monkeypatch, capsys):
    instead("sleep 3600", patience=600)
    asked, has_begun = [], Launched.has_begun

    def interrupted(launched):
        asked.append(launched)
        if len(asked) == 2:  # the second look, while it waits
            raise KeyboardInterrupt
        return has_begun(launched)

    monkeypatch.setattr(Launched, "has_begun", interrupted)
    run = launch(small(tmp_path / "run"))
    assert run.status == "starting" and alive(run_pid(run)) and "is still starting" in capsys.readouterr().out
    run.stop()
    assert run.wait(1200) == "stopped"


def run_pid(run):
    return Launched(run.folder).about()["pid"]


def test_a_process_that_is_deaf_to_the_signal_is_killed(tmp_path, instead, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    instead("trap '' TERM; while true; do sleep 0.1; done")
    run = launch(small(tmp_path / "run"))
    run.stop()
    assert run.wait(1200) == "stopped"


def test_a_launched_run_on_another_machine_is_starting_as_long_as_it_is_heard_of(tmp_path, instead):
    instead("sleep 3600")
    run = launch(small(tmp_path / "run"))
    about = Launched(run.folder)
    processes.update(about.file, host="another-machine")
    assert run.status == "starting"
    long_ago = time.time() - processes.SILENCE - 1
    os.utime(about.output, (long_ago, long_ago))
    assert run.status == "failed"


@pytest.mark.soak
def test_two_processes_are_launched_stopped_and_resumed_together(tmp_path):
    steps = {"max_train_steps": 40, "checkpointing_steps": 10}
    run = launch(small(tmp_path / "run", **steps), num_processes=2)
    assert next(run.events("start"))["processes"] == 2
    wait_for(lambda: run.step > 2)
    run.stop()
    assert run.wait(600) == "stopped" and 2 < run.step < 40
    assert run.resume().wait(600) == "completed"  # on two again, without being told
    assert [event["processes"] for event in run.events("start")] == [2, 2] and run.step == 40
    with pytest.raises(SdxlNbError, match="holds no pictures"):
        launch(small(tmp_path / "bad", train_data_dir=str(tmp_path)), num_processes=2)
    assert not (tmp_path / "bad").exists()
