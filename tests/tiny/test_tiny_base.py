"""The embedded base: files as diffusers and transformers want them, small enough to ship, and really able to draw."""

import json
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.models.sources import EMBEDDED
from sdxl_nb.tiny.draw import HELD_OUT
from sdxl_nb.tiny.evaluate import (
    all_right_share,
    blueprint_prompts,
    crop_shift,
    plain_prompts,
    sharpness,
    single_scenes,
)

BASE = EMBEDDED["embedded:tiny-sdxl"]
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("embedded:tiny-sdxl")


def test_it_is_small_and_safetensors_only():
    files = [path for path in BASE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15 * MEGABYTE
    assert {path.suffix for path in files} == {".json", ".txt", ".safetensors"}


def test_the_weights_are_fp16_and_name_no_machine():
    assert len(list(BASE.rglob("*.safetensors"))) == 4
    for path in BASE.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - not a dict
        assert kinds <= {torch.float16, torch.int64}, path
    for path in BASE.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_tokenizers_have_all_the_files_of_both_transformers_versions(name):
    files = {path.name for path in (BASE / name).iterdir()}
    assert files == {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"}
    assert json.loads((BASE / name / "tokenizer_config.json").read_text())["model_max_length"] == 32


def test_plain_diffusers_loads_it_and_draws():
    from diffusers import StableDiffusionXLPipeline

    plain = StableDiffusionXLPipeline.from_pretrained(BASE, add_watermarker=False)
    plain.set_progress_bar_config(disable=True)
    picture = plain("a red fish on a blue background", num_inference_steps=2, height=64, width=64).images[0]
    assert picture.size == (64, 64)


def test_text_encoders_are_the_trained_ones(pipeline):
    """transformers 4 and 5 name the modules differently: weights must not be drawn at random instead of loaded."""
    for part in (pipeline.text_encoder, pipeline.text_encoder_2):
        assert part.get_input_embeddings().weight.std().item() > 0.3  # random ones have 0.02


@pytest.mark.soak
def test_it_draws_what_is_asked_for_held_out_pairs_too(pipeline):
    rng = random.Random(1)
    seen, held_out = (single_scenes(12, rng, held_out=kind) for kind in (False, True))
    assert {(s.things[0].shape, s.things[0].colour) for s in held_out} == HELD_OUT
    assert all_right_share(pipeline, seen + held_out) >= 0.9


@pytest.mark.soak
def test_micro_conditioning_acts(pipeline):
    shift = crop_shift(pipeline, 12, random.Random(2))
    assert shift[0] > shift[40] + 1  # cutting further right moves the thing left, if by less than it should
    edges = sharpness(pipeline, 12, random.Random(2))
    assert edges[16] < 0.85 * edges[64]  # a small original means a blurred picture


def test_prompts_of_the_judge_are_unseen():
    texts = [text for text, _ in blueprint_prompts(24)]
    assert len(set(texts)) == 24 == len(set(plain_prompts(24)))
    shipped = (BASE.parent / "pictures" / "blueprint" / "metadata.jsonl").read_text()
    assert not [text for text in texts if f'"{text}"' in shipped]
    assert np.mean([any(s in t for s in ("heart", "house", "moon", "cross")) for t in texts]) > 0.2
