"""Lines of caption files: tags, captions of their own, or one wrapped text; decided by content, told, overruled."""

import textwrap

import pytest

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.sources.folders.lines import lined, settled
from sdxl_nb.data.sources.listing import text_column

ESSAY = (
    "The picture shows a lighthouse on a rock in front of a wide bay. It is painted in red and white stripes, and at "
    "its foot there are some small houses with blue roofs, behind which one sees a garden."
)
WRAPPED = {width: textwrap.fill(ESSAY, width) for width in (40, 60, 79)}
LOWER = textwrap.fill(ESSAY.lower().replace(".", ","), 50)
TAGS = {
    "gallery-dl": "1girl\nsolo\nlong_hair\n",
    "Hydrus": "character:hatsune miku\nseries:vocaloid\nlong hair\ntitle:the song of a bird in the rain\n",
    "Windows": "1girl\r\nsolo\r\nlong_hair",
    "old Mac": "1girl\rsolo",
    "lists": "1girl, solo\nlong hair, blue eyes, hat",
    "a list that was wrapped": "1girl, solo, long hair,\nblue eyes, hat,\nsitting",
    "a tagger's groups": "rating:safe\n1girl, solo\nhatsune miku",
    "bullets": "- 1girl\n- solo\n- hat",
}
CAPTIONS = {
    "sentences": "A dog sleeps on the sofa.\nA brown dog is lying down.\nSomeone's dog, asleep.",
    "COCO": "a dog sleeping on a sofa\na brown dog lying on a red couch in a room\nthe dog is asleep",
    "BLIP": "dog sleeping on the old sofa\nbrown dog lying down on a couch",
    "numbered": "1. A dog sleeps on the sofa.\n2. A brown dog is lying down.",
    "words and tags": "A girl with long hair sits on a bench.\n1girl, solo, long hair",
    "tags and words": "1girl, solo\nA girl with long hair is standing.",
    "variants of a list": "1girl, solo, hat, red\n1girl, solo, hat, on a chair",
    "paragraphs": "A dog sleeps on the sofa.\n\nA brown dog is lying down.",
}
ONE = {f"wrapped at {width}": text for width, text in WRAPPED.items()}
ONE |= {"small letters": LOWER, "paragraphs of a model": f"{ESSAY}\n\n{ESSAY.replace('lighthouse', 'tower')}"}


def read(*texts, **settings):
    return settled(text_column(lined(text) for text in texts), TrainConfig(seed=0, **settings))


def every(found, index=0):
    return [found.captions[index].as_py(), *(found.further[index].as_py() if found.further is not None else [])]


@pytest.mark.parametrize("program", TAGS)
def test_a_tag_a_line(program):
    found = read(TAGS[program], "a cat")
    (caption,) = every(found)
    assert caption.count(",") >= 1 and "\n" not in caption and ",," not in caption.replace(" ", "")
    assert found.captions[1].as_py() == "a cat" and "each line is a tag" in found.notes[0]


def test_what_tags_become():
    texts = [lined(text) for text in TAGS.values()]
    found = settled(text_column(texts), TrainConfig(seed=0))
    assert found.captions.to_pylist()[:2] == [
        "1girl, solo, long_hair",
        "character:hatsune miku, series:vocaloid, long hair, title:the song of a bird in the rain",
    ]
    assert found.captions[5].as_py() == "1girl, solo, long hair, blue eyes, hat, sitting"
    assert found.captions[7].as_py() == "1girl, solo, hat" and found.further is None
    assert read(TAGS["gallery-dl"], caption_separator=";").captions.to_pylist() == ["1girl; solo; long_hair"]


@pytest.mark.parametrize("kind", CAPTIONS)
def test_a_caption_a_line(kind):
    found = read(CAPTIONS[kind])
    assert len(every(found)) == len([line for line in CAPTIONS[kind].split("\n") if line])
    assert "each line is a caption of its own" in found.notes[0] and "--caption_lines tags or join" in found.notes[0]


@pytest.mark.parametrize("kind", ONE)
def test_one_text_that_was_wrapped(kind):
    found = read(ONE[kind])
    assert every(found) == [" ".join(ONE[kind].split())] and "was wrapped" in found.notes[0]


def test_most_files_of_a_set_decide_and_the_others_are_counted():
    found = read(TAGS["gallery-dl"], TAGS["Hydrus"], CAPTIONS["sentences"], "one line", "")
    assert "3 caption files have several lines" in found.notes[0] and "(1 of them look otherwise)" in found.notes[0]
    assert found.further is None and found.captions[4].as_py() == ""


def test_a_setting_overrules():
    text = "1girl\nsolo\n"
    asked = {kind: read(text, caption_lines=kind) for kind in ("tags", "captions", "join", "first")}
    assert {kind: every(found) for kind, found in asked.items()} == {
        "tags": ["1girl, solo"],
        "captions": ["1girl", "solo"],
        "join": ["1girl solo"],
        "first": ["1girl"],
    }
    assert all(found.notes == [] for found in asked.values())


def test_texts_of_one_line_are_as_they_were():
    texts = ["a cat", " a  cat\n\n", "\ta\u00a0cat ", None, ""]
    found = settled(text_column(text and lined(text) for text in texts), TrainConfig(seed=0))
    assert found.captions.to_pylist() == [text and " ".join(text.split()) for text in texts] and not found.notes
