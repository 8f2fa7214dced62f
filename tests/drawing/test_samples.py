"""Sample prompts drawn: as diffusers' own pipeline draws them, and in a run as outside of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import home, small, train

from sdxl_nb.config.prompts import SAMPLERS
from sdxl_nb.drawing.generation import load_base
from sdxl_nb.drawing.samples import draw, draw_samples
from sdxl_nb.drawing.scheduler import sampled_by
from sdxl_nb.models.sources import EMBEDDED
from sdxl_nb.runs.plots import validation_figure
from sdxl_nb.runs.stages import Stages
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.widgets.monitor.newest import Newest

pytestmark = pytest.mark.slow

SIZES = [(64, 64), (64, 96), (96, 64), (48, 80), (80, 48), (56, 72), (128, 64), (64, 128), (32, 96), (104, 40)]
TWELVE = [
    *(f"card {n} --w {w} --h {h} --d {n} --s {2 + n % 2} --l {1 + n} --n dark" for n, (w, h) in enumerate(SIZES)),
    "plain --w 64 --h 64",
    "unguided --w 96 --h 96 --l 1 --s 2",
]


def opened(path):
    with Image.open(path) as picture:
        return picture.copy()


def pixels(picture):
    return np.asarray(picture).astype(int)


def test_twelve_prompts_of_mixed_sizes_are_those_of_diffusers():
    from diffusers import StableDiffusionXLPipeline

    plain = StableDiffusionXLPipeline.from_pretrained(EMBEDDED["embedded:tiny-sdxl"], add_watermarker=False)
    plain.set_progress_bar_config(disable=True)
    grid = draw_samples(TWELVE, num_inference_steps=2)
    assert len(grid.pictures) == 12
    for number, (cell, picture) in enumerate(grid.pictures.items()):
        width, height = SIZES[number] if number < 10 else (64, 64) if number == 10 else (96, 96)
        own = number < 10
        (theirs,) = plain(
            cell.prompt.partition(" --")[0],
            negative_prompt="dark" if own else None,
            width=width,
            height=height,
            num_inference_steps=2 + number % 2 if own else 2,
            guidance_scale=1 + number if own else 5.0 if number == 10 else 1.0,
            generator=torch.Generator("cpu").manual_seed(number if own else 0),
        ).images
        assert picture.size == (width, height)
        assert np.abs(pixels(picture) - pixels(theirs)).max() <= 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws(sampler):
    drawn = draw_samples([f"card --w 32 --h 32 --s 3 --ss {sampler}"])
    assert pixels(drawn.at()).std() > 0


def test_base_that_predicts_the_flow_has_no_sampler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    with pytest.raises(ConfigError, match=r"^--ss euler is for bases that predict noise or velocity"):
        sampled_by(FlowMatchEulerDiscreteScheduler(), "euler")


def test_run_draws_them_as_they_are_drawn_outside(tmp_path):
    lines = ["one --w 48 --h 32 --d 3 --s 2", "two --h 64 --w 32 --n bad --ss euler_a --s 2", "three"]
    changes = {"validation_prompt": ["a card"], "num_validation_images": 2, "validation_inference_steps": 2}
    run = train(small(tmp_path, **changes, sample_prompts=lines, validation_seed=7, max_train_steps=2))
    names = ["00-7.png", "00-8.png", "01-3.png", "02-7.png", "03-7.png"]
    assert {step: [path.name for path in paths] for step, paths in run.pictures().items()} == {0: names, 2: names}
    assert [opened(path).size for path in run.pictures()[0]] == [(32, 32), (32, 32), (48, 32), (32, 64), (32, 32)]
    base = load_base(str(home()[0] / "base"))
    for step, lora in ((0, None), (2, run.folder)):
        outside = draw(base, lora, run.config.drawings())
        for path, drawing in zip(run.pictures()[step], run.config.drawings(), strict=True):
            assert np.abs(pixels(opened(path)) - pixels(outside.at(drawing.line, 0, drawing.seed))).max() <= 1
    stages = Stages(run)
    assert [row.prompt for row in stages.rows()] == ["a card", "a card", *run.config.sample_prompts]
    assert len(stages.draw(0.5, base)) == 5 and len(stages.grid().pictures) == 10
    assert stages.figure([0, 2]) and validation_figure(run)
    sights = Newest(lambda handler: handler)
    sights.show(run)
    assert len(sights.tiles) == 5


def test_lines_given_as_one_text_are_lines():
    grid = draw_samples("a --w 32\n# mine\nb --w 32 --h 40 --ss Euler a", num_inference_steps=1)
    assert [picture.size for picture in grid.pictures.values()] == [(32, 32), (32, 40)]
