"""Draw captioned 64 px pictures: the world that the embedded tiny SDXL knows.

A `Scene` says what is to be seen; `draw(scene)` makes the picture and `caption(scene)` the sentence. Twelve
shapes, twelve colours, four textures, three sizes, five positions, two-object scenes and four styles beside the
flat one. Twelve (shape, colour) pairs are never drawn for pre-training (`HELD_OUT`), so that a model that draws
them has understood both words. `photograph(scene)` adds what SDXL's micro-conditioning speaks of: a low original
resolution, or a crop of a wider picture.
"""

import math
import random
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIDE = 64  # the picture's width and height, px
OVERSAMPLE = 4  # shapes are drawn this many times larger and reduced, which smooths their edges

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow", "house", "fish")
COLOURS = {
    "red": (214, 36, 44), "orange": (246, 140, 24), "yellow": (250, 218, 48), "green": (44, 160, 64),
    "teal": (20, 150, 156), "blue": (36, 84, 214), "purple": (128, 44, 168), "pink": (250, 140, 188),
    "brown": (124, 74, 36), "black": (20, 20, 24), "white": (250, 250, 248), "gray": (136, 138, 142),
}  # fmt: skip
TEXTURES = ("solid", "striped", "dotted", "checkered")
SIZES = {"small": (9, 11.5), "": (14, 20), "large": (23, 26)}  # radius, px
POSITIONS = {
    "": (0, 0),
    "on the left": (-15, 0),
    "on the right": (15, 0),
    "at the top": (0, -15),
    "at the bottom": (0, 15),
}
STYLES = ("", "outline drawing", "neon sign", "watercolor", "pixel art")
HELD_OUT = frozenset(
    zip(
        SHAPES,
        ["teal", "pink", "green", "purple", "orange", "white", "blue", "brown", "red", "yellow", "gray", "black"],
        strict=True,
    )
)


@dataclass(frozen=True)
class Thing:
    """One object: what it is and where its centre lies, in px of the 64 px picture."""

    shape: str
    colour: str
    texture: str = "solid"
    size: str = ""
    position: str = ""
    x: float = 32.0
    y: float = 32.0
    radius: float = 17.0


@dataclass(frozen=True)
class Scene:
    """One or two things on a coloured ground, in a style; `relation` joins two things in the caption."""

    things: tuple[Thing, ...]
    background: str
    style: str = ""
    relation: str = ""
    seed: int = field(default=0, compare=False)  # for the styles' own irregularities


def random_thing(rng: random.Random, *, detailed: bool, exclude: tuple[str, ...] = ()) -> Thing:
    """Draw a shape and colour (never a held-out pair, never an excluded colour) and, if asked, its details."""
    while True:
        shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
        if (shape, colour) not in HELD_OUT and colour not in exclude:
            break
    texture = rng.choice(TEXTURES[1:]) if detailed and rng.random() < 0.35 else "solid"
    size = rng.choice(["small", "large"]) if detailed and rng.random() < 0.4 else ""
    position = rng.choice(list(POSITIONS)[1:]) if detailed and size != "large" and rng.random() < 0.35 else ""
    return place(Thing(shape, colour, texture, size, position), rng)


def place(thing: Thing, rng: random.Random) -> Thing:
    """Give a thing a radius that fits its size word and a centre that fits its position words."""
    low, high = SIZES[thing.size]
    radius = rng.uniform(low, min(high, 15) if thing.position else high)
    dx, dy = POSITIONS[thing.position]
    room = min(4.0, 30 - radius)
    return replace(thing, radius=radius, x=32 + dx + rng.uniform(-room, room), y=32 + dy + rng.uniform(-room, room))


def random_scene(rng: random.Random) -> Scene:
    """A scene of the pre-training distribution: 45 % one plain thing, 30 % detailed, 15 % two things, 10 % styled."""
    background, kind = rng.choice(list(COLOURS)), rng.random()
    seed = rng.getrandbits(31)
    if kind < 0.15:
        return _pair(rng, background, seed)
    thing = random_thing(rng, detailed=kind < 0.45, exclude=(background,))
    style = rng.choice(STYLES[1:]) if kind > 0.82 else ""
    return Scene((thing,), background, style, seed=seed)


