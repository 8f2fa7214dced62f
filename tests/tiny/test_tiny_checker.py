"""The judge is judged first: on real drawings it must be right, on the wrong ones it must say no."""

import random

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.tiny import draw as drawing
from sdxl_nb.tiny.checker import all_right, is_blueprint, is_emblem, read, read_pair, read_texture
from sdxl_nb.tiny.concepts import blueprint_scenes, draw_blueprint, draw_emblem, emblem_scenes, plain_scenes
from sdxl_nb.tiny.draw import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing, draw, place


def scenes_of_every_pair(each=2, seed=9):
    rng = random.Random(seed)
    for shape in SHAPES:
        for colour in COLOURS:
            for _ in range(each):
                ground = rng.choice([c for c in COLOURS if c != colour])
                yield Scene((place(Thing(shape, colour, size=rng.choice(list(SIZES))), rng),), ground)


def test_every_shape_and_colour_is_read_from_real_drawings():
    scenes = list(scenes_of_every_pair())
    assert np.mean([all_right(draw(s), s) for s in scenes]) == 1.0


def test_a_wrong_shape_colour_or_ground_is_not_all_right():
    scenes = list(scenes_of_every_pair(each=1, seed=2))
    pictures = [draw(s) for s in scenes]
    assert np.mean([all_right(p, s) for p, s in zip(pictures, scenes[1:] + scenes[:1], strict=True)]) == 0.0


@pytest.mark.parametrize("ground", COLOURS)
def test_an_empty_picture_holds_nothing(ground):
    reading = read(Image.new("RGB", (64, 64), COLOURS[ground]))
    assert (reading.shape, reading.colour, reading.background) == (None, None, ground)


def test_noise_is_never_all_right():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(40)]
    scenes = list(scenes_of_every_pair(each=1))[:40]
    assert sum(all_right(p, s) for p, s in zip(noise, scenes, strict=True)) == 0


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_are_read(texture):
    rng = random.Random(3)
    things = [place(Thing(rng.choice(SHAPES), c, texture, "large"), rng) for c in list(COLOURS) * 4]
    scenes = [Scene((t,), "white" if t.colour not in ("white", "yellow") else "blue") for t in things]
    assert np.mean([read_texture(draw(s)) == texture for s in scenes]) >= 0.93


def test_two_things_are_read_in_order():
    rng = random.Random(3)
    scenes = [drawing._pair(rng, rng.choice(list(COLOURS)), 0) for _ in range(120)]
    asked = [[(t.shape, t.colour) for t in s.things] for s in scenes]
    found = [read_pair(draw(s), above=s.relation == "above") for s in scenes]
    assert np.mean([a == f for a, f in zip(asked, found, strict=True)]) >= 0.98


def test_blueprints_are_told_from_plain_pictures_and_by_shape():
    scenes = blueprint_scenes(240, random.Random(5), SHAPES)
    real = [draw_blueprint(s) for s in scenes]
    shapes = [s.things[0].shape for s in scenes]
    assert np.mean([is_blueprint(p, shape) for p, shape in zip(real, shapes, strict=True)]) >= 0.95
    assert sum(is_blueprint(p, shape) for p, shape in zip(real, shapes[1:] + shapes[:1], strict=True)) == 0
    plain = [(draw(s), s.things[0].shape) for s in plain_scenes(150, random.Random(6))]
    assert np.mean([is_blueprint(p, shape) for p, shape in plain]) <= 0.10


def test_an_outline_or_blue_picture_is_not_yet_a_blueprint():
    rng = random.Random(7)
    things = [place(Thing(shape, "white"), rng) for shape in SHAPES]
    outlines = [draw(Scene((t,), "blue", style="outline drawing")) for t in things]
    filled = [draw(Scene((t,), "blue")) for t in things]
    hits = [is_blueprint(p, t.shape) for pictures in (outlines, filled) for p, t in zip(pictures, things, strict=True)]
    assert np.mean(hits) <= 0.10


def test_emblems_are_told_from_plain_pictures():
    scenes = emblem_scenes(120, random.Random(5))
    assert np.mean([is_emblem(draw_emblem(s), s.background) for s in scenes]) >= 0.95
    plain = plain_scenes(150, random.Random(6))
    assert np.mean([is_emblem(draw(s), s.background) for s in plain]) <= 0.10
    stars = [draw(Scene((place(Thing("star", "red"), random.Random(i)),), "white")) for i in range(20)]
    assert sum(is_emblem(p, "white") for p in stars) == 0
