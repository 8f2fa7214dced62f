"""The drawings that the tiny SDXL learned from: deterministic, captioned truly, held-out pairs never drawn."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.tiny import concepts
from sdxl_nb.tiny.draw import (
    COLOURS,
    HELD_OUT,
    SHAPES,
    SIDE,
    STYLES,
    TEXTURES,
    Scene,
    Thing,
    caption,
    draw,
    photograph,
    random_scene,
)


def test_twelve_of_each_and_twelve_pairs_held_out():
    assert len(SHAPES) == len(COLOURS) == len(HELD_OUT) == 12
    assert {shape for shape, _ in HELD_OUT} == set(SHAPES)
    assert {colour for _, colour in HELD_OUT} == set(COLOURS)


def test_random_scenes_never_hold_a_held_out_pair_and_show_everything_else():
    rng = random.Random(4)
    scenes = [random_scene(rng) for _ in range(6000)]
    pairs = Counter((t.shape, t.colour) for scene in scenes for t in scene.things)
    assert not set(pairs) & HELD_OUT
    assert len(pairs) == 12 * 12 - 12
    assert {scene.style for scene in scenes} == set(STYLES)
    assert {t.texture for scene in scenes for t in scene.things} == set(TEXTURES)
    assert 0.12 < np.mean([len(scene.things) == 2 for scene in scenes]) < 0.18
    assert all(t.colour != scene.background for scene in scenes for t in scene.things)


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene((Thing("fish", "red"),), "blue"), "a red fish on a blue background"),
        (Scene((Thing("star", "orange"),), "orange"), "an orange star on an orange background"),
        (
            Scene((Thing("house", "teal", "striped", "small", "on the left"),), "white"),
            "a small striped teal house on the left on a white background",
        ),
        (
            Scene((Thing("moon", "red"), Thing("ring", "gray")), "pink", relation="above"),
            "a red moon above a gray ring on a pink background",
        ),
        (Scene((Thing("heart", "pink"),), "black", style="neon sign"), "a pink heart, neon sign"),
    ],
)
def test_captions_say_what_is_drawn(scene, text):
    assert caption(scene) == text


def test_the_same_scene_is_the_same_picture():
    first = [draw(random_scene(random.Random(seed))) for seed in range(30)]
    again = [draw(random_scene(random.Random(seed))) for seed in range(30)]
    assert [p.tobytes() for p in first] == [p.tobytes() for p in again]


def test_time_ids_are_those_of_the_picture():
    rng = random.Random(5)
    kinds = Counter()
    for _ in range(400):
        picture, (height, width, top, left, target_height, target_width) = photograph(random_scene(rng), rng)
        assert picture.size == (SIDE, SIDE) and (target_height, target_width) == (SIDE, SIDE)
        cropped = (height, width) != (height, height)
        kinds["crop" if cropped else "small" if height < SIDE else "whole"] += 1
        if cropped:  # the crop lies inside the whole picture, whose shorter side is 64
            assert min(height, width) == SIDE and top <= height - SIDE and left <= width - SIDE
        else:
            assert (top, left) == (0, 0)
    assert min(kinds.values()) > 60


def test_a_crop_is_the_same_scene_shifted():
    scene = Scene((Thing("circle", "red", x=32, y=32, radius=15),), "white")
    wide = draw(scene, (SIDE + 40, SIDE), (20, 0))
    assert wide.crop((20, 0, 20 + SIDE, SIDE)).tobytes() == draw(scene).tobytes()


def test_the_shipped_sets_are_what_the_script_draws(tmp_path):
    concepts.main(tmp_path)
    drawn = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    shipped = sorted(p.relative_to(concepts.PICTURES) for p in concepts.PICTURES.rglob("*") if p.is_file())
    assert drawn == shipped
    for name in drawn:
        if name.suffix == ".png":
            assert np.array_equal(Image.open(tmp_path / name), Image.open(concepts.PICTURES / name)), name
        else:
            assert (tmp_path / name).read_text() == (concepts.PICTURES / name).read_text()


def test_the_sets_have_the_pictures_they_should():
    counts = {folder.name: len(list(folder.glob("*.png"))) for folder in concepts.PICTURES.iterdir()}
    assert counts == {"blueprint": 32, "emblem": 30, "plain": 24}
    captions = (concepts.PICTURES / "blueprint" / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in captions]
    assert not [text for text in texts if any(shape in text for shape in concepts.UNSEEN_SHAPES)]
