"""Checkpoints: complete or absent, never half; safetensors and JSON, nothing pickled.

`checkpoint-N/` holds the LoRA after N optimizer steps under both names (usable as it is), `state.safetensors` with
the exact fp32 weights and the optimizer's tensors, and `state.json` with the step, the configuration's identity and
what the data were. Random numbers need no state: they are functions of (seed, position), see data/sampling.py.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...config.layout import checkpoints, step_of
from ...config.train_config import LATER
from ...runs.checkpoints import put_back
from ...system.errors import ConfigError, ModelError

Tensors = dict[str, torch.Tensor]
CUTS = ("train_batch_size", "gradient_accumulation_steps")  # free as long as their product with processes is the same
SAME_RESULT = ("gradient_checkpointing", "enable_xformers_memory_efficient_attention")  # what a lack of memory asks for
OF_THE_DATA = (
    "caption_choice",
    "caption_lines",
    "caption_source",
)  # what it changes, the fingerprint of the data tells


@dataclass(frozen=True)
class Progress:
    """What `state.json` says: how far the run was and what it was a run of."""

    step: int
    identity: dict[str, Any]
    pictures: int
    data_fingerprint: str
    processes: int
    precision: str
    parameters: dict[str, list[int]]
    batch: int = 0  # pictures of an optimizer step, over all processes
    optimizer: dict[str, Any] = field(default_factory=dict)  # its state but for the tensors
    scaler: dict[str, Any] | None = None
    heldout: dict[str, Any] = field(default_factory=dict)
    recent_losses: list[float] = field(default_factory=list)
    micro_batch: int | None = None  # what fitted into memory at once
    heldout_fingerprint: str | None = None
    reading: int = 1  # identity.FORMAT: how this code made latents and embeddings of pictures and captions


def save(output_dir: Path, progress: Progress, tensors: Tensors, write_lora: Callable[[Path], object]) -> Path:
    """Write `checkpoint-<step>` into the run folder, all of it or nothing; `write_lora(folder)` adds the LoRA files.

    One of the same step is only put aside until the new one is there; see `runs.checkpoints.put_back`.
    """
    final = output_dir / f"checkpoint-{progress.step}"
    draft, aside = (output_dir / f".{final.name}.{os.getpid()}{end}.draft" for end in ("", "-aside"))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write_lora(draft)
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, draft / "state.safetensors")
        (draft / "state.json").write_text(json.dumps(asdict(progress), indent=1))
        for file in draft.iterdir():
            _sync(file)
        _sync(draft)
        if final.exists():
            final.rename(aside)
        draft.rename(final)
        _sync(output_dir)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        put_back(output_dir)
        raise
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)
    return final


def prune(output_dir: Path, keep: int | None, best: int | None = None) -> list[Path]:
    """Delete all but the newest `keep` checkpoints and that of step `best`; only called after a newer one is there."""
    gone = [path for path in (checkpoints(output_dir)[:-keep] if keep else []) if step_of(path) != best]
    for path in gone:
        _remove(path)
    return gone


def discard(output_dir: Path, step: int) -> None:
    """Delete the checkpoint of a step, if there is one."""
    _remove(output_dir / f"checkpoint-{step}")


def _remove(path: Path) -> None:
    """Delete a checkpoint, first its name: killed half-way, what is left is no checkpoint but a draft to sweep."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.{os.getpid()}-old.draft")
        path.rename(doomed)
        shutil.rmtree(doomed)


def load(path: Path) -> tuple[Progress, Tensors]:
    """What `save` wrote. Raises ModelError when a file is damaged."""
    try:
        said = json.loads((path / "state.json").read_text())
        progress = Progress(**said)
        tensors = load_file(path / "state.safetensors")
        expected = sum(map(math.prod, progress.parameters.values()))
        if said.get("optimizer") is None or tensors["weights"].numel() != expected:
            raise ValueError("the weights are not those of its layers")
        return progress, tensors
    except Exception as error:  # whatever a damaged file raises, the advice is the same
        raise ModelError(f"The checkpoint {path.name} is damaged: resume from another one, or train anew.") from error


def check_resumable(progress: Progress, current: Progress, name: str) -> None:
    """Refuse to go on with another configuration or other data; raises ConfigError that names what differs."""
    theirs, ours = progress.identity, current.identity
    free = (*SAME_RESULT, *OF_THE_DATA, *(() if ours.get("lora_dropout") else CUTS))
    known = [*ours, *(key for key in theirs if key in LATER and key not in ours)]
    differing = [key for key in known if ours.get(key) != theirs.get(key) and key not in free]
    if differing:
        changes = ", ".join(f"{key} ({theirs.get(key)!r}, now {ours.get(key)!r})" for key in differing)
        raise ConfigError(
            f"{name} belongs to another configuration, which differs in {changes}: "
            "resume with the run's own settings (--config config.json, from its folder), or choose another --output_dir"
        )
    _check_batch(progress, current, name)
    if progress.precision != current.precision:
        raise ConfigError(
            f"{name} was trained with precision {progress.precision}, now it is {current.precision}: "
            "resume on the same set-up"
        )
    if progress.data_fingerprint != current.data_fingerprint:
        raise ConfigError(
            f"{name} was trained on other pictures, captions or settings of folders ({progress.pictures} then, "
            f"{current.pictures} now): restore them, or choose another --output_dir"
        )
    if progress.reading != current.reading:
        raise ConfigError(
            f"{name} was trained by another version of sdxl_nb, which saw other colours in the same pictures "
            "(profiles, gamma, wide gamut): resume it with that version, or choose another --output_dir"
        )
    if progress.heldout_fingerprint not in (None, current.heldout_fingerprint):
        raise ConfigError(
            f"{name} was measured on other held-out pictures, whose losses do not compare: restore them, or choose "
            "another --output_dir"
        )
    if list(progress.parameters.items()) != list(current.parameters.items()):  # their order is the flat vector's
        raise ConfigError(f"{name} holds other LoRA layers than this base model gets: choose another --output_dir")


def _check_batch(progress: Progress, current: Progress, name: str) -> None:
    """Another number of processes is fine as long as a step takes the same pictures, and their choices are the same."""
    then, now = progress.processes, current.processes
    if then != now and current.identity.get("lora_dropout"):
        raise ConfigError(
            f"{name} was trained by {then} processes, now there are {now}, and lora_dropout draws by process: "
            "resume with as many"
        )
    if progress.batch != current.batch:
        raise ConfigError(
            f"{name} took {progress.batch} pictures a step, now it would be {current.batch} with {now} processes "
            f"(then {then}): set --train_batch_size and --gradient_accumulation_steps so that it is {progress.batch}"
        )


def copy_file(source: Path, goal: Path) -> Path:
    """Copy a file so that `goal` is whole at any moment; returns it."""
    draft = goal.with_name(f".{goal.name}.{os.getpid()}.draft")
    try:
        shutil.copyfile(source, draft)
        _sync(draft)
        draft.replace(goal)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return goal


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
