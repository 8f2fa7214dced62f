"""Runs of a second or two on a random SDXL: its folder, some pictures, configurations, and a process to kill."""

import functools
import json
import multiprocessing
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageOps
from random_sdxl import make_pipeline
from safetensors.torch import load_file

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.runs.events import EventLog
from sdxl_nb.runs.folder import RunFolder
from sdxl_nb.training.setup import Studio, prepare
from sdxl_nb.training.trainer import fine_tune

# one checkpoint, at the end: to write the others takes a third of a small training
ONCE = {"checkpointing_steps": 1000}
SIZES = [(32, 32), (48, 32), (32, 56), (40, 40), (32, 32), (64, 48), (36, 32)]


@functools.cache
def home():
    """One temporary folder for base and pictures, for as long as this process lives."""
    folder = tempfile.TemporaryDirectory(prefix="small-runs-")
    root = Path(folder.name)
    make_pipeline().save_pretrained(root / "base")
    (root / "pictures").mkdir()
    for number, (width, height) in enumerate(SIZES):
        pixels = [
            (37 * number + x * 3, 5 * y, (x * y + 90 * number) % 256) for y in range(height) for x in range(width)
        ]
        picture = Image.new("RGB", (width, height))
        picture.putdata([tuple(value % 256 for value in pixel) for pixel in pixels])
        picture.save(root / "pictures" / f"{number}.png")
        (root / "pictures" / f"{number}.txt").write_text(f"card {number}")
    return root, folder


def put_negatives(folder):
    """The negative of each picture; one of them is a WebP at twice the size, none has a caption."""
    folder.mkdir(exist_ok=True)
    for path in sorted((home()[0] / "pictures").glob("*.png")):
        picture = ImageOps.invert(Image.open(path).convert("RGB"))
        if path.stem == "3":
            picture.resize((80, 80)).save(folder / "3.webp", lossless=True)
        else:
            picture.save(folder / path.name)
    return folder


def small(output_dir, **changes):
    """A configuration of six steps of 2 on seven pictures (4 steps an epoch), a checkpoint every second step."""
    root, _ = home()
    values = {
        "pretrained_model_name_or_path": str(root / "base"),
        "train_data_dir": str(root / "pictures"),
        "output_dir": str(output_dir),
        "output_name": "small",
        "resolution": 32,
        "center_crop": True,
        "seed": 5,
        "rank": 2,
        "target_modules": ["to_q", "to_v"],
        "learning_rate": 1e-2,
        "train_batch_size": 2,
        "max_train_steps": 6,
        "checkpointing_steps": 2,
        "report_to": "none",
    }
    return TrainConfig(**values | changes)


def train(config, callback=None):
    return fine_tune(config, callback, progress=False)


def studio(config):
    """The parts of a run made ready, with all that it has to encode encoded."""
    folder = RunFolder(config)
    made = prepare(config, folder, False)
    log = EventLog(folder.path, quiet=True)
    made.encode(log)
    log.close()
    folder.release()
    return made


def whole(**changes):
    """A run that nothing interrupts, trained once for all tests of a process: for reading."""
    return _whole(json.dumps(changes))


@functools.cache
def _whole(changes):
    return train(small(home()[0] / f"whole-{secrets.token_hex(4)}", **json.loads(changes)))


def assert_goes_on(tmp_path, **changes):
    """Six steps end as two of them, kept in a checkpoint, and four more, bit for bit; the run that was resumed."""
    folder = tmp_path / "again"
    shutil.copytree(whole(**changes).folder, folder)
    run = train(small(folder, resume_from_checkpoint="checkpoint-2", **changes))
    assert [event["step"] for event in run.events("step")] == [1, 2, 3, 4, 5, 6]
    assert_same(run.folder, whole(**changes).folder)
    return run


def gone_on(whole, folder, **settings):
    """What a finished run had at its second step, trained to its end: nothing that comes later is left to be found."""
    shutil.copytree(whole.folder, folder)
    for path in [*folder.glob("checkpoint-*"), *folder.glob("*.safetensors")]:
        if path.name != "checkpoint-2":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = train(small(folder, resume_from_checkpoint="latest", **settings))
    assert [event["resumed_from"] for event in run.events("start")][-1] == 2
    assert run.losses()[0] == list(range(1, run.steps + 1))
    return run


def tensors(folder):
    """Every tensor of both LoRA files, bit for bit."""
    both = {}
    for name in ("pytorch_lora_weights.safetensors", "small.safetensors"):
        both |= {f"{name}:{key}": value for key, value in load_file(Path(folder, name)).items()}
    return both


def assert_same(one, other):
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def largest_difference(one, other):
    """Of the exact files; the others are rounded to fp16."""
    ours, theirs = (load_file(Path(folder, "pytorch_lora_weights.safetensors")) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max((ours[key] - theirs[key]).abs().max().item() for key in ours)


def share_apart(one, other, bound):
    """Which share of the exact files' numbers is further than that apart."""
    ours, theirs = (load_file(Path(folder, "pytorch_lora_weights.safetensors")) for folder in (one, other))
    assert ours.keys() == theirs.keys()
    apart = [int(((ours[key] - theirs[key]).abs() >= bound).sum()) for key in ours]
    return sum(apart) / sum(value.numel() for value in ours.values())


def in_a_process(action, *arguments):
    """Run action in a process of its own (a fork, so that nothing is imported again); its exit code."""
    process = multiprocessing.get_context("fork").Process(target=action, args=arguments)
    process.start()
    process.join(600)
    return process.exitcode


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(count, action, function):
    """A function that does its work, but acts before its count-th call (from 1)."""
    calls = iter(range(1, 1_000_000))

    def counted(*arguments, **named):
        if next(calls) == count:
            action()
        return function(*arguments, **named)

    return counted


def fit_one_at_a_time(monkeypatch):
    """Let memory end in the U-Net of every batch of more than one picture; the sizes that are tried."""
    predict, sizes = Studio.predict, []

    def small_gpu(studio, noisy, batch):
        sizes.append(len(noisy))
        if len(noisy) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(studio, noisy, batch)

    monkeypatch.setattr(Studio, "predict", small_gpu)
    return sizes
