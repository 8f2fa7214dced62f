"""Captions read at another layer of the text encoders: learned, cached apart, drawn, and named in file and card."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import ONCE, assert_same, home, small, train, whole

from sdxl_nb.cache.embeddings import TextEncoders
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.drawing.generation import generate, load_base
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.system.errors import ConfigError

pytestmark = pytest.mark.slow
ONETRAINER = '{"__version": 10, "model_type": "STABLE_DIFFUSION_XL_10_BASE", "training_method": "LORA", '
DRAWN = {"validation_prompt": ["card 1"], "num_validation_images": 1, "validation_inference_steps": 2}


def pixels(grid):
    return np.asarray(grid.at())


def test_captions_are_learned_and_drawn_at_that_layer(tmp_path):
    usual = whole()
    last = train(small(tmp_path / "last", clip_skip=1, **DRAWN, **ONCE))
    live = train(small(tmp_path / "live", clip_skip=1, cache_text_embeddings=False, max_train_steps=1))
    assert last.losses()[1][0] == pytest.approx(live.losses()[1][0], rel=1e-6)
    assert last.losses()[1][0] != usual.losses()[1][0]
    assert_same(usual.folder, train(small(tmp_path / "usual", clip_skip=2, **ONCE)).folder)
    (said,) = [e["message"] for e in last.events("warning") if "clip_skip" in e["message"]]
    assert "in ComfyUI with CLIP Set Last Layer -1, in diffusers with clip_skip=-1" in said
    assert LoraFile(last.folder).metadata["ss_clip_skip"] == "1"
    card = (last.folder / "README.md").read_text("utf-8")
    assert "CLIP Set Last Layer -1" in card and 'pipe("card 1", clip_skip=-1)' in card

    base, settings = str(home()[0] / "base"), {"num_inference_steps": 2, "height": 32, "width": 32, "progress": False}
    drawn = generate(base, last.folder, "card 1", seeds=[5], **settings)
    with Image.open(last.folder / "validation" / "step-6" / "00-5.png") as seen:
        assert np.abs(np.asarray(seen).astype(int) - pixels(drawn)).max() <= 1
    at_usual = generate(base, last.folder, "card 1", seeds=[5], clip_skip=2, **settings)
    assert not np.array_equal(pixels(at_usual), pixels(drawn))
    own = generate(base, last.folder, "card 1", (0,), seeds=[5], **settings)
    assert np.array_equal(pixels(own), pixels(generate(base, None, "card 1", seeds=[5], **settings)))


def test_guidance_leads_away_at_the_same_layer():
    pipeline = load_base(str(home()[0] / "base"), clip_skip=1)
    drawn = generate(pipeline, None, "a", seeds=[1], num_inference_steps=2, negative_prompt="b", progress=False)
    parts = (pipeline.tokenizer, pipeline.tokenizer_2), (pipeline.text_encoder, pipeline.text_encoder_2)
    with torch.no_grad():
        (to, at), (away, off) = (TextEncoders(*parts, clip_skip=1)([text]) for text in ("a", "b"))
    (expected,) = pipeline(
        prompt_embeds=to,
        pooled_prompt_embeds=at,
        negative_prompt_embeds=away,
        negative_pooled_prompt_embeds=off,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=[torch.Generator("cpu").manual_seed(1)],
    ).images
    assert np.array_equal(pixels(drawn), np.asarray(expected))


def test_loras_of_several_layers_ask_for_one(tmp_path):
    base = str(home()[0] / "base")
    loras = [train(small(tmp_path / str(skip), clip_skip=skip, max_train_steps=1)).folder for skip in (1, 2)]
    with pytest.warns(UserWarning, match="all are drawn with 1; give clip_skip for another"):
        generate(base, loras, "a", num_inference_steps=1, progress=False)


def test_a_layer_that_the_base_lacks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="clip_skip 12 is more than the 2 layers of a text encoder: lower it"):
        train(small(tmp_path / "run", clip_skip=12))
    assert not (tmp_path / "run" / "checkpoint-2").exists()
    with pytest.raises(ConfigError, match="clip_skip"):
        small(tmp_path, clip_skip=13)
    with pytest.raises(ConfigError, match="clip_skip must be 1 or more, counted from the last layer"):
        generate(str(home()[0] / "base"), None, "a", clip_skip=0)


@pytest.mark.parametrize(
    ("name", "text", "layer", "said"),
    [
        (
            "a.json",
            ONETRAINER + '"text_encoder_layer_skip": 1, "text_encoder_2_layer_skip": 1}',
            3,
            "",
        ),
        (
            "b.json",
            ONETRAINER + '"text_encoder_layer_skip": 0, "text_encoder_2_layer_skip": 1}',
            2,
            "text_encoder_2_layer_skip 1 in b.json has no effect: both text encoders are read at the same layer",
        ),
        (
            "c.sh",
            "python train_dreambooth_lora_sdxl_advanced.py --instance_data_dir=d --instance_prompt=x "
            "--train_text_encoder --clip_skip=1",
            3,
            "clip_skip 1 in c.sh is meant otherwise here: it is counted from the end, 3",
        ),
        (
            "d.sh",
            "python train_dreambooth_lora_sdxl_advanced.py --instance_data_dir=d --instance_prompt=x --clip_skip=1",
            2,
            "clip_skip 1 in d.sh has no effect: that script uses it with train_text_encoder alone",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_trainers_settings_become_it(tmp_path, name, text, layer, said, recwarn):
    (tmp_path / name).write_text(text)
    assert TrainConfig.load(tmp_path / name).clip_skip == layer
    if said:
        assert any(said in str(each.message) for each in recwarn)
