"""Tags as booru sites write them, made into words: hatsune_miku_\\(vocaloid\\) becomes hatsune miku (vocaloid).

In: a caption. Out: the caption with blanks for underscores and without backslashes before brackets. Emoticons such as
^_^ and the tags that Pony Diffusion was trained with (score_9) stay, as the field's own cleaners leave them.
"""

import re
from collections.abc import Sequence

from .trigger import calls

PONY = re.compile(r"score_\d(?:_up)?|source_(?:anime|pony|furry|cartoon)|rating_(?:safe|questionable|explicit)", re.I)
ESCAPED = re.compile(r"\\([()\[\]{}])")


def cleaned(caption: str, separator: str = ",", keep: str | None = None) -> str:
    """The caption with its tags as words; those with the word `keep` in them stay as they are."""
    if "_" not in caption and "\\" not in caption:
        return caption
    parts = caption.split(separator) if separator.strip() else [caption]
    return separator.join(part if calls(part, keep) else _words(part) for part in parts)


def _words(tag: str) -> str:
    words = ESCAPED.sub(r"\1", tag).split(" ")
    return " ".join(word if is_sign(word) else word.replace("_", " ").strip(" ") for word in words)


def is_sign(word: str) -> bool:
    """Whether underscores belong to a word: of emoticons (^_^, 0_0, (o)_(o)), Pony's tags and addresses."""
    return bool(PONY.fullmatch(word) or "://" in word or all(_count(part) <= 1 for part in word.split("_")))


def _count(part: str) -> int:
    return sum(map(str.isalnum, part))


def joined(tags: Sequence[str], separator: str) -> str:
    """One caption of these tags, as `captions.varied` writes it."""
    glue = f"{separator.strip()} " if separator.strip() else separator
    return glue.join(tag for tag in tags if tag)
