"""What a run keeps: checkpoints while it goes on, and at its end the LoRA, its card and perhaps a place on the hub.

In: the Trainer. Out: files in the run folder, written by the first process alone.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..cache.identity import FORMAT
from ..config.layout import LORA, checkpoints
from ..lora.files.file import LoraFile
from ..lora.files.metadata import build_metadata
from ..lora.files.writer import fits, save_lora
from ..system.errors import SdxlNbError
from ..system.memory import trim
from . import heldout
from .optimizing.stored_state import optimizer_state, restore_optimizer
from .reports import reporting
from .state import checkpoint

if TYPE_CHECKING:
    from .trainer import Trainer


PRECISIONS: dict[str | None, tuple[torch.dtype, torch.dtype]] = {  # of the diffusers and the kohya file
    None: (torch.float32, torch.float16),
    "fp32": (torch.float32, torch.float32),
    "fp16": (torch.float16, torch.float16),
    "bf16": (torch.bfloat16, torch.bfloat16),
}


def progress(trainer: "Trainer") -> checkpoint.Progress:
    """What a checkpoint of this moment says of itself."""
    updates = trainer.updates
    return checkpoint.Progress(
        step=trainer.step,
        identity=trainer.config.identity(),
        pictures=len(trainer.studio.pictures),
        data_fingerprint=trainer.studio.data_fingerprint,
        processes=trainer.processes.count,
        precision=str(trainer.studio.dtype).removeprefix("torch."),
        parameters={n: list(p.shape) for n, p in zip(updates.flat.names, updates.flat.parameters, strict=True)},
        batch=trainer.stream.batch,
        optimizer=optimizer_state(updates.optimizer)[1],
        scaler=updates.scaler.state_dict() or None,
        heldout=asdict(trainer.record),
        recent_losses=trainer.recent,
        micro_batch=updates.micro_batch,
        heldout_fingerprint=trainer.studio.heldout_fingerprint,
        reading=FORMAT,
        base=trainer.studio.base,
        fair=trainer.stream.fair,
        dropout=2,
    )


def check_alike(trainer: "Trainer") -> None:
    """Raise when the processes have not read the same pictures or do not train the same layers."""
    ours = progress(trainer)
    seen = trainer.processes.gather((ours.data_fingerprint, ours.parameters, ours.precision))
    if any(other != seen[0] for other in seen):
        raise SdxlNbError(
            "The processes do not see the same pictures, base model or precision: give all machines the same files."
        )


def save(trainer: "Trainer") -> None:
    """A checkpoint; the processes agree on what fits into memory, so that a resumed run cuts its steps as this one."""
    trainer.updates.micro_batch = min(trainer.processes.gather(trainer.updates.micro_batch))
    with trainer.processes.together():
        write_checkpoint(trainer)


def write_checkpoint(trainer: "Trainer") -> None:
    """The first process's part of `save`, which needs no other."""
    trainer.saved = trainer.step
    if not trainer.folder.writes:
        return
    trim()  # copies of the trained weights come on top of what steps have left
    updates, folder = trainer.updates, trainer.folder.path
    tensors = {"weights": updates.flat.weights.data, **optimizer_state(updates.optimizer)[0]}
    if updates.average:
        tensors["average"] = updates.average.weights
    path = checkpoint.save(folder, progress(trainer), tensors, lambda draft: _write_lora(trainer, draft))
    trainer.log.emit("checkpoint", path=path.name)
    if trainer.superseded:
        checkpoint.discard(folder, trainer.superseded)
    checkpoint.prune(folder, trainer.config.checkpoints_total_limit, best=trainer.record.best_step)


def restore(trainer: "Trainer", kept: checkpoint.Progress, tensors: checkpoint.Tensors) -> None:
    """Go back to what `save` kept."""
    updates = trainer.updates
    updates.flat.weights.data.copy_(tensors["weights"])
    restore_optimizer(updates.optimizer, tensors, kept.optimizer)
    if updates.average:
        updates.average.weights.copy_(tensors["average"])
    if kept.scaler:
        updates.scaler.load_state_dict(kept.scaler)
    trainer.step = trainer.saved = kept.step
    trainer.recent, trainer.record = list(kept.recent_losses), _record(trainer, kept)
    updates.micro_batch = min(updates.micro_batch, kept.micro_batch or updates.micro_batch)


