"""Grids of pictures from a random tiny SDXL."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from random_sdxl import make_pipeline
from test_lora import add_lora, make_models

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.drawing import generation
from sdxl_nb.drawing.generation import Cell, PictureGrid, at_once, compare, fits, generate, load_base, source_of
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import collect
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

PROMPTS = ["a red circle", "two $blue$ squares on a very long prompt that must be wrapped somewhere"]
FAST = {"num_inference_steps": 2, "progress": False, "height": 32, "width": 32}


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline()


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    models = make_models()
    add_lora(models, "all", lora_alpha=8)
    return save_lora(collect(**models), tmp_path_factory.mktemp("run"), "style", {})[0].parent


def pixels(grid):
    return {cell: np.asarray(picture) for cell, picture in grid.pictures.items()}


def test_prompts_by_scales_by_seeds_and_scale_zero_is_the_base(pipeline, lora):
    base = generate(pipeline, None, PROMPTS, seeds=(0, 7), **FAST)
    grid = generate(pipeline, lora, PROMPTS, scales=(0, 0.5, 1), seeds=(0, 7), batch_size=3, **FAST)
    assert (grid.prompts, grid.labels, grid.seeds) == (PROMPTS, ["scale 0", "scale 0.5", "scale 1"], [0, 7])
    assert base.labels == ["base"] and len(base.pictures) == 4 and len(grid.pictures) == 12
    assert repr(grid) == "PictureGrid(12 pictures: 2 prompts x 3 columns x 2 seeds)"
    for prompt in PROMPTS:
        for seed in (0, 7):
            plain = np.asarray(base.at(prompt, "base", seed)).astype(int)
            # batches of 3 and of 4 may round differently by one level
            assert np.abs(plain - np.asarray(grid.at(prompt, "scale 0", seed))).max() <= 1
            assert np.abs(plain - np.asarray(grid.at(prompt, "scale 1", seed))).max() > 5
    again = generate(pipeline, None, PROMPTS, seeds=(0, 7), **FAST)
    assert all(np.array_equal(a, b) for a, b in zip(pixels(base).values(), pixels(again).values(), strict=True))
    assert not any("generate" in name for name, _ in pipeline.unet.named_parameters())


def test_a_picture_depends_on_its_prompt_and_seed_alone(pipeline):
    torch.manual_seed(1)
    alone = generate(pipeline, None, PROMPTS[0], seeds=[7], batch_size=1, **FAST)
    state = torch.get_rng_state()
    among = generate(pipeline, None, [*PROMPTS, "x"], seeds=[3, 7], batch_size=1, **FAST)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(np.asarray(alone.at()), np.asarray(among.at(PROMPTS[0], "base", 7)))


def test_several_loras_and_every_way_to_name_one(pipeline, lora):
    file = LoraFile(lora / "style.safetensors")
    once = generate(pipeline, lora, "x", **FAST)
    for same in (file, str(lora), [file], {file.path: 1.0}, [(lora, 1.0)], file.weights()):
        assert np.array_equal(np.asarray(once.at()), np.asarray(generate(pipeline, same, "x", **FAST).at()))
    halves = generate(pipeline, [(lora, 0.5), (file, 0.5)], "x", **FAST)
    assert np.abs(np.asarray(once.at()).astype(int) - np.asarray(halves.at())).max() <= 1


def test_a_base_by_its_folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    from_folder = generate(str(tmp_path), None, "x", **FAST)
    assert np.array_equal(np.asarray(from_folder.at()), np.asarray(generate(pipeline, None, "x", **FAST).at()))


def test_wrong_requests_are_sentences_and_leave_no_adapter(pipeline, lora):
    for wrong in ({"prompts": []}, {"prompts": ["a", "a"]}, {"prompts": "a", "seeds": []}):
        with pytest.raises(ConfigError, match="must be a list of different values"):
            generate(pipeline, **{**FAST, **wrong})
    with pytest.raises(ModelError, match="no LoRA file or folder"):
        generate(pipeline, [lora, lora / "missing"], "a", **FAST)
    assert not hasattr(pipeline.unet, "peft_config")


# What fits into memory.


def test_large_pictures_are_drawn_one_by_one(pipeline, monkeypatch):
    assert [at_once(side, side) for side in (64, 128, 256, 512, 1024)] == [8, 8, 4, 1, 1]
    assert at_once(768, 1344) == 1 and at_once(320, 256) == 3
    drawn = []

    def draw(pipeline, batch, settings, *_):
        drawn.append(len(batch))
        return [Image.new("RGB", (8, 8))] * len(batch)

    monkeypatch.setattr(generation, "_draw_batch", draw)
    for size in ({"height": 1024, "width": 1024}, {"height": 256, "width": 256}, {}):
        generate(pipeline, None, "x", seeds=range(9), **{**FAST, "height": None, "width": None, **size})
    usual = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    assert usual <= 128 and drawn == [1] * 9 + [4, 4, 1] + [8, 1]
    drawn.clear()
    generate(pipeline, None, "x", seeds=range(9), batch_size=5, **{**FAST, "height": 1024, "width": 1024})
    assert drawn == [5, 4]


def test_a_base_that_does_not_fit_comes_to_the_gpu_part_by_part():
    sdxl, gib = 7 * 10**9, 2**30
    assert fits(sdxl, 12 * gib) and fits(sdxl, 24 * gib)
    assert not fits(sdxl, 8 * gib) and not fits(sdxl, 6 * gib)


@pytest.mark.parametrize(("free", "expected"), [(80 * 2**30, "to cuda"), (2**20, "offload on 1")])
def test_what_load_base_does_on_a_gpu(free, expected, monkeypatch):
    """The calls alone: there is no GPU here."""
    done, pipeline = [], make_pipeline()
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free, 80 * 2**30))
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr(
        "sdxl_nb.models.loading.load_pipeline", lambda source, dtype, _: done.append((source, dtype)) or pipeline
    )
    pipeline.to = lambda place: done.append(f"to {place}") or pipeline
    pipeline.enable_model_cpu_offload = lambda number: done.append(f"offload on {number}")
    assert load_base("somebody/base") is pipeline
    assert done == [(Source("somebody/base"), torch.float16), expected] and pipeline.vae.use_slicing


def test_the_default_base_by_name_has_the_vae_that_training_gives_it():
    config = TrainConfig()
    assert source_of(config.pretrained_model_name_or_path) == Source.of(config) and Source.of(config).vae
    assert source_of("embedded:tiny-sdxl") == Source("embedded:tiny-sdxl")


def squares(labels, size=64):
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    cells = [Cell(prompt, label, 0) for prompt in PROMPTS for label in labels]
    return PictureGrid({cell: Image.new("RGB", (size, size), colours[i % 3]) for i, cell in enumerate(cells)})


def test_figure_png_and_files(tmp_path):
    grid = squares(["before", "after"])
    figure = grid.figure("$5 a title")
    axes = figure.axes
    assert len(axes) == 4 and [axis.get_title() for axis in axes[:2]] == ["before", "after"]
    assert axes[0].images[0].get_interpolation() == "nearest" and not any(list(axes[0].get_xticks()))
    assert "\n" in axes[2].get_ylabel() and "$blue$" in axes[2].get_ylabel()
    assert axes[0].get_window_extent().width == 192  # three times 64: every pixel an equal square
    assert squares(["a"], 512).figure().axes[0].images[0].get_interpolation() == "antialiased"
    with Image.open(io.BytesIO(grid._repr_png_())) as picture:
        assert picture.format == "PNG" and picture.width > 300
        assert picture.getpixel((1, 1))[:3] == (255, 255, 255)  # readable on a dark page too
    names = [path.name for path in grid.save(tmp_path / "out")]
    assert names == ["00-00-0.png", "00-01-0.png", "01-00-0.png", "01-01-0.png"]
    described = json.loads((tmp_path / "out" / "pictures.json").read_text())
    assert described["01-01-0.png"] == {"prompt": PROMPTS[1], "label": "after", "seed": 0}


def test_more_prompts_than_columns_go_across():
    grid = PictureGrid({Cell(f"prompt {i}", label, 0): squares("a").at() for i in range(4) for label in ("x", "y")})
    axes = grid.figure().axes
    assert [axis.get_title() for axis in axes[:4]] == [f"prompt {i}" for i in range(4)]
    assert [axes[0].get_ylabel(), axes[4].get_ylabel()] == ["x", "y"] and len(axes) == 8


def test_compare_sets_two_grids_side_by_side():
    both = compare(squares(["base"]), squares(["scale 0.5", "scale 1"]))
    assert both.labels == ["before", "after scale 0.5", "after scale 1"] and both.prompts == PROMPTS
    with pytest.raises(ConfigError, match="two different labels"):
        compare(both, both, ("a", "a"))


def test_weights_of_other_programs_are_said(pipeline):
    said = (
        r"generate: '<lora:mine:0\.8>' is read as the letters that it is: weights, <lora:\.\.\.>, BREAK and wildcards"
    )
    with pytest.warns(UserWarning, match=said):
        generate(pipeline, None, "a cat <lora:mine:0.8>", num_inference_steps=1, progress=False, height=32, width=32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 100},
        {"width": 0},
        {"height": -8},
        {"guidance_scale": float("nan")},
        {"guidance_scale": -1.0},
        {"seeds": [2**64]},
        {"seeds": "12"},
    ],
)
def test_numbers_that_nothing_can_be_drawn_with_are_a_sentence(pipeline, wrong):
    with pytest.raises(ConfigError, match=r"^generate: .*(multiples of 8|guidance_scale must be|seeds must be)"):
        generate(pipeline, None, "a", **FAST | wrong)


def test_one_seed_is_a_number(pipeline):
    assert generate(pipeline, None, "a", seeds=7, **FAST | {"num_inference_steps": 1}).seeds == [7]
