"""Captions as the U-Net gets them."""

import pytest
import torch
from random_sdxl import make_pipeline

from sdxl_nb.prompts import EmbeddedPrompts, TextEncoders

CAPTIONS = ["a red circle", "", "a blue square", "a red circle"]


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline()


@pytest.fixture(scope="module")
def text(pipeline):
    tokenizers = pipeline.tokenizer, pipeline.tokenizer_2
    return TextEncoders(tokenizers, (pipeline.text_encoder, pipeline.text_encoder_2))


def test_as_diffusers_pipeline_encodes(pipeline, text):
    prompt = text(["a red circle", "a blue square"])
    hidden, _, pooled, _ = pipeline.encode_prompt(["a red circle", "a blue square"], do_classifier_free_guidance=False)
    assert prompt.hidden.shape == (2, 16, 64) and prompt.pooled.shape == (2, 32)
    assert torch.equal(prompt.hidden, hidden) and torch.equal(prompt.pooled, pooled)


def test_an_empty_caption_is_zeros_as_in_guidance(text):
    prompt = text(CAPTIONS)
    assert prompt.hidden[1].abs().sum() == 0 and prompt.pooled[1].abs().sum() == 0
    assert all(prompt.hidden[i].abs().sum() > 0 for i in (0, 2, 3))


def test_embedding_once_changes_nothing(text):
    done = []
    once = EmbeddedPrompts(text, CAPTIONS, lambda *numbers: done.append(numbers), batch=2)
    assert done == [(2, 3), (3, 3)]  # three different captions
    for captions in (["a blue square"], CAPTIONS, ["", ""]):
        with torch.no_grad():
            live = text(captions)
        stored = once(captions)
        assert torch.allclose(stored.hidden, live.hidden, atol=1e-6)
        assert torch.allclose(stored.pooled, live.pooled, atol=1e-6)
    with pytest.raises(KeyError):
        once(["never seen"])


def test_long_captions_are_cut(text):
    long = "word " * 40
    assert text([long]).hidden.shape == (1, 16, 64)
    assert torch.equal(text([long]).hidden, text([long + "more"]).hidden)


def test_stored_prompts_need_no_gradient(text):
    assert not EmbeddedPrompts(text, ["a"])(["a"]).hidden.requires_grad
