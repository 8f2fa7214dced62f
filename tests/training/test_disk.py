"""A disk that is full or may not be written to: one sentence, earlier checkpoints whole, and no traceback."""

import os
import resource
import subprocess
import sys

import pytest
import torch
from small_runs import small, train
from test_checkpoint import progress

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.run import Run
from sdxl_nb.train import main
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.state.checkpoint import load

pytestmark = pytest.mark.slow

PROMPTS = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


def limited(bytes_a_file):
    """In a child: what makes any file longer than this fail with EFBIG, as on a full disk."""

    def apply():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_a_file, bytes_a_file))

    return apply


def command(config, **options):
    arguments = [sys.executable, "-m", "sdxl_nb.train", *config.to_flags()]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=1200, **options)


def test_a_disk_that_is_full_when_a_checkpoint_is_saved(tmp_path):
    train(small(tmp_path, max_train_steps=4))
    largest = max(path.stat().st_size for path in (tmp_path / "checkpoint-4").iterdir())
    for path in (tmp_path / "checkpoint-4").iterdir():
        path.unlink()
    (tmp_path / "checkpoint-4").rmdir()
    going_on = small(tmp_path, resume_from_checkpoint="latest", max_train_steps=4)
    done = command(going_on, preexec_fn=limited(largest - 1000))
    said = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"Cannot write to output_dir {tmp_path} (file too large): make room" in said[-1]
    assert said[-1].endswith("; checkpoint-2 is complete.") and [p.name for p in checkpoints(tmp_path)] == [
        "checkpoint-2"
    ]
    assert load(tmp_path / "checkpoint-2")[0].step == 2 and not list(tmp_path.glob(".checkpoint*"))
    assert Run.open(tmp_path).status == "failed"
    assert train(going_on).status == "completed"


@pytest.mark.parametrize("what", ["events", "picture"])
def test_a_disk_that_is_full_when_something_small_is_written(tmp_path, monkeypatch, what):
    from sdxl_nb.runs import events
    from sdxl_nb.system.errors import SdxlNbError
    from sdxl_nb.training import trainer

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    def listen(event):
        if (event["event"], event["step"]) != ("checkpoint", 2):
            return
        if what == "events":
            monkeypatch.setattr(events.json, "dumps", full)
        else:
            monkeypatch.setattr(trainer, "write_pictures", full)

    with pytest.raises(SdxlNbError, match=r"no space left on device\): make room .*; checkpoint-\d is complete"):
        train(small(tmp_path, **PROMPTS), listen)
    monkeypatch.undo()
    kept = [path.name for path in checkpoints(tmp_path)]
    assert kept[0] == "checkpoint-2" and all(load(path) for path in checkpoints(tmp_path))
    run = train(small(tmp_path, resume_from_checkpoint="latest", **PROMPTS))
    assert run.status == "completed" and list(run.pictures()) == [0, 4, 6]


@pytest.mark.parametrize("below", ["/new"] if os.geteuid() == 0 else ["", "/new"])
def test_a_folder_that_may_not_be_written_to(tmp_path, below, capsys):
    """Root may write anywhere, so it is a path through a file that stands for it there."""
    locked = tmp_path / "locked"
    if os.geteuid() == 0:
        locked.write_text("a file")
        reason = "not a directory"
    else:
        locked.mkdir(mode=0o500)
        reason = "permission denied"
    assert main(small(f"{locked}{below}").to_flags()) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"Cannot write to output_dir {locked}{below} ({reason}): choose another folder." in said


@pytest.mark.soak
def test_two_runs_in_one_folder(tmp_path):
    def start_another(event):
        if (event["event"], event["step"]) == ("step", 1):
            done.append(command(small(tmp_path, resume_from_checkpoint="latest")))

    done: list[subprocess.CompletedProcess[str]] = []
    run = train(small(tmp_path), start_another)
    assert done[0].returncode == 2 and "Traceback" not in done[0].stderr
    assert "belongs to a run that is going on: choose another" in done[0].stderr and run.status == "completed"


def test_a_checkpoint_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    """A limit between the sizes of the two files of a checkpoint: the second fails half-way."""
    checkpoint.save(tmp_path, progress(1), {"weights": torch.zeros(6)}, lambda draft: None)
    child = os.fork()
    if not child:
        limited(4096)()
        try:
            checkpoint.save(tmp_path, progress(2), {"weights": torch.zeros(10_000)}, lambda draft: None)
        except Exception:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1"] and not list(tmp_path.glob(".check*"))
