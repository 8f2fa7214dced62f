"""Captions of several chunks: after a comma, else between words, and nothing is lost that has a place."""

import pytest

from sdxl_nb.data.captions import long_captions
from sdxl_nb.data.words.chunks import BACK, Chunks
from sdxl_nb.models.loading import load
from sdxl_nb.models.sources import Source


@pytest.fixture(scope="module")
def tokenizer():
    """CLIP's own, with SDXL's 77 places: a single-file base brings it."""
    from transformers import CLIPTokenizer

    from sdxl_nb.models.sources import checkpoint_configs

    return CLIPTokenizer.from_pretrained(str(checkpoint_configs()), subfolder="tokenizer_2")


def words(tokenizer, chunk):
    return tokenizer.decode(chunk).strip()


def test_one_chunk_is_what_the_tokenizer_itself_makes(tokenizer):
    captions = ["", "a dog", "a dog, " * 60, "a" * 300]
    theirs = tokenizer(captions, padding="max_length", truncation=True)["input_ids"]
    assert Chunks(tokenizer).rows(captions) == theirs


def test_a_chunk_ends_after_its_last_comma_and_begins_with_the_next_tag(tokenizer):
    caption = ", ".join(["a small red dog"] * 20)  # 5 tokens each: the comma of the 15th is the 75th token
    chunks, rest = Chunks(tokenizer, 2).cut(*Chunks(tokenizer, 2).tokens([caption]))
    assert [len(chunk) for chunk in chunks] == [75, 24] and rest == []
    longer = ", ".join(["one", *["a small red dog"] * 20])  # now it would be torn after "small"
    chunks, rest = Chunks(tokenizer, 2).cut(*Chunks(tokenizer, 2).tokens([longer]))
    assert words(tokenizer, chunks[0]).endswith("dog ,") and words(tokenizer, chunks[1]).startswith("a small red dog")
    assert 75 - BACK <= len(chunks[0]) < 75 and sum(map(len, chunks)) == 101 and rest == []


def test_without_commas_words_stay_whole_and_without_words_it_is_full(tokenizer):
    three = Chunks(tokenizer, 3)
    (tokens,) = three.tokens(["unbelievable photorealism " * 40])
    chunks, rest = three.cut(tokens)
    assert all(tokenizer.convert_ids_to_tokens(chunk[-1:])[0].endswith("</w>") for chunk in chunks)
    assert [token for chunk in chunks for token in chunk] + rest == tokens
    (tokens,) = three.tokens(["ab" * 2000])
    chunks, rest = three.cut(tokens)
    assert [len(chunk) for chunk in chunks] == [75, 75, 75] and sum(map(len, chunks)) + len(rest) == len(tokens)


def test_every_row_has_its_start_end_and_padding(tokenizer):
    rows = Chunks(tokenizer, 3).rows(["a dog", "a dog, " * 40])
    assert len(rows) == 6 and {len(row) for row in rows} == {77}
    assert all(row[0] == tokenizer.bos_token_id and tokenizer.eos_token_id in row for row in rows)
    assert rows[1][:2] == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_what_is_lost_is_counted_by_it(tokenizer):
    captions = ["a dog", ", ".join(["a small red dog"] * 20), ", ".join(["a small red dog"] * 40) + ", a blue hat"]
    small = load(Source("embedded:tiny-sdxl"), "tokenizer")
    assert [cut.index for cut in long_captions(captions, [tokenizer])] == [1, 2]
    assert [cut.index for cut in long_captions(captions, [tokenizer], chunks=2)] == [2]
    assert long_captions(captions, [tokenizer], chunks=3) == []
    (lost,) = (cut for cut in long_captions(captions, [tokenizer], chunks=2) if cut.index == 2)
    assert lost.cut.endswith("a blue hat") and lost.tokens == 205
    assert [cut.index for cut in long_captions(captions, [tokenizer, small], chunks=3)] == [1, 2]  # has 32 places
