"""Captions as a step sees them: tags shuffled and dropped, from the position's own stream; long ones."""

import unicodedata
from collections import Counter

import numpy as np

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.captions import dressed, long_captions, unmarked, varied
from sdxl_nb.data.sampling import Choices
from sdxl_nb.data.words.trigger import calls, with_trigger

CAPTION = "zwx, a dog, red, sitting on grass, at night"


def variants(count=400, caption=CAPTION, **settings):
    config = TrainConfig(seed=0, **settings)
    return [varied(caption, config, Choices.at(0, p, timesteps=9, empty_share=0).words()) for p in range(count)]


def test_shuffling_keeps_every_tag_and_the_first_in_front():
    seen = variants(shuffle_caption=True, keep_tokens=2)
    assert {text[:12] for text in seen} == {"zwx, a dog, "}
    assert {tuple(sorted(text.split(", "))) for text in seen} == {tuple(sorted(CAPTION.split(", ")))}
    assert len(set(seen)) == 6  # the orders of three tags
    assert min(Counter(seen).values()) > 40


def test_dropped_tags_are_the_share_that_was_asked_for():
    seen = variants(caption_tag_dropout_rate=0.25, keep_tokens=1)
    left = Counter(tag for text in seen for tag in text.split(", "))
    assert left["zwx"] == 400 and all(250 < left[tag] < 350 for tag in CAPTION.split(", ")[1:])
    assert all(text.split(", ") == [tag for tag in CAPTION.split(", ") if tag in text.split(", ")] for text in seen)
    assert set(variants(caption_tag_dropout_rate=1.0)) == {""}
    assert set(variants(caption_tag_dropout_rate=1.0, keep_tokens=9)) == {CAPTION}


def test_the_trigger_word_is_never_dropped_and_stays_in_front():
    assert set(variants(caption_tag_dropout_rate=1.0, trigger_word="ZWX")) == {"zwx"}
    assert {text[:5] for text in variants(shuffle_caption=True, trigger_word="zwx")} == {"zwx, "}
    inside = variants(caption="a dog, a zwx card", caption_tag_dropout_rate=1.0, trigger_word="zwx")
    assert set(inside) == {"a zwx card"}


def test_a_trigger_word_is_a_whole_word_or_phrase():
    yes = ["a photo of sks", "SKS, a dog", "sks's hat", "a sks-style hat", "(sks:1.2)", "一张sks的照片", "“sks”"]
    no = ["dogs in masks", "asks", "sks_9", "sksé", "a desk", "", "s k s"]
    assert [calls(text, "sks") for text in yes] == [True] * 7 and [calls(text, "sks") for text in no] == [False] * 7
    assert with_trigger("dogs in masks", "sks") == "sks, dogs in masks" and with_trigger("an SKS", "sks") == "an SKS"
    assert calls("a photo of Ohwx  Man", "ohwx man") and not calls("ohwx manners", "ohwx man")
    assert calls("a <sks> dog", "<sks>") and calls("小明在公园里", "小明") and not calls("a dog", None)


def test_a_word_of_another_script_or_another_spelling_is_whole_too():
    spelled = unicodedata.normalize("NFD", "a café with zoë")
    assert calls(spelled, "café") and calls("a CAFÉ", spelled[2:7]) and not calls(spelled, "cafe")
    assert calls("राम और सीता", "राम") and not calls("रामू और सीता", "राम") and not calls("आराम", "राम")
    assert calls("STRASSE, a dog", "straße") and calls("\u2764\ufe0f a dog", "\u2764")
    for caption, word in (
        ("ภาพถ่ายแมวสีดำ", "แมว"),
        ("소녀는 웃는다", "소녀"),
        ("រូបថតsksល្អ", "sks"),
        ("これはｱﾆﾒsksです", "sks"),
    ):
        assert calls(caption, word)
    assert calls("a party of art", "art") and not calls("a party, artful, kart", "art")
    assert calls("1girl, hatsune_miku", "hatsune_miku") and not calls("hatsune_mikus", "hatsune_miku")


def test_a_trigger_word_inside_another_is_dropped_and_one_with_the_separator_stays_in_front():
    assert set(variants(caption="masks, a dog", caption_tag_dropout_rate=1.0, trigger_word="sks")) == {""}
    lead = variants(caption="zwx, oil, a, b", shuffle_caption=True, trigger_word="zwx, oil")
    assert set(lead) == {"zwx, oil, a, b", "zwx, oil, b, a"}


def test_another_separator_and_empty_tags():
    assert set(variants(caption="a ; b;;", caption_separator=";", keep_tokens=2)) == {"a; b"}
    assert set(variants(caption="a b", caption_separator=" ", keep_tokens=9)) == {"a b"}
    assert set(variants(caption="", shuffle_caption=True)) == {""}


def test_the_words_of_a_position_repeat_and_change_no_other_draw():
    def at(position):
        return Choices.at(3, position, timesteps=1000, empty_share=0.0)

    plain, asked = at(7), at(7)
    first, again = asked.words().random(4), at(7).words().random(4)
    assert np.array_equal(first, again) and not np.array_equal(first, at(8).words().random(4))
    assert np.array_equal(plain.noise((50,)), asked.noise((50,)))


def test_varied_captions_are_embedded_live():
    assert TrainConfig().caches_text_embeddings()
    assert not TrainConfig(shuffle_caption=True).caches_text_embeddings()
    assert not TrainConfig(caption_tag_dropout_rate=0.1).caches_text_embeddings()


class Counting:
    """A tokenizer of one token a word that counts what it was given."""

    model_max_length, given = 5, 0

    def __call__(self, captions, truncation, verbose):
        self.given += len(captions)
        return {"input_ids": [["<s>", *caption.split(), "</s>"] for caption in captions]}

    def decode(self, ids):
        return " ".join(ids)


def test_long_captions_in_portions_and_only_those_that_may_be_long():
    tokenizer, done = Counting(), []
    captions = ["abc", "é", "a b c d", ""] * 5
    found = long_captions(captions, [tokenizer], lambda *numbers: done.append(numbers), portion=8)
    assert [(cut.index, cut.cut) for cut in found] == [(index, "d") for index in (2, 6, 10, 14, 18)]
    assert tokenizer.given == 5 and done == [(8, 20), (16, 20), (20, 20)]


def test_a_mark_says_what_stays_in_front_and_behind():
    caption, config = "sks, hat ||| a, b ||| best", {"keep_tokens_separator": "|||", "keep_tokens": 0}
    seen = variants(caption=caption, shuffle_caption=True, **config)
    assert set(seen) == {"sks, hat, a, b, best", "sks, hat, b, a, best"}
    assert set(variants(caption=caption, caption_tag_dropout_rate=1.0, **config)) == {"sks, hat, best"}
    assert set(variants(caption="a, b", shuffle_caption=True, **config)) == {"a, b", "b, a"}
    still = TrainConfig(seed=0, **config)
    assert unmarked(caption, still) == dressed(caption, still, None) == "sks, hat, a, b, best"
    assert dressed(caption, still.replace(shuffle_caption=True), None) == caption
    assert unmarked(caption, still.replace(keep_tokens_separator=None)) == caption
    led = still.replace(shuffle_caption=True, caption_prefix="front |||")
    assert dressed("a", led, None) == "front ||| a" and "|" not in varied("front ||| a", led, np.random.default_rng(0))
