"""Training on from a LoRA, and on top of frozen ones: the first picture is exactly, or to rounding, that LoRA's."""

import io
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_runs import ONCE, assert_same, small, train, whole
from test_resume import refused

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_one
from sdxl_nb.lora.layers import Layer
from sdxl_nb.system.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

DRAWN = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 2}
PLAIN = {"target_modules": "attention", "rank": 4}  # the defaults: nothing was said of the LoRA


def first(**changes):
    return whole(max_train_steps=3, learning_rate=0.1, **DRAWN, **ONCE, **changes)


def pixels(run, step):
    (path,) = run.pictures()[step]
    return np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(int)


def said(run):
    return [event["message"] for event in run.events("warning")]


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_the_first_picture_is_the_loras_and_its_shape_is_taken(tmp_path, changes):
    before = first(**changes)
    run = train(small(tmp_path, lora_weights=str(before.folder), max_train_steps=2, **DRAWN, **PLAIN))
    assert np.array_equal(pixels(run, 0), pixels(before, 3)) and not np.array_equal(pixels(run, 2), pixels(before, 3))
    mine, theirs = (read_lora(each.folder).layers for each in (run, before))
    assert {path: layer.rank for path, layer in mine.items()} == {path: layer.rank for path, layer in theirs.items()}
    assert all((layer.dora_scale is not None) == bool(changes) for layer in mine.values())
    (told,) = (line for line in said(run) if line.startswith("Training goes on from"))
    assert told == "Training goes on from pytorch_lora_weights.safetensors with its rank 2, alpha 2 and layers."
    stored = TrainConfig.load(run.folder / "config.json")
    assert (stored.rank, stored.use_dora) == (2, bool(changes)) and stored.lora_weights == str(before.folder)


def test_of_a_foreign_file_each_layer_keeps_its_own_rank_and_alpha(tmp_path):
    weights = read_lora(first().folder)
    path, layer = next(iter(weights.layers.items()))
    wider = torch.cat([layer.down, torch.zeros_like(layer.down[:1])]), torch.nn.functional.pad(layer.up, (0, 1))
    weights.layers[path] = Layer(*wider, alpha=layer.alpha * 3 / 2)
    file = save_one(weights, tmp_path / "theirs.safetensors", "kohya", dtype=torch.float16)
    save_file(load_file(file), file)  # a header of nobody's
    settings = {"lora_weights": str(file), "rank": 8, "lora_alpha": 1.0, "target_modules": "all"}
    run = train(small(tmp_path / "run", max_train_steps=1, **settings, **DRAWN))
    assert np.abs(pixels(run, 0) - pixels(first(), 3)).max() <= 2  # fp16
    trained = read_lora(run.folder).layers
    assert trained[path].rank == 3 and {layer.rank for layer in trained.values()} == {2, 3}
    (told,) = (line for line in said(run) if line.startswith("Training goes on from"))
    assert "; rank, lora_alpha, target_modules are not used." in told
    assert told.endswith("Its weights were rounded to fp16 when it was written.")


def test_resuming_needs_the_same_file_and_is_exact(tmp_path):
    file = tmp_path / "start.safetensors"
    shutil.copy(first().folder / "pytorch_lora_weights.safetensors", file)
    settings = {"lora_weights": str(file), "base_lora": [f"{first().folder}:0.5"], **PLAIN}
    train(small(tmp_path / "parts", max_train_steps=2, **settings))
    train(small(tmp_path / "parts", max_train_steps=4, resume_from_checkpoint="latest", **settings))
    assert_same(tmp_path / "parts", train(small(tmp_path / "whole", max_train_steps=4, **settings, **ONCE)).folder)
    longer = {"max_train_steps": 5} | settings
    assert "base_lora of" in refused(tmp_path / "parts", ConfigError, **longer | {"base_lora": [str(first().folder)]})
    changed = load_file(file)
    next(iter(changed.values())).add_(1e-3)
    save_file(changed, file)
    assert "trained on another base: lora_weights of" in refused(tmp_path / "parts", ConfigError, **longer)


