"""The run folder: one writer at a time, nothing of others is deleted, nothing is left by a run that never began."""

import json
import multiprocessing
import os

import pytest
from small_runs import small, train
from test_checkpoint import write

from sdxl_nb.config import TrainConfig
from sdxl_nb.errors import ConfigError, DataError, SdxlNbError
from sdxl_nb.folder import RunFolder
from sdxl_nb.run import Run


def config(folder, **changes):
    return TrainConfig(output_dir=str(folder), seed=0, **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hold(folder, taken, done):
    held = RunFolder(config(folder))
    taken.set()
    done.wait(60)
    held.release()


def test_two_runs_in_one_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    taken, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, taken, done))
    other.start()
    assert taken.wait(60)
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
        taken.refuse_foreign(config(folder, **changes))
        taken.begin(config(folder, **changes), resumed=False)
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


@pytest.mark.parametrize("place", [".", "..", "pictures", "absolute"])
def test_a_logging_dir_of_any_name_loses_curves_only(tmp_path, place):
    output = tmp_path / "output"
    for folder in (output / "pictures", tmp_path / "absolute"):
        folder.mkdir(parents=True)
        (folder / "cat.png").touch()
    logging_dir = str(tmp_path / "absolute") if place == "absolute" else place
    begun(output, logging_dir=logging_dir)
    old = output / logging_dir / "events.out.tfevents.1.vm"
    old.touch()
    begun(output, logging_dir=logging_dir, overwrite_output_dir=True)
    assert not old.exists() and (output / "pictures" / "cat.png").exists()
    assert (tmp_path / "absolute" / "cat.png").exists()


def test_overwriting_deletes_a_run_and_nothing_else(tmp_path):
    begun(tmp_path)
    write(tmp_path, 4)
    for name in ("notes.txt", "events.jsonl", "pytorch_lora_weights.safetensors", "other.safetensors"):
        (tmp_path / name).touch()
    begun(tmp_path, overwrite_output_dir=True)
    assert names(tmp_path) == ["config.json", "notes.txt", "other.safetensors", "run.json"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SdxlNbError, match=r"Cannot write to output_dir .*file/run \(not a directory\): choose another"):
        RunFolder(config(tmp_path / "file" / "run"))


def test_other_processes_touch_nothing(tmp_path):
    folder = RunFolder(config(tmp_path / "run"), writes=False)
    folder.refuse_foreign(config(tmp_path / "run"))
    folder.begin(config(tmp_path / "run"), resumed=False)
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
    assert kinds[:3] == ["start", "cache", "validation"] and kinds[-1] == "end" and kinds.count("step") == 6
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
