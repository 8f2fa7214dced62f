"""Does `--preset tiny` learn what it should? Judged by the pixel checker on prompts that training never saw."""

import random
from itertools import pairwise

import pytest

from sdxl_nb import TrainConfig, fine_tune
from sdxl_nb.tiny.checker import is_blueprint
from sdxl_nb.tiny.concepts import blueprint_scenes, draw_blueprint
from sdxl_nb.tiny.draw import SHAPES
from sdxl_nb.tiny.evaluate import concept_report

SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)


def real_share():
    """The checker's score of real drawings of the concept."""
    scenes = blueprint_scenes(96, random.Random(8), SHAPES)
    return sum(is_blueprint(draw_blueprint(s), s.things[0].shape) for s in scenes) / len(scenes)


def trained(folder, seed, **changes):
    config = TrainConfig.preset("tiny", output_dir=str(folder), seed=seed, validation_prompt=None, **changes)
    return fine_tune(config, progress=False).folder


@pytest.mark.soak
def test_three_seeds_learn_the_blueprint(tmp_path):
    """The whole measure: 24 unseen prompts x 2 seeds x 3 training seeds, scale 0 to 1."""
    reports = [
        concept_report(trained(tmp_path / str(seed), seed), prompts=24, seeds=(0, 1), scales=SCALES)
        for seed in range(3)
    ]
    mean = {scale: sum(r["score"][scale] for r in reports) / len(reports) for scale in SCALES}
    print(reports, mean)
    assert all(report["unchanged"] for report in reports)
    assert mean[1.0] - mean[0.0] >= 0.4
    assert mean[1.0] >= 0.75 * real_share()
    assert max(report["drift"] for report in reports) <= 20
    assert all(mean[high] >= mean[low] - 0.05 for low, high in pairwise(SCALES))


@pytest.mark.soak
def test_a_base_in_8_bits_learns_it_as_well(tmp_path):
    """One seed in int8 lies within the spread of three on the whole base, or above it."""
    measure = {"prompts": 24, "seeds": (0, 1), "scales": (0.0, 1.0)}
    whole = [concept_report(trained(tmp_path / str(seed), seed), **measure)["score"][1.0] for seed in range(3)]
    eight = concept_report(trained(tmp_path / "int8", 0, base_precision="int8"), **measure)
    print(whole, eight)
    assert eight["unchanged"] and eight["drift"] <= 20
    assert eight["score"][1.0] >= min(whole)


@pytest.mark.soak
def test_one_seed_learns_it_too(tmp_path):
    """The short measure: one seed, twelve prompts."""
    report = concept_report(trained(tmp_path / "run", 0), prompts=12, seeds=(0,))
    assert report["unchanged"] and report["score"][0.0] <= 0.1
    assert report["score"][1.0] >= 0.6 * real_share()
    assert report["drift"] <= 20
