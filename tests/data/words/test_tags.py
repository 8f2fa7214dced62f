"""Booru tags as words; emoticons, Pony's tags and a trigger word stay."""

import pytest

from sdxl_nb.audit.caption_faults import booru_tags
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.words.tags import cleaned

# what WD14 taggers (toriato's list, which most have), sd-scripts (three characters and less) and three editors of tags
# keep as they are, and more of the kind as people write them
EMOTICONS = (
    "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_|| "
    ">_@ o_x t_t v_v e_e ;_; |_|_| ಠ_ಠ T_T O_o x_X -_- >_>; (^_^) d(^_^)b T__T =^_^= ・_・ _"
)
PLAIN = {  # nearly emoticons, and none
    "v_neck": "v neck",
    "t_pose": "t pose",
    "x_hair_ornament": "x hair ornament",
    ":d_(smile)": ":d (smile)",
    "1_girl": "1 girl",
    "k-on!_!!": "k-on! !!",
    "looking_at_viewer_>:)": "looking at viewer >:)",
}

WORDS = {
    "hatsune_miku_\\(vocaloid\\), 1girl": "hatsune miku (vocaloid), 1girl",
    "long_hair,blue_eyes": "long hair,blue eyes",
    "fate_\\(series\\), saber_\\[x\\]": "fate (series), saber [x]",
    "^_^, >_<, o_o, 0_0, (o)_(o), ;_;, 3_3, u_u, |_|": "^_^, >_<, o_o, 0_0, (o)_(o), ;_;, 3_3, u_u, |_|",
    "\\(o\\)_\\(o\\)": "(o)_(o)",
    "score_9, score_8_up, source_anime, rating_safe": "score_9, score_8_up, source_anime, rating_safe",
    "a plain sentence, no tags.": "a plain sentence, no tags.",
    "re:zero_kara_hajimeru": "re:zero kara hajimeru",
    "see https://a.b/c_d": "see https://a.b/c_d",
}


def test_tags_become_words():
    assert {text: cleaned(text) for text in WORDS} == WORDS


def test_a_tag_with_the_trigger_word_stays():
    assert cleaned("my_style, long_hair", ",", "my_style") == "my_style, long hair"
    assert cleaned("long_hair solo", " ") == "long hair solo"


@pytest.mark.parametrize("sign", EMOTICONS.split())
def test_emoticons_keep_their_underscores_and_are_no_finding(sign):
    escaped = sign.replace("(", r"\(").replace(")", r"\)")
    assert cleaned(f"1girl, {sign}, solo") == f"1girl, {sign}, solo"
    assert cleaned(escaped) == sign
    assert cleaned(f"a girl with {sign} as her face") == f"a girl with {sign} as her face"
    assert booru_tags({"a.png": f"1girl, {sign}, solo"}, TrainConfig(), {}) == []


def test_what_looks_like_them_becomes_words():
    assert {tag: cleaned(tag) for tag in PLAIN} == PLAIN
