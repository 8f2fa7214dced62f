"""What an epoch of training sees, and how many steps it takes, before a picture is decoded.

In: a TrainConfig. Out: counts of its pictures, of steps, and of validation pictures, as the trainer arrives at them.
Pictures that only decoding shows to be unreadable are counted; of several repeats at once the held-out share is the
mean one.
"""

import math
from typing import NamedTuple

from ..config.train_config import TrainConfig


class Counts(NamedTuple):
    """Numbers of pictures, and of different captions."""

    pictures: int  # that were listed
    held_out: int  # of them, by validation_split
    entries: int  # that an epoch sees: repeats counted, those held out not
    captions: int


def count_pictures(config: TrainConfig) -> Counts:
    """The Counts of the data that the configuration names. Opens them; raises DataError."""
    from ..data.dataset import open_dataset

    opened = open_dataset(config)
    pictures = len(opened)
    held_out = min(pictures, max(1, round(config.validation_split * pictures))) if config.validation_split else 0
    repeated = pictures if opened.repeats is None else int(opened.repeats.sum())
    entries = max(1, round(repeated * (1 - held_out / pictures)))
    return Counts(pictures, held_out, entries, len(set(opened.every_caption())))


def steps_per_epoch(config: TrainConfig, entries: int, processes: int = 1) -> int:
    """Optimizer steps that see so many pictures once; the last takes what is left."""
    return math.ceil(entries / (config.train_batch_size * config.gradient_accumulation_steps * processes))


def validation_pictures(config: TrainConfig, steps: int, an_epoch: int) -> int:
    """Pictures that a run of so many steps draws in all: before the first, as often as is asked for, and at the end."""
    once = len(config.validation_prompt or []) * config.num_validation_images
    return once * (1 + math.ceil(steps / (an_epoch * config.validation_epochs)))
