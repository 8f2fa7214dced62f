"""Do kinds of LoRA, optimizers, priors, sliders and long captions do what they promise? Measured on the tiny base."""

import functools
import json
import random
import shutil
from itertools import pairwise

import numpy as np
import pytest

from sdxl_nb import Run, TrainConfig, fine_tune
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.layers import attach, set_scale
from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.tiny.checker import is_blueprint, read
from sdxl_nb.tiny.concepts import PICTURES
from sdxl_nb.tiny.draw import COLOURS, Scene, Thing, draw
from sdxl_nb.tiny.evaluate import blueprint_prompts, concept_report, paint

pytestmark = pytest.mark.soak
MEASURE = {"prompts": 24, "seeds": (0, 1), "scales": (1.0,)}
KINDS = {  # what each is to have other than the quick start
    "lokr": {"lora_kind": "lokr", "learning_rate": 1.2e-2},  # two small factors learn slower
    "loha": {"lora_kind": "loha", "learning_rate": 3e-3},
    "tlora": {"tlora_min_rank": 4},  # of 8, drawn with all
    "loraplus": {"loraplus_lr_ratio": 4, "learning_rate": 3e-3},  # the best of nine pairs that were tried: 0.71
    "prodigy_schedulefree": {
        "optimizer": "prodigy_schedulefree",
        "learning_rate": 1.0,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
    },
}
PLAIN = ["a red circle on a teal background", "a blue star on a red background", "a white heart on a pink background"]
SLIDER = {
    "slider_target": "a circle on a white background",
    "slider_positive": "a large circle on a white background",
    "slider_negative": "a small circle on a white background",
}
FILLER = "a picture, " + ", ".join(["with a line on a grid in the middle of the paper"] * 3)  # more than one chunk


def trained(folder, **changes):
    """The folder of a run of the tiny preset; one that was ended goes on, one that is there is taken as it is."""
    values = {"output_dir": str(folder), "validation_prompt": None} | changes
    if list(folder.glob("checkpoint-*")):
        values["resume_from_checkpoint"] = "latest"
    if not (folder / "pytorch_lora_weights.safetensors").is_file():
        fine_tune(TrainConfig.preset("tiny", **values), progress=False)
    return folder


