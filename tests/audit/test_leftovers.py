"""What programs leave in captions, each kind of it, and ordinary text that must not be taken for it."""

import pytest

from sdxl_nb.audit.caption_faults import markup, unbalanced
from sdxl_nb.audit.leftovers import code, placeholder, refusal
from sdxl_nb.data.words.syntax import prompt_syntax

LEFT = {
    prompt_syntax: """
        a girl, (red hair:1.2), smile
        (masterpiece:2), 1girl
        [cat:dog:0.5] in a field
        a (very detailed: 1.35) face
        ((best quality)), a cat
        [[blurry]] ground
        1girl, (smile)1.3, hat
        {{{detailed}}}, 1girl
        a house <lora:style:0.8>
        embedding:EasyNegative, a cat
        1girl, red hair BREAK blue sky, clouds, tree
        a girl in red, BREAK a boy in blue
    """,
    placeholder: """
        a photo of [trigger], smiling
        [filewords]
        [name] in a park
        a {red|blue} car
        a __colour__ car
        {trigger} standing
        ${caption}
        nan
        None
        null
        N/A
        sks, nan
        TODO
        TODO: describe
        a photo of <token>
        Lorem ipsum dolor sit amet
        insert caption here
        ...
        untitled
    """,
    refusal: """
        I'm sorry, I can't help with identifying people.
        I`m sorry, but I cannot assist with that request.
        sks, I am unable to describe this image.
        As an AI language model, I do not see.
        I can't provide a description of this picture.
        I apologize, but the image is blank.
        This violates our content policy.
        Sure! Here's a caption for the picture: a dog
        Here is a detailed description of the image: a cat
        Please upload an image so that I can describe it.
        Unable to process the image.
        I cannot identify the person.
        Traceback (most recent call last):
        Error code: 429
    """,
    code: """
        {"caption": "a dog"}
        ["1girl", "solo"]
        ['1girl', 'solo']
        {'tags': ['a']}
        [{"label": "dog", "score": 0.9}]
        {"caption": "a dog that was cut
        {"a": 1}
    """,
}
ORDINARY = """
    a wide picture (16:9) of a lake
    model (scale 1:72) of a plane
    a verse (Matthew 5:3) on a wall
    a train leaves (at 10:30) from platform 2
    a portrait (f/1.8, 1:2)
    photo (ISO 100, f:1.8)
    a sign that says BREAK, red letters, brick wall
    DO NOT BREAK THE GLASS, a red sign, a wall
    a mug with the word "BREAK", on a table, steam
    COFFEE BREAK, a cup, a cafe
    they BREAK the ice
    BREAK
    a lighthouse at night, bulb exposure (30 s)
    1girl, ^_^, :3, ;), >_<, (o)_(o), |_|, <o>_<o>, \\m/
    hatsune miku (vocaloid), solo
    hatsune_miku_\\(vocaloid\\), 1girl
    a dog (brown) and a cat [left]
    nan bread on a plate
    a grandmother, Nan, in her garden
    none of them smiles
    a todo list on a fridge
    a plain null space
    a man says "I'm sorry" to a woman
    a neon sign: I can't help myself
    a robot with AI on its chest
    here is a dog on the beach
    a poster of an ai assistant
    {a} letter in braces
    [left] a red car [right] a blue car
    a unknown man
    a text on a wall
    a test tube
    it is 7:30 (morning), fog
    two cats (a big one (black) and a small one)
    score_9, score_8_up, rating_safe, 1girl
    a jar labelled no caption, glass
    C++ (2nd edition) on a shelf
    (parentheses)
    $5 {special} offer
"""


def lines(text):
    text = text.replace("`", "\u2019")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("look", LEFT, ids=lambda look: look.__name__)
def test_each_kind_is_found(look):
    assert [text for text in lines(LEFT[look]) if not look(text)] == []


def test_a_fence_and_unpaired_brackets():
    assert code("```json\n{}") and unbalanced("a dog (brown") == "()" and unbalanced('a "dog') == '"'
    assert [unbalanced(text) for text in ("1) a dog 2) a cat", "a dog :(", 'a 5" nail', "(a) (b))")] == [
        "",
        "",
        "",
        "()",
    ]


def test_ordinary_text_is_not_found():
    looks = (*LEFT, markup, unbalanced)
    assert [(look.__name__, text, look(text)) for text in lines(ORDINARY) for look in looks if look(text)] == []
