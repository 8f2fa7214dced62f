"""How good the tiny SDXL is, by the pixel checker: one command, one table.

    python -m sdxl_nb.tiny.evaluate [--base FOLDER] [--prompts N] [--json FILE]

Measures single things (colours and shapes seen together, and pairs held out from pre-training), textures, positions,
sizes, two-thing scenes, and what SDXL's micro-conditioning does: crop coordinates must move the thing, a small
original size must blur the picture.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..lora.files.reader import read_lora
from ..lora.layers import attach, set_scale
from ..models.loading import load_pipeline
from .checker import all_right, is_blueprint, read, read_pair, read_texture
from .concepts import PICTURES, blueprint_caption
from .draw import COLOURS, HELD_OUT, POSITIONS, SHAPES, SIDE, TEXTURES, Scene, Thing, caption, place

BATCH = 12


def paint(pipeline, prompts: Sequence[str], seeds: Sequence[int], **options) -> list[Image.Image]:
    """One picture a prompt, 20 steps at guidance 5 unless said otherwise; each from its own seed."""
    made, settings = [], {"num_inference_steps": 20, "guidance_scale": 5.0, "height": SIDE, "width": SIDE} | options
    for first in range(0, len(prompts), BATCH):
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[first : first + BATCH]]
        made += pipeline(prompt=list(prompts[first : first + BATCH]), generator=generators, **settings).images
    return made


def single_scenes(count: int, rng: random.Random, *, held_out: bool, **details) -> list[Scene]:
    """Scenes of one thing, from held-out pairs only or from none; `details` are fields of the Thing."""
    scenes, pairs = [], sorted(HELD_OUT)
    while len(scenes) < count:
        pair = pairs[len(scenes) % len(pairs)] if held_out else (rng.choice(SHAPES), rng.choice(list(COLOURS)))
        ground = rng.choice(list(COLOURS))
        if ground != pair[1] and (pair in HELD_OUT) == held_out:
            scenes.append(Scene((place(Thing(*pair, **details), rng),), ground))
    return scenes


def all_right_share(pipeline, scenes: list[Scene]) -> float:
    """Share of pictures with shape, colour and background as asked."""
    pictures = paint(pipeline, [caption(s) for s in scenes], range(len(scenes)))
    return float(np.mean([all_right(p, s) for p, s in zip(pictures, scenes, strict=True)]))


def texture_share(pipeline, count: int, rng: random.Random) -> float:
    """Share of textured things whose texture is read back (striped, dotted or checkered)."""
    hits = []
    for texture in TEXTURES[1:]:
        scenes = single_scenes(count // 3, rng, held_out=False, texture=texture, size="large")
        pictures = paint(pipeline, [caption(s) for s in scenes], range(len(scenes)))
        hits += [read_texture(p) == texture for p in pictures]
    return float(np.mean(hits))


def position_share(pipeline, count: int, rng: random.Random) -> float:
    """Share of things whose centre lies at least 6 px to the side that was asked for."""
    hits = []
    for position, (dx, dy) in list(POSITIONS.items())[1:]:
        scenes = single_scenes(count // 4, rng, held_out=False, position=position)
        for picture in paint(pipeline, [caption(s) for s in scenes], range(len(scenes))):
            reading = read(picture)
            hits.append((reading.x - 32) * np.sign(dx) + (reading.y - 32) * np.sign(dy) >= 6)
    return float(np.mean(hits))


def size_pixels(pipeline, count: int, rng: random.Random) -> dict[str, float]:
    """Mean radius in px of things asked for as small, of no size, and large."""
    sizes = {}
    for size in ("small", "", "large"):
        scenes = single_scenes(count // 3, rng, held_out=False, size=size)
        pictures = paint(pipeline, [caption(s) for s in scenes], range(len(scenes)))
        sizes[size or "plain"] = round(float(np.mean([read(p).radius for p in pictures])), 1)
    return sizes


def pair_share(pipeline, count: int, rng: random.Random) -> float:
    """Share of two-thing scenes in which both shapes and both colours are right, on the right side."""
    hits = []
    while len(hits) < count:
        scenes = [_pair_scene(rng) for _ in range(BATCH)]
        pictures = paint(pipeline, [caption(s) for s in scenes], range(len(hits), len(hits) + BATCH))
        for picture, scene in zip(pictures, scenes, strict=True):
            asked = [(t.shape, t.colour) for t in scene.things]
            hits.append(read_pair(picture, above=scene.relation == "above") == asked)
    return float(np.mean(hits))


def _pair_scene(rng: random.Random) -> Scene:
    ground, first, second = rng.sample(list(COLOURS), 3)
    things = tuple(Thing(rng.choice(SHAPES), colour) for colour in (first, second))
    return Scene(things, ground, relation=rng.choice(["and", "next to", "above"]))


def crop_shift(pipeline, count: int, rng: random.Random) -> dict[int, float]:
    """Mean x of the thing for crops of a 64 x 104 picture at left = 0, 20, 40: in truth 52, 32 and 12."""
    scenes = single_scenes(count, rng, held_out=False)
    means = {}
    for left in (0, 20, 40):
        pictures = paint(
            pipeline,
            [caption(s) for s in scenes],
            range(count),
            original_size=(SIDE, SIDE + 40),
            crops_coords_top_left=(0, left),
        )
        means[left] = round(float(np.mean([read(p).x for p in pictures])), 1)
    return means


def sharpness(pipeline, count: int, rng: random.Random) -> dict[int, float]:
    """Mean strongest edge (0-255 a pixel) for pictures told to come from originals of 16, 32 and 64 px."""
    scenes = single_scenes(count, rng, held_out=False)
    edges = {}
    for side in (16, 32, 64):
        pictures = paint(pipeline, [caption(s) for s in scenes], range(count), original_size=(side, side))
        edges[side] = round(float(np.mean([_strongest_edge(p) for p in pictures])), 1)
    return edges


def _strongest_edge(picture: Image.Image) -> float:
    steps = np.abs(np.diff(np.asarray(picture, dtype=np.float32), axis=1)).max(axis=-1)
    return float(np.percentile(steps, 99))


def blueprint_prompts(count: int) -> list[tuple[str, str]]:
    """(prompt, shape) of blueprints not in the set: shapes never drawn so, and known shapes in new combinations."""
    taken = {json.loads(line)["text"] for line in _blueprint_metadata().splitlines()}
    details = [("", ""), ("small", ""), ("large", ""), *(("", position) for position in list(POSITIONS)[1:])]
    things = [Thing(shape, "white", "solid", *detail) for shape in SHAPES for detail in details]
    random.Random(77).shuffle(things)
    named = [(blueprint_caption(Scene((thing,), "blue")), thing.shape) for thing in things]
    return [(text, shape) for text, shape in named if text not in taken][:count]


def _blueprint_metadata() -> str:
    return (PICTURES / "blueprint" / "metadata.jsonl").read_text()


def blueprint_share(pipeline, prompts: list[tuple[str, str]], seeds: Sequence[int]) -> float:
    """Share of pictures that are blueprints of the shape asked for."""
    asked = [(text, shape, seed) for text, shape in prompts for seed in seeds]
    pictures = paint(pipeline, [text for text, _, _ in asked], [seed for _, _, seed in asked])
    return float(np.mean([is_blueprint(p, shape) for p, (_, shape, _) in zip(pictures, asked, strict=True)]))


def drift(before: list[Image.Image], after: list[Image.Image]) -> float:
    """Mean absolute difference of two lists of pictures, 0-255."""
    pairs = zip(before, after, strict=True)
    return float(np.mean([np.abs(np.asarray(b, float) - np.asarray(a, float)).mean() for b, a in pairs]))


def plain_prompts(count: int) -> list[str]:
    """Ordinary prompts, none of them a caption of the plain set."""
    taken = {json.loads(line)["text"] for line in (PICTURES / "plain" / "metadata.jsonl").read_text().splitlines()}
    texts = [caption(scene) for scene in single_scenes(2 * count, random.Random(55), held_out=False)]
    return [text for text in dict.fromkeys(texts) if text not in taken][:count]


def concept_report(
    folder: Path | str,
    *,
    prompts: int = 24,
    seeds: Sequence[int] = (0, 1),
    scales: Sequence[float] = (0.0, 1.0),
    base: str = "embedded:tiny-sdxl",
) -> dict[str, object]:
    """A trained blueprint LoRA, judged: `score` by scale over unseen prompts x seeds, `drift` of plain prompts (0-255).

    The base itself must come back at scale 0, picture for picture: `unchanged` says whether it does.
    """
    pipeline, unseen, plain = load_pipeline(base), blueprint_prompts(prompts), plain_prompts(prompts)
    base = paint(pipeline, plain, range(len(plain)))
    attach(read_lora(folder), pipeline)
    scores = {}
    for scale in scales:
        set_scale(pipeline, {"default": scale})
        scores[scale] = blueprint_share(pipeline, unseen, seeds)
    set_scale(pipeline, {"default": 0.0})
    unchanged = drift(base, paint(pipeline, plain, range(len(plain)))) == 0
    set_scale(pipeline, {"default": 1.0})
    return {"score": scores, "drift": drift(base, paint(pipeline, plain, range(len(plain)))), "unchanged": unchanged}


def report(pipeline, count: int) -> dict[str, object]:
    """Every measure, `count` pictures each or nearly."""
    rng = random.Random(123)
    return {
        "seen pairs, all right": all_right_share(pipeline, single_scenes(count, rng, held_out=False)),
        "held-out pairs, all right": all_right_share(pipeline, single_scenes(count, rng, held_out=True)),
        "textures": texture_share(pipeline, count, rng),
        "positions": position_share(pipeline, count, rng),
        "radius by size word, px": size_pixels(pipeline, count, rng),
        "two things, both right": pair_share(pipeline, count, rng),
        "mean x by crop_left (truth 52, 32, 12)": crop_shift(pipeline, count // 2, rng),
        "edge strength by original size": sharpness(pipeline, count // 2, rng),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="embedded:tiny-sdxl")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = report(load_pipeline(args.base), args.prompts)
    for name, value in result.items():
        print(f"{name:<42} {value:.3f}" if isinstance(value, float) else f"{name:<42} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
