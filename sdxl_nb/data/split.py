"""Which pictures are trained on, and which are held out to measure by.

In: captioned pictures and a TrainConfig. Out: two selections that share no picture, whatever the order of the files.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .dataset import CaptionedPictures, Faults, open_dataset
from .sources.listing import joined


def divide(
    config: TrainConfig,
    pictures: CaptionedPictures,
    check: Callable[[CaptionedPictures], Faults] = CaptionedPictures.check,
) -> tuple[CaptionedPictures, CaptionedPictures]:
    """The pictures to train on, and those to hold out, perhaps none. Raises DataError.

    A data file holds folders out. `validation_split` takes those with the smallest hash of their bytes, so that a set
    that grows keeps most of them held out, and two copies of a picture are never on both sides.
    """
    if pictures.folders is not None and pictures.folders.held_out().any():
        return _by_folder(config, pictures)
    if config.validation_data_dir is not None:
        return pictures, _open(config, check)
    if not config.validation_split:
        _refuse_unmeasured(config)
        return pictures, pictures.select([])
    own = len(pictures) - pictures.class_pictures
    ranks = [hashlib.sha256(f"held out {pictures.identity(i)}".encode()).digest() for i in range(own)]
    wanted = max(1, round(config.validation_split * own))
    limit = sorted(ranks)[wanted - 1]
    if all(rank <= limit for rank in ranks):
        raise DataError(
            f"validation_split {config.validation_split:g} leaves none of the {own} pictures to train on: "
            "lower it, or give other pictures with --validation_data_dir."
        )
    held = [index for index, rank in enumerate(ranks) if rank <= limit]
    kept = [index for index in range(len(pictures)) if index >= own or ranks[index] > limit]
    return pictures.select(kept), pictures.select(held)


def _by_folder(config: TrainConfig, pictures: CaptionedPictures) -> tuple[CaptionedPictures, CaptionedPictures]:
    """The pictures of the folders that a data file trains on, and of those that it holds out."""
    other = "validation_data_dir" if config.validation_data_dir is not None else "validation_split"
    if getattr(config, other):
        raise DataError(f"{pictures.source} and {other} both hold pictures out: keep one of them.")
    held_out = pictures.folders.held_out() if pictures.folders else np.zeros(len(pictures), bool)
    if held_out.all():
        raise DataError(f"{pictures.source} holds out all that can be used: give it folders to train on.")
    return pictures.select(np.flatnonzero(~held_out)), pictures.select(np.flatnonzero(held_out))


def _refuse_unmeasured(config: TrainConfig) -> None:
    """Raise DataError for settings that need held-out pictures; config/combinations.py leaves data files to us."""
    for name in ("heldout_steps", "early_stopping_patience", "load_best_model_at_end"):
        if getattr(config, name):
            place = config.train_data_dir or config.dataset_name
            raise DataError(
                f"{name} needs held-out pictures: give a folder of {place} held_out, or validation_data_dir or "
                "validation_split."
            )


def _open(config: TrainConfig, check: Callable[[CaptionedPictures], Faults]) -> CaptionedPictures:
    folder = {"train_data_dir": config.validation_data_dir, "dataset_name": None, "dataset_config_name": None}
    apart: dict[str, Any] = {"validation_data_dir": None, "heldout_steps": None, "early_stopping_patience": None}
    apart |= {"early_stopping_threshold": 0.0, "load_best_model_at_end": False, "max_train_samples": None}
    try:
        opened = open_dataset(config.replace(**folder, **apart))
        return opened.without(check(opened).names)
    except DataError as error:
        raise DataError(str(error).replace("train_data_dir", "validation_data_dir")) from error


def appended(pictures: CaptionedPictures, held_out: CaptionedPictures) -> CaptionedPictures:
    """The pictures to train on, and after them those that are held out."""
    if not len(held_out):
        return pictures
    return CaptionedPictures(joined([pictures.compact(), held_out.compact()]), pictures.source)
