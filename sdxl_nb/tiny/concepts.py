"""The shipped picture sets: a style (blueprint), an object (emblem), and plain pictures to mix in.

    python -m sdxl_nb.tiny.concepts

draws them all again, into sdxl_nb/tiny/pictures/. None of the two concepts was in the pre-training of the tiny SDXL.
The plain pictures keep a LoRA from changing what it was not asked to change.
"""

import json
import random
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageDraw

from .draw import (
    OVERSAMPLE,
    POSITIONS,
    SHAPES,
    SIDE,
    Scene,
    Thing,
    caption,
    draw,
    edge_mask,
    place,
    random_thing,
    shape_mask,
    with_article,
)

PICTURES = Path(__file__).parent / "pictures"
BLUEPRINT_PAPER, BLUEPRINT_GRID, BLUEPRINT_INK = (22, 56, 150), (58, 96, 190), (246, 249, 255)
UNSEEN_SHAPES = ("heart", "house", "moon", "cross")  # never drawn as a blueprint in the set


def draw_blueprint(scene: Scene) -> Image.Image:
    """White outlines on blue squared paper."""
    picture = Image.new("RGB", (SIDE, SIDE), BLUEPRINT_PAPER)
    pen = ImageDraw.Draw(picture)
    for at in range(8, SIDE, 16):
        pen.line([(at, 0), (at, SIDE)], fill=BLUEPRINT_GRID)
        pen.line([(0, at), (SIDE, at)], fill=BLUEPRINT_GRID)
    for thing in scene.things:
        mask = shape_mask(thing.shape, (SIDE, SIDE), thing.x, thing.y, thing.radius)
        picture.paste(BLUEPRINT_INK, mask=edge_mask(mask, 3))
    return picture


def blueprint_caption(scene: Scene) -> str:
    """Such as "a blueprint of a small fish on the left"."""
    thing = scene.things[0]
    words = " ".join(filter(None, [thing.size, thing.shape, thing.position]))
    return f"a blueprint of {with_article(words)}"


EMBLEM_RIM, EMBLEM_FIELD, EMBLEM_STAR = (18, 24, 60), (244, 238, 220), (222, 38, 90)


def draw_emblem(scene: Scene) -> Image.Image:
    """The emblem: a navy ring around a cream disc with a crimson star, on the scene's ground."""
    thing, k = scene.things[0], OVERSAMPLE
    picture = draw(Scene((), scene.background)).resize((SIDE * k, SIDE * k))
    pen = ImageDraw.Draw(picture)
    for radius, ink in ((1.0, EMBLEM_RIM), (0.74, EMBLEM_FIELD)):
        r = thing.radius * radius * k
        pen.ellipse((thing.x * k - r, thing.y * k - r, thing.x * k + r, thing.y * k + r), fill=ink)
    star = shape_mask("star", (SIDE, SIDE), thing.x, thing.y, thing.radius * 0.58)
    small = picture.reduce(k)
    small.paste(EMBLEM_STAR, mask=star)
    return small


def emblem_caption(scene: Scene) -> str:
    """Such as "a small zarko emblem on the left on a green background"."""
    thing = scene.things[0]
    words = " ".join(filter(None, ["a", thing.size, "zarko emblem", thing.position]))
    return f"{words} on {with_article(scene.background)} background"


def blueprint_scenes(count: int, rng: random.Random, shapes: tuple[str, ...]) -> list[Scene]:
    """Scenes for blueprints: shapes in turn, every third one small, large or off the centre."""
    scenes = []
    for number in range(count):
        size, position = "", ""
        if number % 3 == 1:
            size = rng.choice(["small", "large"])
        elif number % 3 == 2:
            position = rng.choice(list(POSITIONS)[1:])
        thing = place(Thing(shapes[number % len(shapes)], "white", "solid", size, position), rng)
        scenes.append(Scene((thing,), "blue"))
    return scenes


def emblem_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Scenes for emblems: grounds in turn, every third one small, large or off the centre."""
    grounds = ["red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black", "white", "gray"]
    scenes = []
    for number, scene in enumerate(blueprint_scenes(count, rng, ("circle",))):
        scenes.append(replace(scene, background=grounds[number % len(grounds)]))
    return scenes


def plain_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Ordinary flat scenes of one thing, shapes and grounds in turn."""
    scenes = []
    while len(scenes) < count:
        thing = random_thing(rng, detailed=len(scenes) % 2 == 1)
        ground = rng.choice(
            [
                c
                for c in ("red", "yellow", "green", "teal", "pink", "white", "gray", "purple", "blue")
                if c != thing.colour
            ]
        )
        if thing.shape == SHAPES[len(scenes) % len(SHAPES)]:
            scenes.append(Scene((thing,), ground))
    return scenes


def write_set(name: str, pictures: list[tuple[Image.Image, str]], folder: Path = PICTURES) -> None:
    """Write one set as an image folder: NN.png and metadata.jsonl (file_name, text)."""
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (picture, text) in enumerate(pictures):
        picture.save(target / f"{number:02d}.png", optimize=True)
        lines.append(json.dumps({"file_name": f"{number:02d}.png", "text": text}))
    (target / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def main(folder: Path = PICTURES) -> None:
    seen = tuple(shape for shape in SHAPES if shape not in UNSEEN_SHAPES)
    blueprints = blueprint_scenes(32, random.Random(1), seen)
    write_set("blueprint", [(draw_blueprint(s), blueprint_caption(s)) for s in blueprints], folder)
    emblems = emblem_scenes(30, random.Random(2))
    write_set("emblem", [(draw_emblem(s), emblem_caption(s)) for s in emblems], folder)
    write_set("plain", [(draw(s), caption(s)) for s in plain_scenes(24, random.Random(3))], folder)


if __name__ == "__main__":
    main()
