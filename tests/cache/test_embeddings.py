"""Captions as the U-Net gets them."""

import pytest
import torch
from random_sdxl import make_pipeline

from sdxl_nb.cache import embeddings
from sdxl_nb.cache.embeddings import EmbeddedPrompts, TextEncoders
from sdxl_nb.cache.shards import Store
from sdxl_nb.data.words.chunks import Chunks
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.system.transfer import sent

CAPTIONS = ["a red circle", "", "a blue square", "a red circle"]


@pytest.fixture(scope="module")
def pipeline():
    return make_pipeline()


@pytest.fixture(scope="module")
def text(pipeline):
    tokenizers = pipeline.tokenizer, pipeline.tokenizer_2
    return TextEncoders(tokenizers, (pipeline.text_encoder, pipeline.text_encoder_2))


def embedded(folder, text, captions, others=(), progress=None, batch=8):
    made = EmbeddedPrompts(captions, others, Store(folder))
    made.fill(lambda: text, progress, batch=batch)
    return made


def test_as_diffusers_pipeline_encodes(pipeline, text):
    prompt = text(["a red circle", "a blue square"])
    hidden, _, pooled, _ = pipeline.encode_prompt(["a red circle", "a blue square"], do_classifier_free_guidance=False)
    assert prompt.hidden.shape == (2, 16, 64) and prompt.pooled.shape == (2, 32)
    assert torch.equal(prompt.hidden, hidden) and torch.equal(prompt.pooled, pooled)


@pytest.mark.parametrize("skip", [1, 2])
def test_another_layer_is_read_as_diffusers_reads_it(pipeline, text, skip):
    ours = TextEncoders(text.tokenizers, text.encoders, clip_skip=skip)(["a red circle"])
    hidden, _, pooled, _ = pipeline.encode_prompt("a red circle", do_classifier_free_guidance=False, clip_skip=skip - 2)
    assert torch.equal(ours.hidden, hidden) and torch.equal(ours.pooled, pooled)
    assert torch.equal(ours.hidden, text(["a red circle"]).hidden) == (skip == 2)


def test_a_layer_that_an_encoder_lacks_is_refused(text):
    with pytest.raises(ConfigError, match="clip_skip 3 is more than the 2 layers of a text encoder: lower it"):
        TextEncoders(text.tokenizers, text.encoders, clip_skip=3)


def test_chunks_are_encoded_one_by_one_and_put_side_by_side(pipeline, text):
    caption, two = "a red circle a blue square a red", TextEncoders(text.tokenizers, text.encoders, chunks=2)
    (tokens,) = Chunks(pipeline.tokenizer, 2).tokens([caption])
    chunks, rest = Chunks(pipeline.tokenizer, 2).cut(tokens)
    assert len(chunks) == 2 and not rest
    apart = [pipeline.tokenizer.decode(chunk) for chunk in chunks]
    long, first, second = two([caption]), text([apart[0]]), text([apart[1]])
    assert torch.allclose(long.hidden, torch.cat([first.hidden, second.hidden], dim=1), atol=1e-6)
    assert torch.allclose(long.pooled, first.pooled, atol=1e-6)
    assert two(["", caption]).hidden[0].abs().sum() == 0 and two.cut([caption]) == [0] and text.cut([caption]) > [0]


def test_an_empty_caption_is_zeros_as_in_guidance(text):
    prompt = text(CAPTIONS)
    assert prompt.hidden[1].abs().sum() == 0 and prompt.pooled[1].abs().sum() == 0
    assert all(prompt.hidden[i].abs().sum() > 0 for i in (0, 2, 3))


def test_embedding_once_changes_nothing(tmp_path, text):
    done = []
    once = embedded(tmp_path, text, CAPTIONS, ["", "other"], lambda *numbers: done.append(numbers), batch=2)
    assert done == [(2, 4), (4, 4)] and once.computed == len(once) == 4  # four different texts
    for captions in (["a blue square"], CAPTIONS, ["", "other"]):
        with torch.no_grad():
            live = text(captions)
        stored = once(captions)
        assert torch.allclose(stored.hidden, live.hidden, atol=1e-6)
        assert torch.allclose(stored.pooled, live.pooled, atol=1e-6)
    with pytest.raises(KeyError, match="never seen"):
        once(["a blue square", "never seen"])


def test_only_new_captions_are_embedded(tmp_path, text):
    def computed(*captions):
        return embedded(tmp_path, text, captions).computed

    assert [computed(*CAPTIONS), computed(*CAPTIONS), computed(*CAPTIONS, "new"), computed("new")] == [3, 0, 1, 0]
    nothing = EmbeddedPrompts(CAPTIONS, (), Store(tmp_path))
    nothing.fill(None)  # would be called to load the encoders
    assert nothing(CAPTIONS).hidden.shape == (4, 16, 64)


def test_an_embedding_does_not_depend_on_its_neighbours(tmp_path, text):
    captions = ["a", "some longer words", "", "b c", "dog"]
    whole = embedded(tmp_path / "whole", text, captions, batch=2)(captions)
    for at, caption in enumerate(captions):
        alone = embedded(tmp_path / str(at), text, [caption], batch=2)([caption])
        assert torch.equal(alone.hidden[0], whole.hidden[at]) and torch.equal(alone.pooled[0], whole.pooled[at])


def test_tokens_are_sent_without_waiting(text, monkeypatch):
    seen = []
    noted = lambda tensor, device: (seen.append(tuple(tensor.shape)), sent(tensor, device))[1]  # noqa: E731
    monkeypatch.setattr(embeddings, "sent", noted)
    text(CAPTIONS)
    assert seen == [(4, 16), (4, 16), (4,)]


def test_what_is_sent_to_cuda_is_pinned(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: (asked.append("pinned"), tensor)[1])
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *where, **how: (asked.append((*where, how)), tensor)[1])
    for device in (torch.device("cuda"), torch.device("cpu")):
        sent(torch.ones(1), device)
    how = {"non_blocking": True}
    assert asked == ["pinned", (torch.device("cuda"), how), (torch.device("cpu"), how)]


def test_long_captions_are_cut(tmp_path, text):
    long = "word " * 40
    assert text([long]).hidden.shape == (1, 16, 64)
    assert torch.equal(text([long]).hidden, text([long + "more"]).hidden)
    assert text.cut(["word", "abcdefghijklmn", "abcdefghijklmno"]) == [0, 0, 1]  # 14 letters, start and end
    captions = ["short", long, "", "abcdefghijklmno", "x"]
    assert embedded(tmp_path, text, captions, ["other " * 40]).cut().tolist() == [1, 3]
    assert embedded(tmp_path, text, captions, [""]).cut().tolist() == [1, 3]  # known without encoders now


def test_stored_prompts_need_no_gradient_and_keep_their_dtype(tmp_path, text):
    assert not embedded(tmp_path, text, ["a"])(["a"]).hidden.requires_grad
    half = TextEncoders(
        text.tokenizers,
        [
            encoder.bfloat16()
            for encoder in make_pipeline().components.values()
            if type(encoder).__name__.startswith("CLIPTextModel")
        ],
    )
    with torch.no_grad():
        live = half(["a"])
    stored = embedded(tmp_path / "half", half, ["a"], batch=1)(["a"])
    assert stored.hidden.dtype == torch.bfloat16 and torch.equal(stored.hidden, live.hidden)