def test_text_encoders_are_trained_on_or_lie_below(tmp_path):
    before = first(train_text_encoder=True)
    with pytest.raises(ConfigError, match="has layers for the text encoders too: add train_text_encoder to go on with"):
        train(small(tmp_path / "a", lora_weights=str(before.folder), max_train_steps=1))
    with pytest.raises(ConfigError, match="has no layers for the text encoders: drop train_text_encoder"):
        train(small(tmp_path / "a", lora_weights=str(first().folder), train_text_encoder=True, max_train_steps=1))
    both = {"lora_weights": str(before.folder), "train_text_encoder": True}
    run = train(small(tmp_path / "on", max_train_steps=1, **both, **DRAWN, **PLAIN))
    assert np.array_equal(pixels(run, 0), pixels(before, 3))
    assert {path.partition(".")[0] for path in read_lora(run.folder).layers} == {
        "unet",
        "text_encoder",
        "text_encoder_2",
    }
    below = train(small(tmp_path / "below", max_train_steps=1, base_lora=[str(before.folder)], **DRAWN))
    assert np.abs(pixels(below, 0) - pixels(before, 3)).max() <= 2  # summed into the weights
    plain = train(small(tmp_path / "plain", max_train_steps=1, **DRAWN))
    assert np.abs(pixels(plain, 0) - pixels(before, 3)).max() > 8


def test_what_is_drawn_later_has_the_frozen_loras_too(tmp_path):
    from sdxl_nb.drawing.generation import generate, load_base
    from sdxl_nb.models.loading import load_pipeline
    from sdxl_nb.models.sources import Source

    before = first()
    run = train(small(tmp_path, max_train_steps=1, base_lora=[f"{before.folder}:0.5", str(before.folder)], **DRAWN))
    config = TrainConfig.load(run.folder / "config.json")
    pipeline, plain = load_base(Source.of(config)), load_pipeline(Source(config.pretrained_model_name_or_path))
    weights = read_lora(before.folder).layers
    for path, layer in weights.items():
        name = path.removeprefix("unet.")
        moved = pipeline.unet.get_submodule(name).weight - plain.unet.get_submodule(name).weight
        torch.testing.assert_close(moved, 1.5 * layer.scale * layer.up @ layer.down, rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="was trained on top of .*, which the base that draws does not have"):
        generate(plain, run.folder, "a card", num_inference_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        generate(pipeline, run.folder, "a card", num_inference_steps=1)
    named = f"Trained on top of `{before.folder.name}:0.5`, `{before.folder.name}`, frozen in the base"
    assert named in (run.folder / "README.md").read_text()
    assert LoraFile(run.folder).config()["base_lora"] == [f"{before.folder.name}:0.5", before.folder.name]


@pytest.mark.parametrize(
    "settings, error, sentence",
    [
        ({"lora_weights": "nowhere.safetensors"}, ModelError, "There is no LoRA file or folder at nowhere.safetensors"),
        ({"base_lora": ["nowhere.safetensors:0.5"]}, ModelError, "There is no LoRA file or folder at nowhere"),
        (
            {"base_lora": ["a.safetensors:0"]},
            ConfigError,
            "base_lora must be FILE or FILE:SCALE with a scale other than",
        ),
        ({"base_lora": ["a.safetensors:nan"]}, ConfigError, "base_lora must be FILE or FILE:SCALE"),
    ],
)
def test_wrong_values_have_their_sentences(tmp_path, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        train(small(tmp_path / "run", max_train_steps=1, **settings))


def changed(folder, change, only=""):
    """The file of the first run with other layers, those of one model alone if that is asked."""
    weights = read_lora(first(train_text_encoder=True).folder)
    weights.layers = {path: change(layer) for path, layer in weights.layers.items() if path.startswith(only)}
    return str(save_one(weights, folder / "theirs.safetensors", "kohya"))


@pytest.mark.parametrize(
    "factor, only, sentence",
    [
        (1.0, "text_encoder", "layers for the text encoders alone, and a run trains the U-Net: give it as base_lora"),
        (1.0, "text_encoder_2", "layers for the text encoders alone, and a run trains the U-Net: give it as base_lora"),
        (0.0, "", "has alpha 0 in text_encoder.*: such a layer cannot learn: give another file"),
        (-1.0, "", "has alpha -2 in text_encoder.*: python -m sdxl_nb.lora convert --fold_alpha writes the same LoRA"),
    ],
)
def test_files_that_nothing_can_be_learned_from_have_their_sentences(tmp_path, factor, only, sentence):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an alpha of 0, which is said too
        file = changed(tmp_path, lambda layer: layer.scaled(factor), only)
        with pytest.raises(ConfigError, match=sentence):
            train(small(tmp_path / "run", lora_weights=file, train_text_encoder=True))
