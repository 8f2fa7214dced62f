"""Concept sliders from pairs of pictures (Concept Sliders, arXiv 2311.12092, its visual sliders).

In: the training pictures and a folder with the opposite of each, under the same name. Out: the opposites in the order
of the pictures, and the strengths that a step takes. A pair is one position: its two pictures have the same noise,
timestep, crop and caption, and the loss is the mean of both,

    |noise - predicted(x)|^2 at strength s,  |noise - predicted(opposite of x)|^2 at -s,  s = slider_strength

so that what both have in common is learned by neither.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
from torch import nn

from ...config.train_config import TrainConfig
from ...data.dataset import CaptionedPictures, Faults, list_directory
from ...data.masks import has_shape
from ...data.sources.listing import text_column
from ...lora.layers import lora_modules
from ...system.errors import DataError

Check = Callable[[CaptionedPictures], Faults]


def paired(
    config: TrainConfig, pictures: CaptionedPictures, check: Check
) -> tuple[CaptionedPictures, CaptionedPictures, list[str]]:
    """(pictures, the opposite of each, remarks); without slider_negative_dir no opposites. Raises DataError.

    A pair whose opposite cannot be used is left out, as a picture that cannot be used is.
    """
    if config.slider_negative_dir is None:
        return pictures, pictures.select([]), []
    if pictures.folders is not None:
        raise DataError("slider_negative_dir pairs the pictures of one folder, and a data file lists several.")
    place = config.slider_negative_dir
    whole = _opened(config, place)
    rows = _partners(list(pictures.names), list(whole.names), place)
    found = whole.select(rows)
    faults = check(found)
    kept = np.flatnonzero(~found.names.where(faults.names))
    pictures, found = pictures.select(kept), found.select(kept)
    _refuse_shapes(pictures, found, place)
    return pictures, found, _remarks(faults, whole, rows, place)


def _opened(config: TrainConfig, place: str) -> CaptionedPictures:
    """All pictures of the folder, whose captions are not read."""
    alone = {"train_data_dir": place, "dataset_name": None, "dataset_config_name": None}
    try:
        listing = list_directory(place, config.replace(**alone, slider_negative_dir=None, slider_strength=1.0))
    except DataError as error:
        raise DataError(str(error).replace("train_data_dir", "slider_negative_dir")) from error
    listing.captions = text_column([""] * len(listing))
    listing.written = listing.further = listing.written_further = None
    listing.masks = listing.read_mask = None
    listing.background = config.alpha_background, config.seed or 0
    return CaptionedPictures(listing, place)


def _partners(names: list[str], there: list[str], place: str) -> list[int]:
    """Which of the pictures that are there is the opposite of each: of the same name, whatever its format."""
    exact = {name: row for row, name in enumerate(there)}
    stems = defaultdict(list)
    for row, name in enumerate(there):
        stems[os.path.splitext(name)[0]].append(row)
    found: list[int] = []
    missing: list[str] = []
    for name in names:
        rows = [exact[name]] if name in exact else stems.get(os.path.splitext(name)[0], [])
        if len(rows) > 1:
            several = " and ".join(there[row] for row in rows)
            raise DataError(f"slider_negative_dir {place} has {several} for {name}: keep one of them.")
        found += rows
        missing += [] if rows else [name]
    if missing:
        others = f" (and {len(missing) - 1} other pictures have none)" if missing[1:] else ""
        raise DataError(
            f"{missing[0]} has no opposite in slider_negative_dir {place}{others}: put a picture of the same name "
            "there, or remove this one."
        )
    return found


def _refuse_shapes(pictures: CaptionedPictures, opposites: CaptionedPictures, place: str) -> None:
    """Raise DataError for a pair of two shapes, whose crops would show different parts."""
    for index, name in enumerate(pictures.names):
        size, other = pictures.size(index), opposites.size(index)
        if not has_shape(other, size):
            raise DataError(
                f"{opposites.names[index]} in slider_negative_dir {place} is {other[1]}x{other[0]}, another shape than "
                f"its training picture {name} of {size[1]}x{size[0]}: crop both alike."
            )


def _remarks(faults: Faults, whole: CaptionedPictures, rows: list[int], place: str) -> list[str]:
    said = [f"{faults} Their training pictures are not used either."] if faults else []
    alone = sorted(set(range(len(whole))) - set(rows))
    if alone:
        first = [whole.names[row] for row in alone[:3]]
        more = ", ..." if alone[3:] else ""
        said.append(
            f"{len(alone)} pictures of slider_negative_dir {place} have no partner that is trained on and are not "
            f"used: {', '.join(first)}{more}."
        )
    return said


@contextmanager
def strength(models: Mapping[str, nn.Module], factor: float) -> Iterator[None]:
    """Inside, the LoRA of these models acts at this strength, the backward pass too."""
    layers = [module for model in models.values() for _, module in lora_modules(model)]
    usual = [dict(cast(dict[str, float], layer.scaling)) for layer in layers]
    try:
        for layer, scales in zip(layers, usual, strict=True):
            layer.scaling.update({name: factor * scale for name, scale in scales.items()})
        yield
    finally:
        for layer, scales in zip(layers, usual, strict=True):
            layer.scaling.update(scales)