def _record(trainer: "Trainer", kept: checkpoint.Progress) -> heldout.Record:
    """The held-out losses so far; without the best one where its checkpoint is gone, as a later best makes it."""
    record, folder = heldout.Record(**kept.heldout), trainer.folder.path
    there = trainer.processes.from_first(lambda: [path.name for path in checkpoints(folder)])
    if record.best_step is None or f"checkpoint-{record.best_step}" in there:
        return record
    return heldout.Record(step=record.step)


def averaged(trainer: "Trainer") -> contextlib.AbstractContextManager[None]:
    """Inside, the models have the averaged weights, if there is an average."""
    return trainer.updates.evaluated()


def _write_lora(trainer: "Trainer", folder: Path, *dtypes: torch.dtype) -> tuple[Path, Path]:
    """Both LoRA files, in fp32 or in these dtypes."""
    config = trainer.config
    loss = {"train": reporting.mean(trainer.recent)} if trainer.recent else None
    metadata = build_metadata(
        config,
        output_name=config.lora_name(),
        steps=trainer.step,
        epochs=math.ceil(trainer.step / trainer.stream.steps_per_epoch),
        num_train_images=len(trainer.studio.pictures),
        data_fingerprint=trainer.studio.data_fingerprint,
        loss=loss,
        trigger_words=list(dict.fromkeys(each.trigger_word for each in trainer.studio.configs if each.trigger_word)),
        prediction_type=trainer.updates.kind,
    )
    with averaged(trainer):
        weights = trainer.studio.lora()
    for dtype in [each for each in dict.fromkeys(dtypes) if not fits(weights, each)]:
        name = str(dtype).removeprefix("torch.")
        trainer.log.warn(f"The LoRA has weights too large for {name}: its files of that precision are written in fp32.")
        dtypes = tuple(torch.float32 if each == dtype else each for each in dtypes)
    return save_lora(weights, folder, config.lora_name(), metadata, *dtypes)


def _final_lora(trainer: "Trainer") -> Sequence[Path]:
    """The LoRA files in the run folder: those of this step's checkpoint where they are in the precision asked for."""
    folder, dtypes = trainer.folder.path, PRECISIONS[trainer.config.save_precision]
    names = (LORA, f"{trainer.config.lora_name()}.safetensors")
    made = [folder / f"checkpoint-{trainer.step}" / name for name in names]
    if set(dtypes) != {torch.float32} or not all(file.is_file() for file in made):
        return _write_lora(trainer, folder, *dtypes)
    return [checkpoint.copy_file(file, folder / file.name) for file in made]


def finish(trainer: "Trainer", finished: bool) -> None:
    """The LoRA files, what each reader makes of them, the model card; published if that was asked for."""
    from ..runs.card import write_card

    config, folder, log = trainer.config, trainer.folder.path, trainer.log
    if config.load_best_model_at_end and finished and trainer.record.best_step not in (None, trainer.step):
        record = trainer.record
        restore(trainer, *checkpoint.load(folder / f"checkpoint-{record.best_step}"))
        log.say(f"The LoRA is that of step {trainer.step}, whose held-out loss was {record.best_loss:.4f}.")
    tables = {file.name: LoraFile(file).check() for file in _final_lora(trainer)}
    log.emit("lora", files=[{"file": name, "readers": t.counts()} for name, t in tables.items()])
    pictures, loss = len(trainer.studio.pictures), reporting.mean(trainer.recent) if trainer.recent else None
    objective = trainer.studio.objective
    write_card(config, folder, steps=trainer.step, pictures=pictures, loss=loss, tables=tables, objective=objective)
    if config.push_to_hub and finished:
        from ..runs.publishing import publish

        publish(config, folder, log)