@functools.cache
def usual(root):
    """The quick start's reports for three seeds."""
    return [concept_report(trained(root / f"usual-{seed}", seed=seed), **MEASURE) for seed in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("concepts")


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_as_well_as_the_quick_start(root, kind):
    """Within the spread of three seeds, or above it."""
    report = concept_report(trained(root / kind, seed=0, **KINDS[kind]), **MEASURE)
    print(kind, report, "usual", usual(root))
    assert report["unchanged"] and report["drift"] <= max(20, *(each["drift"] for each in usual(root)))
    assert report["score"][1.0] >= min(each["score"][1.0] for each in usual(root))


def alone(root, **changes):
    """A run on the blueprints without the plain pictures that the quick start mixes in."""
    return {"dataset_name": None, "train_data_dir": str(PICTURES / "blueprint"), "seed": 0, **changes}


def test_the_prior_keeps_plain_prompts_without_plain_pictures(root):
    """It lowers their drift by 30 % or more, and learns the concept as well.

    Measured so far after 50 steps of 4 alone: a drift of 9.2 becomes 5.8.
    """
    prior = {"prior_without_pictures": True, "prior_prompts": PLAIN}
    without = concept_report(trained(root / "alone", **alone(root)), **MEASURE)
    kept = concept_report(trained(root / "prior", **alone(root, **prior)), **MEASURE)
    print("without", without, "with", kept)
    assert kept["drift"] <= 0.7 * without["drift"]
    assert kept["score"][1.0] >= without["score"][1.0] - 0.1


def radii(folder, scales):
    """Mean radius in px of twelve circles at each strength."""
    pipeline, rng = load_pipeline("embedded:tiny-sdxl"), random.Random(4)
    pairs = [rng.sample(sorted(COLOURS), 2) for _ in range(12)]
    prompts = [f"a {colour} circle on a {ground} background" for colour, ground in pairs]
    attach(read_lora(folder), pipeline)
    found = []
    for scale in scales:
        set_scale(pipeline, {"default": scale})
        found.append(float(np.mean([read(picture).radius for picture in paint(pipeline, prompts, range(12))])))
    return found


def test_a_slider_goes_from_small_to_large(root):
    """The checker's radius rises with the strength from -1 to 1, for colours that its prompts never named.

    Measured: 9.5, 13.5, 17.3, 21.2 and 23.9 px.
    """
    few = {"train_batch_size": 4, "max_train_steps": 80, "checkpointing_steps": 75, "slider_guidance": 2.0}
    found = radii(trained(root / "slider", seed=0, **few, **SLIDER), (-1, -0.5, 0, 0.5, 1))
    print("radius", found)
    assert all(high > low for low, high in pairwise(found)) and found[-1] >= 2 * found[0]


def circles(root):
    """Two folders: fourteen large circles, and the same ones small."""
    rng = random.Random(9)
    for number in range(14):
        colour, ground = rng.sample(sorted(COLOURS), 2)
        for name, radius in (("large", 24.0), ("small", 10.0)):
            (root / name).mkdir(exist_ok=True)
            scene = Scene((Thing("circle", colour, radius=radius),), ground)
            draw(scene).save(root / name / f"{number:02d}.png")
            (root / name / f"{number:02d}.txt").write_text(f"a {colour} circle on a {ground} background")
    return {"dataset_name": None, "train_data_dir": str(root / "large"), "slider_negative_dir": str(root / "small")}


def test_a_slider_from_pairs_goes_from_small_to_large(root):
    """The radius rises with the strength from -1 to 1, for the prompts of the slider above.

    Measured after 40 steps of 4 pairs, eight circles each: 10.9, 12.9, 17.4, 22.1 and 23.7 px.
    """
    few = {"train_batch_size": 4, "max_train_steps": 100, "checkpointing_steps": 75}
    found = radii(trained(root / "pairs", seed=0, **few, **circles(root)), (-1, -0.5, 0, 0.5, 1))
    print("radius", found)
    assert all(high > low for low, high in pairwise(found)) and found[-1] >= 1.5 * found[0]


def long_pictures(folder):
    """Blueprints and plain pictures of one long caption; that of blueprints alone ends with the word."""
    folder.mkdir(exist_ok=True)
    lines = []
    for part, tail in (("blueprint", ", a blueprint"), ("plain", "")):
        for row in map(json.loads, (PICTURES / part / "metadata.jsonl").read_text().splitlines()):
            shape = row["text"].removeprefix("a blueprint of ")
            shutil.copy(PICTURES / part / row["file_name"], folder / f"{part}-{row['file_name']}")
            lines.append({"file_name": f"{part}-{row['file_name']}", "text": f"{shape}, {FILLER}{tail}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_a_tag_behind_the_first_chunk_is_learned_and_drawn(root):
    """Nothing is cut, and blueprints are drawn where the tag is, behind what the first chunk holds."""
    data = str(long_pictures(root / "long-pictures"))
    folder = trained(
        root / "long", dataset_name=None, train_data_dir=data, max_token_length=225, max_train_steps=300, seed=0
    )
    assert not [e for e in Run.open(folder).events("warning") if "are cut" in e["message"]]
    from sdxl_nb.drawing.generation import generate

    shapes = [(text.removeprefix("a blueprint of "), shape) for text, shape in blueprint_prompts(8)]
    shares = []
    for tail in (", a blueprint", ""):
        prompts = {f"{words}, {FILLER}{tail}": shape for words, shape in shapes}
        grid = generate(lora=folder, prompts=list(prompts), num_inference_steps=20, progress=False)
        shares.append(np.mean([is_blueprint(grid.at(prompt), shape) for prompt, shape in prompts.items()]))
    print("with the tag", shares[0], "without", shares[1])
    assert shares[0] >= shares[1] + 0.3
