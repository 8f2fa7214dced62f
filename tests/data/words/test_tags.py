"""Booru tags as words; emoticons, Pony's tags and a trigger word stay."""

from sdxl_nb.data.words.tags import cleaned

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
