"""Checkpoints on disk: complete or absent, swept, pruned, and refused when damaged."""

import json
import os

import pytest
import torch
from small_runs import at_call, in_a_process, kill_me

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.checkpoints import find, sweep
from sdxl_nb.system.errors import ConfigError, ModelError
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.state.checkpoint import Progress, load, prune, save

WEIGHTS = torch.arange(6.0)


def progress(step, **changes):
    values = {
        "identity": {"rank": 2},
        "pictures": 3,
        "data_fingerprint": "abc",
        "processes": 1,
        "precision": "float32",
        "parameters": {"unet.a": [2, 3]},
        "batch": 4,
        "optimizer": {},
        "heldout_fingerprint": "def",
    }
    return Progress(step=step, **values | changes)


def write(folder, step, **tensors):
    lora = lambda draft: (draft / "lora.safetensors").write_bytes(b"lora")  # noqa: E731
    return save(folder, progress(step), {"weights": WEIGHTS, **tensors}, lora)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    path = write(tmp_path, 3, **{"optimizer.step": torch.tensor(3.0)})
    assert names(path) == ["lora.safetensors", "state.json", "state.safetensors"] and names(tmp_path) == [path.name]
    said, tensors = load(path)
    assert said == progress(3) and torch.equal(tensors["weights"], WEIGHTS) and tensors["optimizer.step"] == 3


def test_oldest_first_by_number_and_only_complete_ones(tmp_path):
    for step in (10, 9, 100):
        write(tmp_path, step)
    (tmp_path / "checkpoint-200").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
    assert find(tmp_path, "latest").name == "checkpoint-100" and find(tmp_path, None) is None
    assert find(tmp_path, "checkpoint-9") == find(tmp_path, str(tmp_path / "checkpoint-9"))
    assert find(tmp_path / "nothing", "latest") is None
    with pytest.raises(ConfigError, match="checkpoint-200 is not a complete checkpoint"):
        find(tmp_path, "checkpoint-200")


def test_pruning_keeps_the_newest(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert prune(tmp_path, None) == [] and prune(tmp_path, 3) == []
    assert [path.name for path in prune(tmp_path, 1)] == ["checkpoint-1", "checkpoint-2"]
    assert names(tmp_path) == ["checkpoint-3"]


def test_an_error_leaves_the_old_checkpoint_and_no_draft(tmp_path):
    write(tmp_path, 1)

    def full(draft):
        raise OSError(28, "No space left on device")

    for step in (1, 2):
        with pytest.raises(OSError):
            save(tmp_path, progress(step), {"weights": WEIGHTS}, full)
    assert names(tmp_path) == ["checkpoint-1"] and torch.equal(load(tmp_path / "checkpoint-1")[1]["weights"], WEIGHTS)


def killed(folder, module, name, count, step=2):
    setattr(module, name, at_call(count, kill_me, getattr(module, name)))
    write(folder, step)
    prune(folder, 1)


@pytest.mark.parametrize(
    "module, name, count, left",
    [
        (checkpoint, "save_file", 1, ["checkpoint-1"]),
        (checkpoint, "_sync", 2, ["checkpoint-1"]),
        (checkpoint.Path, "rename", 1, ["checkpoint-1"]),
        (checkpoint, "prune", 1, ["checkpoint-1", "checkpoint-2"]),
        (checkpoint.shutil, "rmtree", 2, ["checkpoint-2"]),  # the first is for a draft of the same name
        (os, "unlink", 1, ["checkpoint-2"]),  # half-way through the deletion
    ],
)
def test_killed_at_any_moment_there_is_no_half_checkpoint(tmp_path, module, name, count, left):
    write(tmp_path, 1)
    if name == "prune":
        assert in_a_process(write, tmp_path, 2) == 0
    else:
        assert in_a_process(killed, tmp_path, module, name, count) == -9
    assert [path.name for path in checkpoints(tmp_path)] == left
    assert all(torch.equal(load(path)[1]["weights"], WEIGHTS) for path in checkpoints(tmp_path))
    sweep(tmp_path)
    assert names(tmp_path) == left


def test_writing_the_same_step_again_replaces_it(tmp_path):
    (write(tmp_path, 1) / "state.safetensors").write_bytes(b"damaged")
    assert torch.equal(load(write(tmp_path, 1))[1]["weights"], WEIGHTS) and names(tmp_path) == ["checkpoint-1"]


@pytest.mark.parametrize(
    "module, name, count",
    [
        (checkpoint.Path, "rename", 1),  # before the old one is put aside
        (checkpoint.Path, "rename", 2),  # between the two names
        (checkpoint, "_sync", 5),  # the new one is there
        (checkpoint.shutil, "rmtree", 2),
        (os, "unlink", 1),  # half-way through the old one
    ],
)
def test_killed_while_a_checkpoint_is_replaced_there_is_one(tmp_path, module, name, count):
    write(tmp_path, 1)
    assert in_a_process(killed, tmp_path, module, name, count, 1) == -9
    for asked in ("latest", "checkpoint-1"):
        assert torch.equal(load(find(tmp_path, asked))[1]["weights"], WEIGHTS)
    sweep(tmp_path)
    assert names(tmp_path) == ["checkpoint-1"] and len(names(tmp_path / "checkpoint-1")) == 3


def test_an_interrupt_while_a_checkpoint_is_replaced_leaves_the_old_one(tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    write(tmp_path, 1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.Path, "rename", at_call(2, interrupt, checkpoint.Path.rename))
        write(tmp_path, 1)
    assert names(tmp_path) == ["checkpoint-1"] and torch.equal(load(tmp_path / "checkpoint-1")[1]["weights"], WEIGHTS)


@pytest.mark.parametrize(
    "file, content",
    [
        ("state.json", "{"),
        ("state.json", "{}"),
        ("state.json", json.dumps({**vars(progress(1)), "parameters": {"unet.a": [9, 9]}})),
        ("state.safetensors", "cut"),
        ("state.safetensors", None),
    ],
)
def test_damage_is_named(tmp_path, file, content):
    path = write(tmp_path, 1)
    (path / file).unlink()
    if content is not None:
        (path / file).write_text(content)
    with pytest.raises(ModelError, match="The checkpoint checkpoint-1 is damaged: resume from another one"):
        load(path)
