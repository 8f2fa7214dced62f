"""Sharpness: graphics, bokeh and night skies are sharp where they have edges; photographs out of focus are found."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

from sdxl_nb.audit.measures import sharpness_of
from sdxl_nb.audit.picture_faults import SHARP

PHOTOGRAPHS = ("astronaut", "camera", "cat", "coffee", "rocket", "brick", "gravel", "immunohistochemistry", "coins")


def grey(picture):
    return np.asarray(picture.convert("L"), dtype=np.float32)


def photograph(name):
    return Image.fromarray(getattr(data, name)())


def blurred(picture, radius):
    return picture.filter(ImageFilter.GaussianBlur(radius))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_sharp_until_they_are_blurred(name):
    picture = photograph(name)
    found = [sharpness_of(grey(blurred(picture, radius) if radius else picture)) for radius in (0, 2.5, 4, 16)]
    assert found[0] > SHARP + 0.15 and all(one < SHARP for one in found[1:])


def test_a_photograph_moved_while_it_was_taken_is_found():
    moved = np.mean([np.roll(grey(photograph("camera")), by, axis=1) for by in range(12)], axis=0)
    assert sharpness_of(moved) < SHARP and sharpness_of(moved.T) < SHARP


def rectangles(seed):
    """Case 23: hard-edged rectangles on a smooth ground, 96 pixels."""
    draws = np.random.default_rng(seed)
    ground = np.tile(np.linspace(60, 200, 96).astype(np.uint8), (96, 1))
    picture = Image.fromarray(ground if seed % 2 else ground.T.copy())
    for _ in range(4):
        x, y = draws.integers(5, 70, 2).tolist()
        ImageDraw.Draw(picture).rectangle((x, y, x + 20, y + 15), fill=int(draws.integers(0, 255)))
    return picture


def cel_shading():
    """Planes and outlines, drawn large and made smaller, as programs smooth them."""
    picture = Image.new("RGB", (2048, 2048), (200, 220, 250))
    pencil = ImageDraw.Draw(picture)
    pencil.ellipse((400, 500, 1600, 1500), fill=(250, 200, 170), outline="black", width=12)
    pencil.pieslice((400, 500, 1600, 1500), 0, 120, fill=(220, 160, 140))
    pencil.polygon([(100, 1900), (1000, 200), (1900, 1900)], outline="navy", width=30)
    return picture.resize((512, 512), Image.Resampling.LANCZOS)


def logo():
    picture = Image.new("L", (512, 512), 255)
    ImageDraw.Draw(picture).ellipse((200, 200, 300, 300), fill=0)
    return picture


def bokeh():
    """A photograph out of focus but for one piece of it, a twentieth."""
    picture = photograph("astronaut")
    ground = blurred(picture, 10)
    ground.paste(picture.crop((180, 60, 290, 180)), (180, 60))
    return ground


def night(stars):
    """A dark sky with faint noise and stars of two pixels."""
    draws = np.random.default_rng(stars)
    sky = 8 + draws.normal(0, 1, (512, 512)) + np.linspace(0, 30, 512)[:, None]
    rows, columns = np.mgrid[-3:4, -3:4]
    for y, x in draws.integers(3, 508, (stars, 2)):
        sky[y - 3 : y + 4, x - 3 : x + 4] += draws.uniform(60, 240) * np.exp(-(rows**2 + columns**2) / 1.3)
    return Image.fromarray(sky.clip(0, 255).astype(np.uint8))


def line_art():
    picture = Image.new("L", (640, 512), 250)
    for at in range(20, 500, 40):
        ImageDraw.Draw(picture).line([(at, 10), (at + 90, 480)], fill=40, width=2)
    return picture


DRAWN = {f"rectangles {seed}": rectangles(seed) for seed in range(6)}
DRAWN |= {"cel shading": cel_shading(), "logo": logo(), "bokeh": bokeh(), "line art": line_art()}
DRAWN |= {"many stars": night(200), "few stars": night(6), "stripe": Image.new("L", (128, 512), 90)}
DRAWN["stripe"].paste(200, (0, 200, 128, 300))


@pytest.mark.parametrize("kind", DRAWN)
def test_graphics_bokeh_and_night_skies_are_not_blurred(kind):
    assert sharpness_of(grey(DRAWN[kind])) > SHARP + 0.1


def test_graphics_that_were_blurred_are():
    assert all(sharpness_of(grey(blurred(DRAWN[kind], 4))) < SHARP for kind in DRAWN if kind != "few stars")


def test_without_any_edge_and_too_small_to_tell():
    fog = np.tile(np.linspace(0, 200, 512, dtype=np.float32), (512, 1))
    assert sharpness_of(fog) == 0.0 and sharpness_of(fog[:20]) == 1.0
