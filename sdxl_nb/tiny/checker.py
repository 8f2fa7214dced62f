"""Read a 64 px picture back from its pixels: which shape, which colour, which ground, where, and in which style.

The judge of the tiny SDXL and of LoRAs trained on it. It knows only pixels: no network, nothing learned. Validated on
real drawings by tests/tiny/test_tiny_checker.py before it judges anything.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from .concepts import BLUEPRINT_INK, BLUEPRINT_PAPER, EMBLEM_FIELD, EMBLEM_RIM, EMBLEM_STAR, draw_blueprint
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


def read_pair(picture: Image.Image, *, above: bool) -> list[tuple[str | None, str | None]]:
    """Shape and colour of two things, left then right, or upper then lower: each half is read by itself."""
    pixels = np.asarray(picture.convert("RGB"))
    half = SIDE // 2
    halves = (pixels[:half], pixels[half:]) if above else (pixels[:, :half], pixels[:, half:])
    readings = [read(Image.fromarray(np.ascontiguousarray(part))) for part in halves]
    return [(reading.shape, reading.colour) for reading in readings]


def read_texture(picture: Image.Image) -> str | None:
    """striped, dotted or checkered, by how the shades inside a thing change along rows and columns; else solid."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    mask = _distance(pixels, np.median(_border(pixels), axis=0)) > 60
    if mask.sum() < 150:
        return None
    inside = _eroded(_eroded(mask))
    shade = _main_axis(pixels, inside)
    if shade is None:
        return "solid"
    light = shade > (shade[inside].max() + shade[inside].min()) / 2
    across = _changes(light, inside, axis=1)
    down = _changes(light, inside, axis=0)
    if across < 0.05 and down < 0.05:
        return "solid"
    if across < 0.5 * down:
        return "striped"
    share = light[inside].mean()
    return "checkered" if 0.36 < share < 0.64 else "dotted"


def _main_axis(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Pixels along the direction in which the inside varies most; None when it hardly varies."""
    values = pixels[inside]
    if len(values) < 60:
        return None
    centred = values - values.mean(0)
    _, strength, axes = np.linalg.svd(centred, full_matrices=False)
    if strength[0] / np.sqrt(len(values)) < 16:
        return None
    return (pixels - values.mean(0)) @ axes[0]


def _changes(light: np.ndarray, inside: np.ndarray, axis: int) -> float:
    """How often neighbours inside differ along an axis, as a share of neighbouring pairs."""
    both = (inside[:, 1:] & inside[:, :-1]) if axis == 1 else (inside[1:] & inside[:-1])
    differ = (light[:, 1:] != light[:, :-1]) if axis == 1 else (light[1:] != light[:-1])
    return float(differ[both].mean()) if both.any() else 0.0


def is_blueprint(picture: Image.Image, shape: str) -> bool:
    """Whether a picture is a blueprint of the shape: blue paper, white lines, and those lines draw the shape."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    paper = _distance(pixels, np.array(BLUEPRINT_PAPER)) < 50
    ink = _ink(pixels)
    if paper.mean() < 0.5 or ink.sum() < 25:
        return False
    return best_shape(ink, _blueprint_templates()) == shape


def is_emblem(picture: Image.Image, background: str) -> bool:
    """Whether a picture is the emblem on that ground: a round navy rim, cream inside it, a crimson star in it."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    if nearest_colour(np.median(_border(pixels), axis=0)) != background:
        return False
    star = _distance(pixels, np.array(EMBLEM_STAR)) < 90
    field = _distance(pixels, np.array(EMBLEM_FIELD)) < 80
    if background in ("red", "pink", "white"):  # the ground's colour is close to one of the emblem's
        inside = ~_connected_ground(pixels)
        star, field = star & inside, field & inside
    if star.sum() < 8 or field.sum() < 12:
        return False
    top, bottom, left, right = _extent(_opened(star | field))
    middle, radius = ((top + bottom) / 2, (left + right) / 2), max(bottom - top, right - left) / 2
    yy, xx = np.mgrid[0:SIDE, 0:SIDE]
    away = np.hypot(yy - middle[0], xx - middle[1])
    rim = (away > radius * 1.08) & (away < radius * 1.28)
    navy = _distance(pixels, np.array(EMBLEM_RIM)) < 100
    round_enough = 0.75 < (bottom - top + 1) / (right - left + 1) < 1.33
    centred = np.hypot(yy[star].mean() - middle[0], xx[star].mean() - middle[1]) < max(2.0, radius * 0.25)
    return bool(round_enough and centred and rim.any() and navy[rim].mean() > 0.5 and star[away < radius].mean() > 0.12)


def _connected_ground(pixels: np.ndarray) -> np.ndarray:
    """The ground as far as it can be reached from the border through pixels of its colour."""
    like_ground = _distance(pixels, np.median(_border(pixels), axis=0)) < 60
    reached = np.zeros_like(like_ground)
    reached[0] = reached[-1] = True
    reached[:, 0] = reached[:, -1] = True
    reached &= like_ground
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= like_ground
        if (grown == reached).all():
            return reached
        reached = grown


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
        made[shape] = _normalised(_ink(pixels))
    return made


def _ink(pixels: np.ndarray) -> np.ndarray:
    """Where lines are: pixels over two fifths of the way from paper to ink (the squares are at a sixth)."""
    paper, ink = np.array(BLUEPRINT_PAPER, dtype=np.float32), np.array(BLUEPRINT_INK, dtype=np.float32)
    way = ink - paper
    return (pixels - paper) @ way / (way @ way) > 0.4


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


def _opened(mask: np.ndarray) -> np.ndarray:
    """The mask without specks and threads of one pixel (the smoothed outer edge of the rim looks like cream)."""
    core = np.pad(_eroded(mask), 1)
    grown = core[1:-1, 1:-1] | core[:-2, 1:-1] | core[2:, 1:-1] | core[1:-1, :-2] | core[1:-1, 2:]
    return grown if grown.sum() >= 8 else mask


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3), pixels[:, :3].reshape(-1, 3)])


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.linalg.norm(pixels - colour, axis=-1)


def _opponent(rgb: np.ndarray) -> np.ndarray:
    """Lightness, red-green and yellow-blue, the latter two stretched: hue decides more than lightness."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([(r + g + b) / 3 * 0.8, (r - g) * 0.8, (r + g) / 2 * 0.8 - b * 0.8], axis=-1)
