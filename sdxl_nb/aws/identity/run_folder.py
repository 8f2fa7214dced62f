"""Which run folder is a job's, and how far the run in it is: by what is there, not by what it is called.

In: the job's configuration, and /opt/ml as SageMaker furnished it. Out: the name of the run folder, made of the
settings and of the content of every picture and model; the differences to what the job was started with, and to earlier
runs of the same settings; whether the run in the folder is complete, and from which checkpoint it goes on.
"""

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import formats
from ...config.layout import LORA, checkpoints, step_of
from ...runs.events import update
from ...system.errors import DataError, ModelError
from . import content
from .content import CHANNELS, CLASS, Content

if TYPE_CHECKING:
    from ...config.train_config import TrainConfig

TRIAL = "_tuning_objective_metric"  # the hyperparameter that SageMaker gives to jobs of a search
RESUMED = re.compile(r"-r\d+$")  # what JobRun.resume adds to a job's name
WORDS = {  # what a channel holds, to people
    "train": "pictures",
    "class": "class pictures",
    "validation": "held-out pictures",
    "dataset": "data set",
    "model": "base model",
    "vae": "VAE",
}


def find(config: "TrainConfig") -> dict[str, Content]:
    """What is trained on and with, by channel name; a hub that does not answer tells a data set by reading it."""
    found = {}
    for setting, (channel, _) in CHANNELS.items():
        value = getattr(config, setting)
        if value is None or value.startswith("embedded:") or is_drawn(value):
            continue
        here = Path(value)
        looked = content.of_place(here) if here.exists() else None
        if looked is None and content.hub_id(config, setting):
            looked = content.of_hub(config, setting) or (_read(config) if setting == "dataset_name" else None)
        if looked is not None:
            found[channel] = looked
    return found


def is_drawn(class_data_dir: str | None) -> bool:
    """Whether the job draws its class pictures itself, into this folder."""
    return class_data_dir is not None and Path(class_data_dir).parts[-2:] == Path(CLASS).parts[-2:]


def _read(config: "TrainConfig") -> Content | None:
    """A data set by its pictures and captions, as checkpoints tell it; None where there is none: training says so."""
    from ...data.dataset import open_dataset
    from ...training.state.fingerprint import fingerprint

    with contextlib.suppress(Exception):
        pictures = open_dataset(config)
        return Content(len(pictures), 0, "", f"read:{fingerprint(pictures)}")
    return None


def name(config: "TrainConfig", found: Mapping[str, Content], trial: str | None = None) -> str:
    """The run folder's name: equal settings and equal content are the same run, wherever they lie.

    Trials of a search share a prefix, and two of them may get the same values: `trial`, the job's name, tells them
    apart, so that none goes on from another's checkpoints or writes over them.
    """
    if not found and trial is None:
        return config.fingerprint()
    parts: dict[str, Any] = {"settings": config.identity()}
    parts |= {"content": {key: value.bytes for key, value in found.items()}}
    return formats.digest(parts if trial is None else parts | {"trial": RESUMED.sub("", trial)})


def class_folder(config: "TrainConfig", found: Mapping[str, Content]) -> str:
    """The name of the folder for class pictures that the job draws: one for each base, VAE and prompt.

    The record that lies in it knows a base by its path alone, which is the same for all that a channel brings.
    """
    parts: dict[str, Any] = {key: found[key].bytes for key in ("model", "vae") if key in found}
    settings = ("class_prompt", "pretrained_model_name_or_path", "revision", "variant", "resolution", "prediction_type")
    parts |= {setting: getattr(config, setting) for setting in settings}
    return f"class-{formats.digest(parts)[:16]}"


# What it was


def refuse_changed(config: "TrainConfig", found: Mapping[str, Content], text: str, places: Mapping[str, str]) -> None:
    """Raise DataError where something else came than what was listed when the job was started.

    `text` is what the job says of it; `places` are those of channels that a start may have changed: what it says of
    another place counts for nothing.
    """
    for channel, (place, promised) in content.heard(text).items():
        ours = found.get(channel)
        setting = next(key for key, (named, _) in CHANNELS.items() if named == channel)
        now = places.get(channel) or (content.hub_id(config, setting) if promised.bytes.startswith("hub:") else None)
        if now is not None and content.short(now) != place:
            print(f"Note: {channel} is {now}, not what was listed at the start: what it holds was not compared.")
        elif ours is None or ours.bytes.startswith("read:") or promised.bytes.startswith("unlisted:"):
            print(f"Note: what {channel} holds could not be compared with what it held at the start.")
        elif not promised.tells(ours):
            raise DataError(
                f"The {WORDS[channel]} ({channel}) changed after this job was started ({_size(promised)} then, "
                f"{_size(ours)} now): start it again, so that what is trained on is what the job is known by"
            )


