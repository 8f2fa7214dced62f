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
from ...runs.checkpoints import put_back
from ...system.errors import ModelError

Tensors = dict[str, torch.Tensor]


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
    base: dict[str, str] = field(default_factory=dict)  # identity.contents of each part
    fair: bool = False  # whether short steps were drawn from all pictures where that makes a difference
    dropout: int = 1  # 2: drawn by picture


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


class Newer(Exception):
    """A checkpoint says what this version does not know."""


def load(path: Path) -> tuple[Progress, Tensors]:
    """What `save` wrote. Raises ModelError when a file is damaged."""
    try:
        said = json.loads((path / "state.json").read_text())
        if strange := [key for key in said if key not in Progress.__dataclass_fields__]:
            raise Newer(", ".join(strange))
        progress = Progress(**said)
        tensors = load_file(path / "state.safetensors")
        expected = sum(map(math.prod, progress.parameters.values()))
        if said.get("optimizer") is None or tensors["weights"].numel() != expected:
            raise ValueError("the weights are not those of its layers")
        return progress, tensors
    except Newer as error:
        raise ModelError(f"The checkpoint {path.name} is of a newer sdxl_nb ({error}): resume it with that.") from None
    except Exception as error:  # whatever a damaged file raises, the advice is the same
        raise ModelError(f"The checkpoint {path.name} is damaged: resume from another one, or train anew.") from error


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
