"""One picture measured: what its header says, and what its pixels show.

In: an encoded picture. Out: a Header (nothing decoded) or a Measure (decoded once, then let go). Sizes are
(height, width) as a person sees the picture, after EXIF rotation.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..data.decoding import alone, colours_of, decoded, opacity, open_header, orientation_of, tiles
from .duplicates import colours, picture_hash

WINDOW = 9  # pixels in which an edge is looked at
FAINT = 10.0  # grey levels: lower edges are rounding, noise and what compression makes
LEAST = 32  # places; fewer say nothing of an axis
MOVED = 0.33  # what the axis along which a picture moved has less than
FEW = 0.02  # of the edges: the subject of a picture whose ground is out of focus may be small
LOOKED_AT = 1024  # the longest short side that sharpness is measured at


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before it is decoded."""

    size: tuple[int, int]
    rotated: bool
    frames: int
    colours: str = ""  # what of its colours cannot be honoured, in a few words


@dataclass(frozen=True, slots=True)
class Measure:
    """A decoded picture in numbers: `sharpness` and `contrast` see `sharpness_of` and `contrast_of`."""

    header: Header
    digest: bytes
    transparent: bool
    sharpness: float
    contrast: float
    hash: int
    colours: bytes


def read_header(data: bytes, name: str) -> Header:
    """The Header of an encoded picture. Raises PictureError, also for a decompression bomb."""
    return _header(open_header(data, name), data, name)


def _header(picture: Image.Image, data: bytes, name: str) -> Header:
    orientation = _orientation(picture, name)
    height, width = picture.height, picture.width
    size = (width, height) if orientation >= 5 else (height, width)
    doubt = colours_of(picture, data, name).doubt
    return Header(size, orientation > 1, getattr(picture, "n_frames", 1), doubt)


def _orientation(picture: Image.Image, name: str) -> int:
    """1 (upright) to 8; 1 too for PNG without EXIF data, which would be decoded to look for them."""
    if picture.format == "PNG" and not {"exif", "Raw profile type exif"} & set(picture.info):
        return 1
    return orientation_of(picture, name)


def measure(data: bytes, name: str, resolution: int) -> Measure:
    """Decode a picture and measure it as it would be trained at `resolution`. Raises PictureError."""
    stored = open_header(data, name)
    header = _header(stored, data, name)
    picture, size = decoded(data, name)
    grey = _at_training_size(picture, resolution).convert("L")
    return Measure(
        replace(header, size=size),
        hashlib.sha256(data).digest(),
        _is_transparent(stored),
        sharpness_of(np.asarray(grey, dtype=np.float32)),
        contrast_of(picture),
        picture_hash(grey),
        colours(picture),
    )


def _at_training_size(picture: Image.Image, resolution: int) -> Image.Image:
    """The picture shrunk until its short side is the resolution's, never enlarged."""
    scale = min(resolution, LOOKED_AT) / min(picture.size)
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _is_transparent(stored: Image.Image) -> bool:
    """Whether some pixel really is: an alpha channel that is full everywhere changes nothing."""
    if not stored.has_transparency_data:
        return False
    with alone(stored.size):
        return any((np.asarray(opacity(stored.crop(box))) < 250).any() for box in tiles(stored.size))


def sharpness_of(grey: np.ndarray) -> float:
    """How much of an edge its steepest step is, at the sharpest edges of the picture, 0 to 1.

    A hard edge is one step, 1.0; of an edge blurred by a Gaussian of 1 pixel the steepest step is 0.4, of 2 pixels 0.2
    of what lies within WINDOW. Only edges that count beside the picture's strongest are looked at, and of them the
    sharpest FEW, so that planes, soft grounds and skies say nothing; of both axes the geometric mean, or the lesser
    where it is below MOVED. Photographs in focus measure 0.65 and more, after a blur of 2.5 pixels 0.45 and less. 0.0
    where nothing is an edge, 1.0 where the picture is too small to tell.
    """
    if min(grey.shape) < 3 * WINDOW:
        return 1.0
    axes = [_steps_and_heights(grey), _steps_and_heights(grey.T)]
    strongest = max(float(np.quantile(heights, 0.999)) for _, heights in axes)
    floor = max(FAINT, strongest / 4)
    found = [_sharpest(steps, heights, floor) for steps, heights in axes if (heights >= floor).sum() >= LEAST]
    if not found or min(found) < MOVED:
        return min(found, default=0.0)
    return math.sqrt(min(found) * max(found))


def _steps_and_heights(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every WINDOW pixels in a row the largest difference between neighbours, and of all; three rows averaged."""
    rows = (grey[:-2] + grey[1:-1] + grey[2:]) / 3
    heights = _along(rows, np.maximum, WINDOW) - _along(rows, np.minimum, WINDOW)
    return _along(np.abs(np.diff(rows, axis=1)), np.maximum, WINDOW - 1), heights


def _along(values: np.ndarray, choose: np.ufunc, count: int) -> np.ndarray:
    """The largest or least of every `count` values in a row, by doubling."""
    span = 1
    while span < count:
        more = min(span, count - span)
        values, span = choose(values[:, :-more], values[:, more:]), span + more
    return values


def _sharpest(steps: np.ndarray, heights: np.ndarray, floor: float) -> float:
    edges = heights >= floor
    return float(np.quantile(steps[edges] / heights[edges], 1 - FEW))


def contrast_of(picture: Image.Image) -> float:
    """The largest standard deviation of a colour channel, 0 to 127; below about 4 nothing can be seen."""
    small = picture.resize((128, 128), Image.Resampling.BOX)
    return float(np.asarray(small, dtype=np.float32).reshape(-1, 3).std(axis=0).max())