def _size(found: Content) -> str:
    return f"{found.files} files of {found.size:,} bytes"


def remember(root: Path, job: str, config: "TrainConfig", folder: str, found: Mapping[str, Content]) -> list[str]:
    """Note which run folder is the job's, for who looks from outside; sentences about earlier runs of other content."""
    about = {"settings": config.fingerprint(), "run": folder, "content": {key: list(c) for key, c in found.items()}}
    said = {}
    for path in sorted(root.glob("job-*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if theirs["settings"] == about["settings"] and theirs["run"] != folder:
                said[theirs["run"]] = _differs(theirs["content"], found)
    root.mkdir(parents=True, exist_ok=True)
    update(root / f"job-{job}.json", **about)
    sentence = "An earlier run of the same settings, {}, was trained on {}: this is another run."
    return [sentence.format(run[:8], what) for run, what in said.items()]


def _differs(theirs: Mapping[str, Any], ours: Mapping[str, Content]) -> str:
    """What another run had otherwise, in words."""
    keys = [key for key in WORDS if list(ours.get(key, ())) != list(theirs.get(key, ()))]
    pairs = ((key, theirs.get(key), ours.get(key)) for key in keys)
    sizes = ((key, Content(*then) if then else None, now) for key, then, now in pairs)
    return " and ".join(
        f"other {WORDS[key]} ({_size(then) if then else 'none'} then, {_size(now) if now else 'none'} now)"
        for key, then, now in sizes
    )


# How far it is


def is_complete(config: "TrainConfig") -> bool:
    """Whether the folder holds the run's last LoRA; a copy that was cut short may have an older one."""
    folder = Path(config.output_dir)
    try:
        completed = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "completed"
    except (OSError, ValueError, KeyError):
        return False
    files = [folder / LORA, folder / f"{config.lora_name()}.safetensors"]
    least = 0 if config.load_best_model_at_end else newest_step(folder)
    return completed and all(file.is_file() and steps_of(file) >= least for file in files)


def steps_of(file: Path) -> int:
    """The optimizer steps that a LoRA file's header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            return int((opened.metadata() or {}).get("ss_steps", -1))
    except (SafetensorError, ValueError):
        return -1


def delivered_loss(config: "TrainConfig") -> float | None:
    """The held-out loss of a completed run's LoRA: the best one where that is taken, else the last; None without one.

    NaN where the last one was no number.
    """
    from ...runs.run import Run

    losses = _heldout(config)
    if not losses or Run(config.output_dir).info.get("status") != "completed":
        return None
    numbers = [loss for _, loss in losses if loss is not None]
    if config.load_best_model_at_end and numbers:
        return min(numbers)
    return math.nan if losses[-1][1] is None else losses[-1][1]


def delivered_step(config: "TrainConfig") -> int | None:
    """The step whose LoRA is delivered, where it is the best one; None for the last."""
    numbers = [(loss, step) for step, loss in _heldout(config) if loss is not None]
    return min(numbers)[1] if config.load_best_model_at_end and numbers else None


def _heldout(config: "TrainConfig") -> list[tuple[int, float | None]]:
    """The steps of a run's held-out losses and those; without the one at 0, which is the base's own."""
    from ...runs.run import Run

    return [(event["step"], event.get("loss")) for event in Run(config.output_dir).events("heldout") if event["step"]]


def newest_step(folder: Path) -> int:
    return max(map(step_of, checkpoints(folder)), default=0)


def resumable(config: "TrainConfig") -> "TrainConfig":
    """The configuration that goes on from the newest whole checkpoint of this very run, or begins anew.

    SageMaker copies file by file: an instance that went away in the middle leaves a checkpoint in pieces.
    """
    from ...training.state.checkpoint import load

    folder = Path(config.output_dir)
    for path in reversed(checkpoints(folder)):
        try:
            load(path)
            return config.replace(resume_from_checkpoint="latest")
        except ModelError:
            print(f"Note: {path.name} came back from S3 in pieces and is left out.", flush=True)
            shutil.rmtree(path)
    return config.replace(overwrite_output_dir=True)  # nothing but the events of steps that are lost


def places() -> dict[str, str]:
    """Where the job's channels come from, as far as it says so."""
    start = content.PLACE
    return {key[len(start) :].lower(): value for key, value in os.environ.items() if key.startswith(start) and value}
