"""JSON files beside pictures, as gallery-dl, Danbooru's exports and captioning programs write them: a.json, a.jpg.json.

In: the text of such a file. Out: the captions in it: a description in words, else its tags.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...config.train_config import TrainConfig
from ..decoding import is_text
from .tags import joined

SAID = ("caption", "captions", "text", "prompt", "description", "alt_text", "alt")  # words, the first that is there
TAGS = ("tags", "tag_string", "tag_list", "keywords")
GROUPS = ("artist", "copyright", "character", "species", "general", "meta")  # e621's and Danbooru's, as they show them
LAST = ("content", "title")


def captions_of(said: Any, config: TrainConfig) -> list[str]:
    """The captions in what a file says, perhaps none."""
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    if not isinstance(said, Mapping):
        return [text for text in said if _usable(text)] if isinstance(said, list) else []
    for key in (config.columns()[1], *SAID):
        if found := _words(said.get(key)):
            return found
    tags = list(_tags(said))
    if tags:
        return [joined(list(dict.fromkeys(tags)), config.caption_separator)]
    return next((found for key in LAST if (found := _words(said.get(key)))), [])


def read(text: str, config: TrainConfig) -> list[str]:
    """The captions in the text of a JSON file. Raises ValueError for what is not JSON."""
    try:
        return captions_of(json.loads(text), config)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _usable(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip()) and is_text(text)


def _words(value: Any) -> list[str]:
    if isinstance(value, Mapping):  # Flickr's {"_content": "..."}
        value = value.get("_content")
    values = value if isinstance(value, list) else [value]
    return [" ".join(text.split()) for text in values if _usable(text)]


def _tags(said: Mapping[str, Any]) -> Iterator[str]:
    """The tags: a list, a text with blanks between (tags have underscores then) or commas, or groups of either."""
    for key in TAGS:
        if tags := list(_each(said.get(key))):
            yield from tags
            return
    for group in GROUPS:
        yield from _each(said.get(f"tags_{group}") or said.get(f"tag_string_{group}"))


def _each(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        ordered = [*(group for group in GROUPS if group in value), *(key for key in value if key not in GROUPS)]
        for group in ordered:
            yield from _each(value[group])
    elif isinstance(value, list):
        for tag in value:
            tag = tag.get("name") or tag.get("tag") if isinstance(tag, Mapping) else tag
            if isinstance(tag, str) and _usable(tag):
                yield " ".join(tag.split())
    elif isinstance(value, str) and is_text(value):
        yield from (tag.strip() for tag in (value.split(",") if "," in value else value.split()) if tag.strip())