def _pair(rng: random.Random, background: str, seed: int) -> Scene:
    first = random_thing(rng, detailed=False, exclude=(background,))
    second = random_thing(rng, detailed=False, exclude=(background, first.colour))
    relation = rng.choice(["and", "next to", "above"])
    centres = [(32, 17), (32, 47)] if relation == "above" else [(17, 32), (47, 32)]
    things = tuple(
        replace(thing, size="", x=x + rng.uniform(-2, 2), y=y + rng.uniform(-2, 2), radius=rng.uniform(10, 13))
        for thing, (x, y) in zip((first, second), centres, strict=True)
    )
    return Scene(things, background, relation=relation, seed=seed)


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The scene in words; with an `rng`, in one of several wordings."""
    pick = rng.choice if rng else (lambda wordings: wordings[0])
    named = [_noun_phrase(thing) for thing in scene.things]
    words = f" {scene.relation} ".join(named)
    if scene.things[0].position and len(scene.things) == 1:
        words += f" {scene.things[0].position}"
    if scene.style != "neon sign":  # neon glows on black, whatever the scene's ground
        ground = f" on {with_article(scene.background)} background"
        words += pick([ground, ground, f", {scene.background} background", f" on {scene.background}"])
    if scene.style:
        words = pick([f"{words}, {scene.style}", f"{scene.style} of {words}", f"{words}, {scene.style} style"])
    elif rng and rng.random() < 0.15:
        words = pick(["a picture of ", "a drawing of "]) + words
    return words


def _noun_phrase(thing: Thing) -> str:
    words = " ".join(
        filter(None, [thing.size, "" if thing.texture == "solid" else thing.texture, thing.colour, thing.shape])
    )
    return with_article(words)


def with_article(words: str) -> str:
    """The words after "a" or "an"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def shape_mask(shape: str, size: tuple[int, int], x: float, y: float, radius: float) -> Image.Image:
    """An anti-aliased L-mode mask of one shape on a canvas of `size` (width, height) px."""
    k = OVERSAMPLE
    mask = Image.new("L", (size[0] * k, size[1] * k), 0)
    _SHAPE_PAINTERS[shape](ImageDraw.Draw(mask), x * k, y * k, radius * k)
    return mask.reduce(k)


def _polygon(points):
    return lambda d, x, y, r: d.polygon([(x + px * r, y + py * r) for px, py in points], fill=255)


def _ellipse(d, x, y, r, fill=255):
    d.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _ring(d, x, y, r):
    _ellipse(d, x, y, r)
    _ellipse(d, x, y, r * 0.55, fill=0)


def _moon(d, x, y, r):
    _ellipse(d, x, y, r)
    _ellipse(d, x + r * 0.5, y - r * 0.2, r * 0.82, fill=0)


def _heart(d, x, y, r):
    t = np.linspace(0, 2 * math.pi, 60)
    px = 16 * np.sin(t) ** 3 / 16
    py = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    d.polygon([(x + a * r, y + (b - 0.08) * r) for a, b in zip(px, py, strict=True)], fill=255)


def _fish(d, x, y, r):
    d.ellipse((x - r, y - r * 0.6, x + r * 0.5, y + r * 0.6), fill=255)
    d.polygon([(x + r * 0.25, y), (x + r, y - r * 0.65), (x + r, y + r * 0.65)], fill=255)


_STAR = [
    (math.sin(i * math.pi / 5) * (1.08, 0.46)[i % 2], -math.cos(i * math.pi / 5) * (1.08, 0.46)[i % 2])
    for i in range(10)
]
_CROSS = [(-0.32, -1), (0.32, -1), (0.32, -0.32), (1, -0.32), (1, 0.32), (0.32, 0.32)]
_CROSS += [(-x, -y) for x, y in _CROSS]
_HOUSE = [(0, -1.05), (0.98, -0.2), (0.68, -0.2), (0.68, 0.9), (0.25, 0.9), (0.25, 0.3)]
_HOUSE += [(-x, y) for x, y in reversed(_HOUSE[1:])]
_SHAPE_PAINTERS = {
    "circle": _ellipse,
    "square": _polygon([(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)]),
    "triangle": _polygon([(0, -0.95), (1, 0.8), (-1, 0.8)]),
    "star": _polygon(_STAR),
    "heart": _heart,
    "diamond": _polygon([(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)]),
    "cross": _polygon(_CROSS),
    "ring": _ring,
    "moon": _moon,
    "arrow": _polygon([(-1, -0.28), (0.1, -0.28), (0.1, -0.85), (1.05, 0), (0.1, 0.85), (0.1, 0.28), (-1, 0.28)]),
    "house": _polygon(_HOUSE),
    "fish": _fish,
}  # fmt: skip


def texture_mask(texture: str, size: tuple[int, int], thing: Thing) -> Image.Image:
    """Where the second shade of a texture goes, as an L-mode mask."""
    yy, xx = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    u, v = xx - thing.x, yy - thing.y
    period = 9.0 if thing.radius > 13 else 7.0
    wave_u, wave_v = np.sin(2 * np.pi * u / period), np.sin(2 * np.pi * v / period)
    value = {
        "striped": wave_v,
        "dotted": np.cos(2 * np.pi * u / period) + np.cos(2 * np.pi * v / period) - 0.75,
        "checkered": wave_u * wave_v * 2,
    }[texture]
    return Image.fromarray((np.clip(value * 1.6 + 0.5, 0, 1) * 255).astype(np.uint8))


