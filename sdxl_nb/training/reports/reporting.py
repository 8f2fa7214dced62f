"""What a run says while it trains: the first lines, one event and one move of the bar for every step.

In: the Trainer. Out: events and lines in its log.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...audit.inspection import quick_summary
from ...config.train_config import TrainConfig
from ...data.words.syntax import said_syntax
from ...lora.files.readers import DORA
from ...system.memory import peak_memory
from ..epochs import drawing_share, validation_pictures
from ..optimizing import schedules
from ..optimizing.groups import idle, told

if TYPE_CHECKING:
    from ..step import Numbers
    from ..trainer import Trainer


def announce(trainer: "Trainer", resumed_from: int | None) -> None:
    """The `start` event, and the lines and notes that a run begins with."""
    config, studio, log = trainer.config, trainer.studio, trainer.log
    parameters, batch = trainer.updates.flat.weights.numel(), trainer.stream.batch
    log.emit(
        "start",
        steps=trainer.steps,
        epochs=math.ceil(trainer.steps / trainer.stream.steps_per_epoch),
        pictures=len(studio.pictures),
        heldout=len(studio.heldout),
        parameters=parameters,
        batch=batch,
        processes=trainer.processes.count,
        device=str(studio.device),
        resumed_from=resumed_from,
        fingerprint=config.fingerprint(),
    )
    if resumed_from is not None:
        log.say(f"Resuming at step {resumed_from}.")
    elif config.resume_from_checkpoint:
        log.warn("There is no checkpoint to resume from yet: starting from the first step.")
    of_class = studio.pictures.class_pictures
    of_the_class = f" and {of_class} of the class" if of_class else ""
    held = f" ({len(studio.heldout)} more held out)" if len(studio.heldout) else ""
    many = f" in {trainer.processes.count} processes" if trainer.processes.count > 1 else ""
    log.say(
        f"{len(studio.pictures) - of_class} pictures{of_the_class}{held}, {parameters:,} trainable parameters, "
        f"{trainer.steps} steps of {min(batch, trainer.stream.count)} on {studio.device.type}{many}."
    )
    log.say(str(studio.objective))
    if line := told(trainer.updates.groups, trainer.updates.last_of_encoders):
        log.say(line)
    if any(each.uses_buckets() for each in studio.configs):
        log.say(studio.buckets.summary(names=studio.everything.names))
    log.say(quick_summary(config, studio.pictures, studio.pictures.sizes()))
    remarks = [*_remarks(config, trainer.steps), *_drawing(config, trainer.steps, trainer.stream.steps_per_epoch)]
    for line in [*trainer.processes.remarks(), *studio.remarks, *_idle(trainer), *remarks]:
        log.warn(line)


def _idle(trainer: "Trainer") -> list[str]:
    """A remark where layers are trained in name alone: a rate of 0, or a share of the run that is no step."""
    updates = trainer.updates
    models = idle(updates.flat.names, updates.groups, updates.last_of_encoders)
    if not models:
        return []
    why = "train_text_encoder_frac stops them before the first step" if updates.last_of_encoders == 0 else "rate 0"
    return [f"Nothing is learned in the layers of {' and '.join(models)} ({why}): they are saved as they begin."]


def _drawing(config: TrainConfig, steps: int, an_epoch: int) -> list[str]:
    """A remark where validation pictures are more than a fifth of the work."""
    share, pictures = drawing_share(config, steps, an_epoch), validation_pictures(config, steps, an_epoch)
    if share <= 0.2:
        return []
    return [
        f"{pictures:,} validation pictures are about {share:.0%} of this run's work: fewer --num_validation_images or "
        "a larger --validation_epochs, --validation_steps or --validation_share leave more of it to training."
    ]


def _remarks(config: TrainConfig, steps: int) -> list[str]:
    remarks = [*([DORA] if config.use_dora else []), *schedules.remarks(config, steps)]
    if config.optimizer in ("prodigy", "prodigy_schedulefree") and config.learning_rate < 0.1:
        remarks.append(
            f"learning_rate {config.learning_rate:g} is a factor on the step size that Prodigy finds by itself, and "
            "so makes it slow: 1 is what its authors recommend."
        )
    if config.optimizer.endswith("_schedulefree") and config.lr_scheduler in schedules.FALLING:
        remarks.append(
            f"optimizer {config.optimizer} averages weights instead of lowering the rate: lr_scheduler constant, or "
            "constant_with_warmup, is what its authors recommend."
        )
    if config.optimizer == "prodigy_schedulefree" and config.max_grad_norm:
        remarks.append(
            "optimizer prodigy_schedulefree estimates its step size from gradients, which clipping changes: "
            "--max_grad_norm 0 is what its author recommends."
        )
    if said := said_syntax(_prompts(config), "prompts"):
        remarks.append(said)
    return remarks


def _prompts(config: TrainConfig) -> list[str | None]:
    """Every text of the settings that is encoded, but those of captions, which the audit looks at."""
    sliders = [config.slider_positive, config.slider_negative, config.slider_target]
    drawn = [*(config.validation_prompt or []), *(config.sample_prompts or [])]
    return [*drawn, config.class_prompt, *(config.prior_prompts or []), *sliders]


def bar(trainer: "Trainer") -> Any:
    """The progress bar over all steps."""
    from ...system.progress import progress_bar

    return progress_bar(total=trainer.steps, initial=trainer.step, unit="step", disable=trainer.log.quiet)


def report(trainer: "Trainer", step: int, loss: float, numbers: "Numbers") -> None:
    """The event and the bar of a step; its seconds are those since the step before, or since it was launched."""
    trainer.log.step, now = step, time.monotonic()
    seconds = now - max(numbers.begun, trainer.reported)
    trainer.reported = now
    memory = peak_memory(trainer.studio.device)
    more: dict[str, Any] = {"rates": numbers.rates} if numbers.rates else {}
    if numbers.found:  # one step size for all, or one for each group
        found = numbers.found if len(set(numbers.found)) > 1 else numbers.found[:1]
        more["d"] = found[0] if len(found) == 1 else dict(zip(numbers.rates, found, strict=True))
    if numbers.scaled is not None:
        more["scaled"] = numbers.scaled
    trainer.log.emit("step", train_loss=loss, lr=numbers.rate, seconds=round(seconds, 4), memory=memory, **more)
    trainer.bar.update()
    trainer.bar.set_postfix(loss=f"{mean(trainer.recent):.4f}", lr=f"{numbers.rate:.1e}", refresh=False)


def mean(losses: Sequence[float]) -> float:
    """The mean of some losses, the last fifty of a run."""
    return sum(losses) / len(losses)
