"""The run folder: one writer at a time, nothing of others is deleted, nothing is left by a run that never began."""

import fcntl
import json
import multiprocessing
import os

import pytest
from small_runs import small, train
from test_checkpoint import write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs import folder as folders
from sdxl_nb.runs.checkpoints import find
from sdxl_nb.runs.events import update
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.runs.process import is_taken
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError, DataError, SdxlNbError

pytestmark = pytest.mark.slow


def config(folder, **changes):
    return TrainConfig(output_dir=str(folder), seed=0, **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hold(folder, taken, done):
    held = RunFolder(config(folder))
    taken.set()
    done.wait(600)
    held.release()


def test_two_runs_in_one_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    taken, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, taken, done))
    other.start()
    assert taken.wait(600)
    with pytest.raises(ConfigError, match="belongs to a run that is going on: choose another"):
        RunFolder(config(tmp_path))
    done.set()
    other.join()
    RunFolder(config(tmp_path)).release()
    assert names(tmp_path) == []


def test_a_lock_file_that_a_killed_run_left_does_not_matter(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "stop").touch()
    folder = RunFolder(config(tmp_path))
    assert not folder.stop_file.exists()
    folder.release()


def test_who_only_looks_whether_a_run_goes_on_is_not_taken_for_one(tmp_path, monkeypatch):
    killed = RunFolder(config(tmp_path))
    killed.begin(config(tmp_path), resumed_from=None)
    killed.release()
    (tmp_path / "lock").touch()
    with open(tmp_path / "lock", "rb") as looker:  # at the same time
        fcntl.flock(looker, fcntl.LOCK_SH)
        assert Run.open(tmp_path).status == "interrupted"
        monkeypatch.setattr(folders, "is_taken", lambda path: [is_taken(path), looker.close()][0])
        RunFolder(config(tmp_path)).release()  # it waits


def test_only_the_folders_it_made_go(tmp_path):
    (tmp_path / "mine").mkdir()
    RunFolder(config(tmp_path / "mine" / "new" / "run")).release()
    assert names(tmp_path) == ["mine"] and names(tmp_path / "mine") == []
    folder = RunFolder(config(tmp_path / "a" / "b"))
    (tmp_path / "a" / "notes.txt").touch()
    folder.release()
    assert names(tmp_path / "a") == ["notes.txt"]


def begun(folder, **changes):
    taken = RunFolder(config(folder, **changes))
    try:
        asked = config(folder, **changes)
        taken.refuse_foreign(asked)
        taken.begin(asked, resumed_from=find(folder, asked.resume_from_checkpoint))
    finally:
        taken.release()


