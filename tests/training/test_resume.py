"""The same configuration gives the same LoRA bit for bit, also when it is killed and goes on."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest
from small_runs import assert_same, at_call, in_a_process, kill_me, largest_difference, small, train
from test_caching import killed_at_shard, killed_in_shard

from sdxl_nb.config.layout import checkpoints, step_of
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import ConfigError, ModelError
from sdxl_nb.training import trainer
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.step import Step

pytestmark = pytest.mark.slow

EVERYTHING = {  # whatever draws random numbers or keeps a state of its own
    "train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "center_crop": False,
    "cache_latents": False,
    "random_flip": True,
    "lora_dropout": 0.3,
    "proportion_empty_prompts": 0.3,
    "noise_offset": 0.05,
    "train_text_encoder": True,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 2,
    "snr_gamma": 5.0,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with everything, never interrupted."""
    return train(small(tmp_path_factory.mktemp("whole"), **EVERYTHING)).folder


def resumed(folder, **changes):
    return train(small(folder, **{"resume_from_checkpoint": "latest"} | changes))


def test_the_same_configuration_gives_the_same_lora(tmp_path, whole):
    first, second = (train(small(tmp_path / name)) for name in "ab")
    assert_same(first.folder, second.folder)
    assert first.losses() == second.losses()
    other = train(small(tmp_path / "c", seed=6))
    assert largest_difference(first.folder, other.folder) > 1e-4


def killed_at_event(config, kind, step):
    def listen(event):
        if (event["event"], event["step"]) == (kind, step):
            kill_me()

    train(config, listen)


def killed_at_picture(config, count):
    """In the middle of an accumulation when count is even."""
    Step._loss = at_call(count, kill_me, Step._loss)
    train(config)


def killed_while_saving(config, count):
    """With the LoRA written into the draft and half a file of state beside it."""

    def half_a_file():
        (draft,) = checkpoint.Path(config.output_dir).glob(".checkpoint-*.draft")
        (draft / "state.safetensors").write_bytes(b"\x00" * 100)
        kill_me()

    checkpoint.save_file = at_call(count, half_a_file, checkpoint.save_file)
    train(config)


def killed_while_drawing(config, count):
    """With half a picture of a validation written."""

    def half_a_picture():
        folder = Path(config.output_dir, "validation", f"step-{trainers[-1].step}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".00-6.png.draft").write_bytes(b"ha")
        kill_me()

    trainers: list[trainer.Trainer] = []
    begin = trainer.Trainer.__init__
    trainer.Trainer.__init__ = lambda self, *a: (trainers.append(self), begin(self, *a))[1]
    trainer.write_pictures = at_call(count, half_a_picture, trainer.write_pictures)
    train(config)


def killed_at_a_time(config, seconds):
    """By another process, whatever this one is at."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(config,))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


KILLS = {
    "in an epoch": (killed_at_event, "step", 3),
    "in an accumulation": (killed_at_picture, 10),
    "while saving": (killed_while_saving, 2),
}


@pytest.mark.parametrize("moment", KILLS)
def test_killed_and_resumed_is_never_killed(tmp_path, whole, moment):
    action, *where = KILLS[moment]
    config = small(tmp_path, **EVERYTHING)
    assert in_a_process(action, config, *where) == -9
    assert Run.open(tmp_path).status == "interrupted"
    saved = [step_of(path) for path in checkpoints(tmp_path)]
    assert saved == ([2, 4] if moment == "in an accumulation" else [2])
    run = resumed(tmp_path, **EVERYTHING)
    assert_same(tmp_path, whole)
    assert run.status == "completed" and list(tmp_path.glob(".checkpoint*")) == []
    assert run.losses() == Run.open(whole).losses() and run.losses()[0] == [1, 2, 3, 4, 5, 6]


@pytest.mark.soak
def test_killed_twenty_times(tmp_path):
    """Ten times at moments that are known to be delicate and ten times at any, each time caching anew."""
    prompts = {"validation_prompt": "a card", "num_validation_images": 2, "validation_inference_steps": 1}
    changes = EVERYTHING | {"max_train_steps": 60, "checkpointing_steps": 1, "checkpoints_total_limit": 2} | prompts
    changes |= {"use_ema": True, "validation_split": 0.2, "cache_latents": True, "train_text_encoder": False}
    train(small(tmp_path / "first", **changes | {"max_train_steps": 1}))  # whatever is imported only once
    begun, draw, moments = time.time(), random.Random(0), []
    whole = train(small(tmp_path / "whole", **changes))
    third = next(event["time"] for event in whole.events("step") if event["step"] == 3)
    cache = tmp_path / "cache"
    changes |= {"latents_cache_dir": str(cache)}
    config = small(tmp_path / "killed", resume_from_checkpoint="latest", **changes)
    delicate = [(killed_at_shard, 12), (killed_in_shard, 12), (killed_at_picture, 4)]  # and the number of their moments
    delicate += [(killed_while_saving, 1), (killed_while_drawing, 1)]
    for number in range(20):
        shutil.rmtree(cache, ignore_errors=True)
        if number % 2:
            assert killed_at_a_time(config, draw.uniform(0.1, third - begun)) == -9
        else:
            kill, most = delicate[number // 2 % len(delicate)]
            assert in_a_process(kill, config, draw.randint(1, most)) == -9
        moments.append(next(reversed(list(Run.open(config.output_dir).events())))["event"])
    print("killed after", *moments)
    resumed(tmp_path / "killed", **changes)
    assert_same(tmp_path / "killed", whole.folder)
    assert {"start", "step", "checkpoint"} <= set(moments)


def test_latest_without_a_checkpoint_starts_with_a_note(tmp_path):
    config = small(tmp_path, **EVERYTHING)
    assert in_a_process(killed_at_event, config, "step", 1) == -9
    run = resumed(tmp_path, **EVERYTHING)
    notes = [e["message"] for e in run.events("warning")]
    assert "There is no checkpoint to resume from yet: starting from the first step." in notes
    assert run.losses()[0] == [1, 2, 3, 4, 5, 6]


def refused(folder, error, **changes):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(error) as caught:
        resumed(folder, **changes)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    return str(caught.value)


def test_what_a_resume_refuses(tmp_path, tmp_path_factory, monkeypatch):
    train(small(tmp_path))
    said = refused(tmp_path, ConfigError, rank=4, learning_rate=1e-3)
    assert "checkpoint-6 belongs to another configuration" in said
    assert "rank (2, now 4)" in said and "learning_rate (0.01, now 0.001)" in said and "seed" not in said
    copy = shutil.copytree(small(tmp_path).train_data_dir, tmp_path_factory.mktemp("other") / "pictures")
    (copy / "3.txt").write_text("another caption")
    said = refused(tmp_path, ConfigError, train_data_dir=str(copy))
    assert "other pictures, captions or settings of folders (7 then, 7 now)" in said
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert "precision float32, now it is bfloat16" in refused(tmp_path, ConfigError)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    (tmp_path / "checkpoint-6" / "state.safetensors").write_bytes(b"cut short")
    assert "checkpoint-6 is damaged" in refused(tmp_path, ModelError)
    said = refused(tmp_path, ConfigError, resume_from_checkpoint="checkpoint-5")
    assert "checkpoint-5 is not a checkpoint" in said
    run = resumed(tmp_path, resume_from_checkpoint="checkpoint-4")
    assert run.losses()[0] == [1, 2, 3, 4, 5, 6]
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 4, 6]
