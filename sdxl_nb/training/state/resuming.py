"""Whether a run may go on from a checkpoint: what must be as it was then, and what changes no step.

In: what a checkpoint says of itself, and what one of this moment would say. Out: remarks for the user, or ConfigError
that names what differs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ...config.train_config import LATER, TrainConfig
from ...system.errors import ConfigError
from .checkpoint import Progress

Rates = Callable[[TrainConfig, int, int], Callable[[int], float]]
CUTS = ("train_batch_size", "gradient_accumulation_steps")  # free as long as their product with processes is the same
SAME_STEPS = {
    *CUTS,
    *("gradient_checkpointing", "enable_xformers_memory_efficient_attention"),  # what a lack of memory asks for
    *("heldout_steps", "early_stopping_patience", "early_stopping_threshold", "load_best_model_at_end"),
    *("max_train_steps", "num_train_epochs"),  # of which `_lengthened` tells
    "mixed_precision",  # the precision tells
}
OF_THE_DATA = {  # what they decide, the fingerprint of the data tells
    *("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "caption_column", "mask_column"),
    *("dataset_name_mapping", "max_train_samples", "folder_repeats", "folder_weights"),
    *("caption_choice", "caption_lines", "caption_source", "class_data_dir", "class_prompt", "num_class_images"),
    *("validation_data_dir", "validation_split", "slider_negative_dir"),
}
OF_THE_BASE = {  # what they decide, the contents of the base tell, where a checkpoint knows them
    *("pretrained_model_name_or_path", "pretrained_vae_model_name_or_path", "revision", "variant"),
    *("prediction_type", "flow_shift", "rescale_betas_zero_snr", "lora_weights", "base_lora"),
}
FORMER = {"aspect_ratio_buckets": False}  # what versions without a setting did, where its default does another thing
WITHOUT_EFFECT: dict[str, Callable[[Mapping[str, Any]], bool]] = {  # settings that are not looked at, and when
    "lr_warmup_steps": lambda known: known.get("lr_scheduler") == "constant",
    "bucket_reso_steps": lambda known: not known.get("aspect_ratio_buckets"),
    "bucket_no_upscale": lambda known: not known.get("aspect_ratio_buckets"),
}


def check_resumable(progress: Progress, current: Progress, name: str) -> None:
    """Refuse to go on with another configuration, base or other data; raises ConfigError that names what differs."""
    _check_settings(progress, current, name)
    _check_base(progress, current, name)
    _check_batch(progress, current, name)
    _check_rules(progress, current, name)
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
    if progress.heldout_fingerprint not in (None, current.heldout_fingerprint):
        raise ConfigError(
            f"{name} was measured on other held-out pictures, whose losses do not compare: restore them, or choose "
            "another --output_dir"
        )
    if list(progress.parameters.items()) != list(current.parameters.items()):  # their order is the flat vector's
        raise ConfigError(f"{name} holds other LoRA layers than this base model gets: choose another --output_dir")


def _check_settings(progress: Progress, current: Progress, name: str) -> None:
    theirs, ours = meant(progress.identity), meant(current.identity)
    free = SAME_STEPS | OF_THE_DATA | (OF_THE_BASE if progress.base and current.base else set())
    if strange := [key for key in theirs if key not in ours]:
        raise ConfigError(
            f"{name} was trained with {', '.join(strange)}, which this sdxl_nb does not know: resume it with the "
            "version that trained it, or choose another --output_dir"
        )
    differing = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key) and key not in free]
    if differing:
        changes = ", ".join(f"{key} ({theirs.get(key)!r}, now {ours.get(key)!r})" for key in differing)
        raise ConfigError(
            f"{name} belongs to another configuration, which differs in {changes}: "
            "resume with the run's own settings (--config config.json, from its folder), or choose another --output_dir"
        )


def meant(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they act: those that a version did not have are what it did, null is what it stands for."""
    fields = TrainConfig.model_fields
    usual = {name: field.default for name, field in fields.items() if name in LATER or name in SETTINGS}
    known = {**usual, **FORMER, **identity}
    if known.get("lora_alpha") is None:
        known["lora_alpha"] = known.get("rank")
    if known.pop("use_8bit_adam", False):
        known["optimizer"] = "adamw8bit"
    if known.get("aspect_ratio_buckets") is None:
        known["aspect_ratio_buckets"] = not known.get("center_crop")
    without = {key for key, has_none in WITHOUT_EFFECT.items() if has_none(known)}
    return {key: value for key, value in known.items() if key not in without}