def test_a_second_run_needs_a_word(tmp_path):
    begun(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run: add --resume_from_checkpoint latest"):
        begun(tmp_path)
    first = json.loads((tmp_path / "run.json").read_text())["id"]
    begun(tmp_path, overwrite_output_dir=True)
    assert json.loads((tmp_path / "run.json").read_text())["id"] != first
    assert not TrainConfig.load(tmp_path / "config.json").overwrite_output_dir  # not twice without asking


def test_files_of_others_stay(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "cat.png").touch()
    with pytest.raises(ConfigError, match=r"files that a run would replace \(README.md, validation\)"):
        begun(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine" and (tmp_path / "validation" / "cat.png").exists()
    assert names(tmp_path) == ["README.md", "validation"]


@pytest.mark.parametrize("place", [".", "pictures", "..", "../other", "link", "absolute"])
def test_a_logging_dir_of_any_name_loses_curves_of_this_run_only(tmp_path, place):
    output = tmp_path / "output"
    for folder in (output / "pictures", tmp_path / "absolute", tmp_path / "other"):
        folder.mkdir(parents=True)
        (folder / "cat.png").touch()
    (output / "link").symlink_to(tmp_path / "other")
    begun(output)
    logging_dir = str(tmp_path / "absolute") if place == "absolute" else place
    old = output / logging_dir / "events.out.tfevents.1.vm"
    old.touch()
    unchecked = config(output).model_copy(update={"logging_dir": logging_dir})  # whatever a configuration lets through
    RunFolder(config(output), writes=False)._clear(unchecked)
    assert old.exists() == (place not in (".", "pictures")) and not (output / "run.json").exists()
    assert all((folder / "cat.png").exists() for folder in (output / "pictures", tmp_path / "absolute"))


def test_overwriting_deletes_a_run_and_nothing_else(tmp_path):
    begun(tmp_path)
    write(tmp_path, 4)
    for name in ("notes.txt", "events.jsonl", "pytorch_lora_weights.safetensors", "other.safetensors"):
        (tmp_path / name).touch()
    begun(tmp_path, overwrite_output_dir=True)
    assert names(tmp_path) == ["config.json", "notes.txt", "other.safetensors", "run.json"]


@pytest.mark.parametrize("finished_by", ["status", "lora"])
def test_latest_never_replaces_a_finished_run(tmp_path, finished_by):
    begun(tmp_path)
    begun(tmp_path, resume_from_checkpoint="latest")  # killed before its first checkpoint: begins anew
    (tmp_path / "events.jsonl").write_text("kept")
    if finished_by == "lora":
        (tmp_path / "pytorch_lora_weights.safetensors").touch()
    else:
        update(tmp_path / "run.json", status="completed")
    with pytest.raises(ConfigError, match=r"no checkpoint to resume from, and output_dir .* holds a finished run"):
        begun(tmp_path, resume_from_checkpoint="latest")
    assert (tmp_path / "events.jsonl").read_text() == "kept"
    begun(tmp_path, overwrite_output_dir=True)
    assert not (tmp_path / "events.jsonl").exists()


def test_a_checkpoint_from_elsewhere_does_not_go_on_in_the_folder_of_another_run(tmp_path):
    begun(tmp_path / "mine")
    (tmp_path / "other").mkdir()
    elsewhere = str(write(tmp_path / "other", 4))
    (tmp_path / "mine" / "events.jsonl").write_text("kept")
    with pytest.raises(ConfigError, match=r"checkpoint-4 lies outside output_dir .* which holds another run"):
        begun(tmp_path / "mine", resume_from_checkpoint=elsewhere)
    assert (tmp_path / "mine" / "events.jsonl").read_text() == "kept"
    begun(tmp_path / "new", resume_from_checkpoint=elsewhere)
    begun(tmp_path / "mine", resume_from_checkpoint=str(write(tmp_path / "mine", 4)))
    assert (tmp_path / "mine" / "events.jsonl").exists() and (tmp_path / "mine" / "checkpoint-4").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SdxlNbError, match=r"Cannot write to output_dir .*file/run \(not a directory\): choose another"):
        RunFolder(config(tmp_path / "file" / "run"))


def test_other_processes_touch_nothing(tmp_path):
    folder = RunFolder(config(tmp_path / "run"), writes=False)
    folder.refuse_foreign(config(tmp_path / "run"))
    folder.begin(config(tmp_path / "run"), resumed_from=None)
    folder.release()
    assert names(tmp_path) == []


def test_bad_data_leave_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        train(small(tmp_path / "out" / "run", train_data_dir=str(tmp_path / "empty")))
    assert names(tmp_path) == ["empty"]


def test_the_run_folder_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "secretsecretsecret")
    heard = []
    prompts = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}
    asked = small(tmp_path, report_to="tensorboard", checkpoints_total_limit=2, **prompts)
    run = train(asked, heard.append)
    assert names(tmp_path) == [
        "README.md",
        "checkpoint-4",
        "checkpoint-6",
        "config.json",
        "events.jsonl",
        "log.txt",
        "logs",
        "pytorch_lora_weights.safetensors",
        "run.json",
        "small.safetensors",
        "validation",
    ]
    assert TrainConfig.load(tmp_path / "config.json") == asked == run.config
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    kinds = [e["event"] for e in lines]
    assert [e["event"] for e in lines if "kind" not in e][:3] == ["start", "cache", "validation"]
    assert kinds[-1] == "end" and kinds.count("step") == 6
    assert kinds.count("checkpoint") == 3 and all({"event", "time", "step"} <= set(e) for e in lines)
    assert [e["event"] for e in heard] == kinds and heard == lines
    assert {"train_loss", "lr", "seconds"} <= set(lines[kinds.index("step")])
    assert list(run.pictures()) == [0, 4, 6] and lines[-1]["status"] == run.status == "completed"
    assert run.info["fingerprint"] == asked.fingerprint() == lines[0]["fingerprint"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"secretsecret" not in path.read_bytes(), path


def test_status_of_a_run_whose_process_is_gone(tmp_path):
    begun(tmp_path)  # it says running, and nobody holds the lock
    assert json.loads((tmp_path / "run.json").read_text())["pid"] == os.getpid()
    assert Run.open(tmp_path).status == "interrupted"
    folder = RunFolder(config(tmp_path))
    assert Run.open(tmp_path).status == "running"
    folder.release()
