"""What an epoch of training sees, and how many steps it takes, before a picture is decoded.

In: a TrainConfig. Out: counts of its pictures, of steps, and of validation pictures, as the trainer arrives at them.
Pictures that only decoding shows to be unreadable are counted; of several repeats at once the held-out share is the
mean one.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..config.train_config import TrainConfig

if TYPE_CHECKING:
    from ..data.dataset import CaptionedPictures


class Counts(NamedTuple):
    """Numbers of pictures, and of different captions."""

    pictures: int  # that were listed
    held_out: int  # of them, by validation_split or a data file
    entries: int  # that an epoch sees: repeats counted, those held out not
    captions: int


def count_pictures(config: TrainConfig) -> Counts:
    """The Counts of the data that the configuration names. Opens them; raises DataError."""
    from ..data.dataset import open_dataset

    return count(config, open_dataset(config))


def count(config: TrainConfig, opened: "CaptionedPictures") -> Counts:
    """The Counts of data that are open."""
    pictures = len(opened)
    apart = None if opened.folders is None else opened.folders.held_out()
    if apart is not None and apart.any():
        times = np.ones(pictures, np.int64) if opened.repeats is None else opened.repeats
        entries = max(1, int(times[~apart].sum()))
        return Counts(pictures, int(apart.sum()), entries, len(set(opened.every_caption())))
    held_out = min(pictures, max(1, round(config.validation_split * pictures))) if config.validation_split else 0
    repeated = pictures if opened.repeats is None else int(opened.repeats.sum())
    entries = max(1, round(repeated * (1 - held_out / pictures)))
    return Counts(pictures, held_out, entries, len(set(opened.every_caption())))


def costliest(config: TrainConfig, pictures: "CaptionedPictures") -> TrainConfig:
    """The configuration with the largest resolution of any folder, with live captions and mirrored ones if any has."""
    if pictures.folders is None:
        return config
    largest = max(pictures.configs(config), key=lambda each: each.resolution)
    live = next((each for each in pictures.configs(config) if each.varies_captions()), largest)
    return largest.replace(
        random_flip=any(each.random_flip for each in pictures.configs(config)),
        shuffle_caption=live.shuffle_caption,
        caption_tag_dropout_rate=live.caption_tag_dropout_rate,
    )


def steps_per_epoch(config: TrainConfig, entries: int, processes: int = 1) -> int:
    """Optimizer steps that see so many pictures once; the last takes what is left."""
    return math.ceil(entries / (config.train_batch_size * config.gradient_accumulation_steps * processes))


def looked_at_every(config: TrainConfig, steps: int, an_epoch: int) -> int:
    """Optimizer steps from one look at a run of so many to the next: steps, a share, epochs, or a checkpoint."""
    unit, amount = _interval(config)
    if unit == "share":
        return max(1, math.ceil(round(amount * steps, 6)))  # so that 0.1 is ten times, never eleven
    return int(amount) * (an_epoch if unit == "epochs" else 1)


def measured_every(config: TrainConfig, steps: int, an_epoch: int) -> int:
    """Optimizer steps from one held-out loss of a run of so many to the next: heldout_steps, or from look to look."""
    return config.heldout_steps or looked_at_every(config, steps, an_epoch)


def most_measurements(config: TrainConfig) -> int | None:
    """How often at most a run measures its held-out loss, before the first step too; None where its pictures say it."""
    unit, amount = ("steps", config.heldout_steps) if config.heldout_steps else _interval(config)
    if unit == "share":
        return 1 + math.ceil(round(1 / amount, 6))
    if (unit == "steps") != (config.max_train_steps is not None):
        return None
    return 1 + math.ceil((config.max_train_steps or config.num_train_epochs) / amount)


def _interval(config: TrainConfig) -> tuple[str, float]:
    """From one look to the next, in steps, epochs or a share of the run."""
    if config.validation_steps is not None:
        return "steps", config.validation_steps
    if config.validation_share is not None:
        return "share", config.validation_share
    return (
        ("steps", config.checkpointing_steps)
        if config.validation_epochs is None
        else ("epochs", config.validation_epochs)
    )


def validation_pictures(config: TrainConfig, steps: int, an_epoch: int) -> int:
    """Pictures that a run of so many steps draws in all."""
    return len(config.drawings()) * looks_in(config, steps, an_epoch)


def looks_in(config: TrainConfig, steps: int, an_epoch: int) -> int:
    """How often a run of so many steps is looked at: before the first, as often as is asked for, and at the end."""
    return 1 + math.ceil(steps / looked_at_every(config, steps, an_epoch))


def drawing_passes(config: TrainConfig) -> float:
    """Passes through the U-Net that the pictures of one look take, each counted by its area beside resolution's."""
    area = config.resolution**2
    return sum(
        each.steps * (2 if each.guidance > 1 else 1) * each.width * each.height / area for each in config.drawings()
    )


def drawing_share(config: TrainConfig, steps: int, an_epoch: int) -> float:
    """The part of a run's work that its validation pictures are, by passes through the U-Net; a backward is two."""
    drawing = drawing_passes(config) * looks_in(config, steps, an_epoch)
    training = steps * config.train_batch_size * config.gradient_accumulation_steps * passes(config)
    return drawing / (drawing + training)


def passes(config: TrainConfig) -> int:
    """Passes through the U-Net that a picture of a step takes: one forward, and backward two, or three where it is
    computed again; what else teaches (training/teachers) takes more.
    """
    learned = plain_passes(config)
    kept = 1 + learned if config.prior_without_pictures else 0  # what the base says, and what is learned of it
    return pictures_each(config) * (learned + kept) + (3 if config.slider_positive is not None else 0)


def pictures_each(config: TrainConfig) -> int:
    """Pictures that an entry of an epoch is: two where it has an opposite."""
    return 1 if config.slider_negative_dir is None else 2


def plain_passes(config: TrainConfig) -> int:
    """The same where a picture teaches alone."""
    return 4 if config.gradient_checkpointing else 3
