"""Read a 64 px picture back from its pixels: which shape, which colour, which ground, where, and in which style.

The judge of the tiny SDXL and of LoRAs trained on it. It knows only pixels: no network, nothing learned. Validated on
real drawings by tests/test_tiny_checker.py before it judges anything.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from .concepts import BLUEPRINT_INK, BLUEPRINT_PAPER, draw_blueprint
from .draw import COLOURS, SHAPES, SIDE, Scene, Thing, draw

NAMES = list(COLOURS)
PALETTE = np.array([COLOURS[name] for name in NAMES], dtype=np.float32)
TEMPLATE, MARGIN = 28, 4  # templates and found things are compared at this many pixels, with a margin around


@dataclass(frozen=True)
class Reading:
    """What was read: None where nothing could be; `x`, `y` and `radius` in px."""

    shape: str | None
    colour: str | None
    background: str
    x: float = SIDE / 2
    y: float = SIDE / 2
    radius: float = 0.0


def read(picture: Image.Image) -> Reading:
    """Read a flat picture of one thing."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    ground = np.median(_border(pixels), axis=0)
    mask = _distance(pixels, ground) > 60
    background = nearest_colour(ground)
    if mask.sum() < 30:
        return Reading(None, None, background)
    inside = _eroded(mask)
    colour = nearest_colour(np.median(pixels[inside if inside.sum() >= 10 else mask], axis=0))
    top, bottom, left, right = _extent(mask)
    place = {"x": (left + right) / 2, "y": (top + bottom) / 2, "radius": max(bottom - top, right - left) / 2}
    return Reading(best_shape(mask, _flat_templates()), colour, background, **place)


def all_right(picture: Image.Image, scene: Scene) -> bool:
    """Whether shape, colour and background of a one-thing scene are all as asked."""
    reading, thing = read(picture), scene.things[0]
    return (reading.shape, reading.colour, reading.background) == (thing.shape, thing.colour, scene.background)


def nearest_colour(rgb: np.ndarray) -> str:
    """The name of the nearest of the twelve colours, in a space where differences are more even than in RGB."""
    return NAMES[int(np.argmin(np.linalg.norm(_opponent(PALETTE) - _opponent(rgb), axis=-1)))]


def is_blueprint(picture: Image.Image, shape: str) -> bool:
    """Whether a picture is a blueprint of the shape: blue paper, white lines, and those lines draw the shape."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    paper = _distance(pixels, np.array(BLUEPRINT_PAPER)) < 75
    ink = _distance(pixels, np.array(BLUEPRINT_INK)) < 150
    if paper.mean() < 0.5 or ink.sum() < 25:
        return False
    return best_shape(ink, _blueprint_templates()) == shape


def best_shape(mask: np.ndarray, templates: dict[str, np.ndarray]) -> str:
    """The shape whose template correlates best with a mask, both cut to their extent and brought to one size."""
    found = _normalised(mask)
    return max(templates, key=lambda shape: float((templates[shape] * found).sum()))


@cache
def _flat_templates() -> dict[str, np.ndarray]:
    return {shape: _normalised(_mask_of(shape)) for shape in SHAPES}


@cache
def _blueprint_templates() -> dict[str, np.ndarray]:
    made = {}
    for shape in SHAPES:
        scene = Scene((Thing(shape, "red"),), "white")
        pixels = np.asarray(draw_blueprint(scene), dtype=np.float32)
        made[shape] = _normalised(_distance(pixels, np.array(BLUEPRINT_INK)) < 150)
    return made


def _mask_of(shape: str) -> np.ndarray:
    picture = draw(Scene((Thing(shape, "black", radius=20),), "white"))
    return np.asarray(picture.convert("L")) < 128


def _normalised(mask: np.ndarray) -> np.ndarray:
    """The mask's extent, scaled with its proportions kept into a square, zero mean, unit norm."""
    top, bottom, left, right = _extent(mask)
    cut = Image.fromarray((mask[top : bottom + 1, left : right + 1] * 255).astype(np.uint8))
    scale = TEMPLATE / max(cut.size)
    small = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Image.Resampling.BOX)
    side = TEMPLATE + 2 * MARGIN
    square = Image.new("L", (side, side))
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    values = np.asarray(square, dtype=np.float32) - np.asarray(square, dtype=np.float32).mean()
    return values / (np.linalg.norm(values) + 1e-6)


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row and column with at least two pixels of the mask (stray pixels do not count)."""
    rows, columns = np.flatnonzero(mask.sum(1) >= 2), np.flatnonzero(mask.sum(0) >= 2)
    if not len(rows) or not len(columns):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], rows[-1], columns[0], columns[-1]


def _eroded(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, :3].reshape(-1, 3)])


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels - colour, axis=-1)


def _opponent(rgb: np.ndarray) -> np.ndarray:
    """Lightness, red-green and yellow-blue, the latter two stretched: hue decides more than lightness."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([(r + g + b) / 3 * 0.8, (r - g) * 0.8, (r + g) / 2 * 0.8 - b * 0.8], axis=-1)