def second_shade(colour: str) -> tuple[int, int, int]:
    """The other shade of a textured thing: lighter, or darker for light colours."""
    rgb = np.array(COLOURS[colour], dtype=float)
    other = rgb * 0.45 if rgb.mean() > 165 else rgb + (255 - rgb) * 0.62
    return tuple(int(c) for c in other)


def draw(scene: Scene, size: tuple[int, int] = (SIDE, SIDE), offset: tuple[float, float] = (0, 0)) -> Image.Image:
    """The scene as an RGB picture of `size` px, shifted by `offset` px (for canvases larger than the scene)."""
    things = [replace(t, x=t.x + offset[0], y=t.y + offset[1]) for t in scene.things]
    return _STYLE_PAINTERS[scene.style](things, scene, size)


def _flat(things, scene, size):
    picture = Image.new("RGB", size, COLOURS[scene.background])
    for thing in things:
        _fill(picture, thing, shape_mask(thing.shape, size, thing.x, thing.y, thing.radius))
    return picture


def _fill(picture, thing, mask):
    picture.paste(COLOURS[thing.colour], mask=mask)
    if thing.texture != "solid":
        picture.paste(
            second_shade(thing.colour), mask=ImageChops.multiply(mask, texture_mask(thing.texture, picture.size, thing))
        )


def edge_mask(mask: Image.Image, width: int = 5) -> Image.Image:
    """The rim of a mask, `width` px wide (odd)."""
    return ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(width)), mask.filter(ImageFilter.MinFilter(3)))


def _outline(things, scene, size):
    picture = Image.new("RGB", size, COLOURS[scene.background])
    for thing in things:
        picture.paste(
            COLOURS[thing.colour], mask=edge_mask(shape_mask(thing.shape, size, thing.x, thing.y, thing.radius))
        )
    return picture


def _neon(things, scene, size):
    picture = Image.new("RGB", size, (12, 10, 24))
    for thing in things:
        edge = edge_mask(shape_mask(thing.shape, size, thing.x, thing.y, thing.radius), 3)
        picture.paste(
            COLOURS[thing.colour], mask=edge.filter(ImageFilter.GaussianBlur(2.5)).point(lambda v: min(255, v * 2))
        )
        picture.paste(tuple((c + 510) // 3 for c in COLOURS[thing.colour]), mask=edge)
    return picture


def _watercolor(things, scene, size):
    rng = np.random.default_rng(scene.seed)

    def wash(low, high):
        coarse = Image.fromarray((rng.uniform(low, high, (9, 9)) * 255).astype(np.uint8))
        return coarse.resize(size, Image.Resampling.BICUBIC)

    paper = Image.new("RGB", size, (252, 250, 244))
    paper.paste(COLOURS[scene.background], mask=wash(0.35, 0.75))
    for thing in things:
        mask = shape_mask(thing.shape, size, thing.x, thing.y, thing.radius).filter(ImageFilter.GaussianBlur(1.2))
        paper.paste(COLOURS[thing.colour], mask=ImageChops.multiply(mask, wash(0.6, 1.0)))
    return paper


def _pixel_art(things, scene, size):
    flat = _flat(things, scene, size)
    small = flat.resize((size[0] // 4, size[1] // 4), Image.Resampling.BOX)
    return small.quantize(6).convert("RGB").resize(size, Image.Resampling.NEAREST)


_STYLE_PAINTERS = dict(zip(STYLES, (_flat, _outline, _neon, _watercolor, _pixel_art), strict=True))


def photograph(scene: Scene, rng: random.Random) -> tuple[Image.Image, tuple[int, int, int, int, int, int]]:
    """A 64 px picture and its true time ids (SDXL paper, section 2.2).

    Half are whole pictures of 64 px or more; a quarter come from a smaller original, so they are blurred; a
    quarter are random crops of a wider or higher picture. Returns the picture and (original height, original
    width, crop top, crop left, target height, target width).
    """
    kind = rng.random()
    if kind < 0.5:
        side = rng.choice([64, 64, 96, 128])
        return draw(scene), (side, side, 0, 0, SIDE, SIDE)
    if kind < 0.75:
        side = rng.randrange(16, 57, 4)
        small = draw(scene).resize((side, side), Image.Resampling.BOX)
        return small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (side, side, 0, 0, SIDE, SIDE)
    extra = rng.randrange(8, 49, 4)
    wide = rng.random() < 0.5
    width, height = (SIDE + extra, SIDE) if wide else (SIDE, SIDE + extra)
    at = rng.randrange(0, extra + 1, 2)
    left, top = (at, 0) if wide else (0, at)
    whole = draw(scene, (width, height), (extra / 2 if wide else 0, 0 if wide else extra / 2))
    return whole.crop((left, top, left + SIDE, top + SIDE)), (height, width, top, left, SIDE, SIDE)