# of what a run without LATER's settings says of itself
SETTINGS = set(TrainConfig(seed=0).identity()) - {"seed"}


def _check_base(progress: Progress, current: Progress, name: str) -> None:
    """Refuse other weights, whatever they are called; of checkpoints from before they were noted, nothing is known."""
    then, now = progress.base, current.base
    others = [part for part in sorted({*then, *now}) if then.get(part) != now.get(part)] if then and now else []
    if others:
        where = current.identity.get("pretrained_model_name_or_path")
        raise ConfigError(
            f"{name} was trained on another base: {' and '.join(others)} of {where} {'are' if others[1:] else 'is'} "
            "not what it was then (its files were replaced, or a hub id without --revision has moved on): restore it, "
            "or choose another --output_dir"
        )


def _check_batch(progress: Progress, current: Progress, name: str) -> None:
    """Another number of processes is fine as long as a step takes the same pictures."""
    then, now = progress.processes, current.processes
    took = progress.batch or then * math.prod(progress.identity.get(cut, 1) for cut in CUTS)
    if took != current.batch:
        raise ConfigError(
            f"{name} took {took} pictures a step, now it would be {current.batch} with {now} processes "
            f"(then {then}): set --train_batch_size and --gradient_accumulation_steps so that it is {took}"
        )


def _check_rules(progress: Progress, current: Progress, name: str) -> None:
    """Refuse what an earlier version of this code did otherwise, and no version does any more."""
    if progress.reading != current.reading:
        what = "saw other colours in the same pictures (profiles, gamma, wide gamut)"
    elif current.fair and not progress.fair:
        what = "gave the leftovers of buckets another place and more weight"
    elif progress.dropout != current.dropout and current.identity.get("lora_dropout"):
        what = "drew lora_dropout by process and micro-batch, not by picture"
    else:
        return
    raise ConfigError(
        f"{name} was trained by another version of sdxl_nb, which {what}: resume it with that version, or choose "
        "another --output_dir"
    )


def remark(progress: Progress, config: TrainConfig, steps: int, an_epoch: int, name: str, rates: Rates) -> str | None:
    """One sentence where a run of another length than before is no longer what it would have been from its start.

    `steps` are those of the run now, `an_epoch` those of an epoch; `rates` gives the learning rates of so many steps.
    Raises ConfigError where the checkpoint is beyond.
    """
    said = progress.identity
    then = said.get("max_train_steps") or said.get("num_train_epochs", 0) * an_epoch
    if progress.step > steps:
        raise ConfigError(f"{name} is beyond the {steps} steps that are asked for: raise --max_train_steps")
    if then in (0, steps):
        return None
    before, after = (rates(config, many, progress.processes) for many in (then, steps))
    share = config.train_text_encoder_frac if config.train_text_encoder else 1
    learned = [min(progress.step, int(share * many)) for many in (then, steps)]  # by the text encoders
    if share < 1 and learned[0] != learned[1]:
        return (
            f"The run has {steps} steps now, it had {then}, and train_text_encoder_frac depends on their number: the "
            f"text encoders learned for {learned[0]} steps, and the run is not what {steps} steps from the start would "
            "have been."
        )
    if all(before(step) == after(step) for step in range(progress.step)):
        return None
    return (
        f"The run has {steps} steps now, it had {then}, and lr_scheduler {config.lr_scheduler} depends on their "
        f"number: from step {progress.step} on the rate is that of {steps} steps, and the run is not what {steps} "
        "steps from the start would have been."
    )
