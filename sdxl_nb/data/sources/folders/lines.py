"""What the lines of a caption file are: tags, one a line; captions, one a line; or one caption, wrapped.

In: texts whose lines are still apart (`lined`). Out: captions, further captions, and a sentence that says how they were
read. The content of all texts decides, once for a data set; the setting caption_lines overrules it.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc

from ....config.train_config import TrainConfig
from ...words.tags import joined
from ..listing import CaptionColumn, Texts

Kind = Literal["tags", "captions", "join", "first"]
BREAKS = re.compile(r"\r\n|[\n\r\u2028\u2029]")
ENDS = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]*]*$")  # of a sentence
RUNS_ON = re.compile(
    r"(?:[,;:(\u2013-]|\b(?:an?|the|of|in|on|at|to|and|or|with|is|are|by|for|from|that|which|its))$", re.I
)
ARTICLE = re.compile(r"(?:an?|the|this|there|two|three|several|some)\s", re.I)
LISTED = re.compile(r"(?:[-*\u2022]|\d{1,2}[.)])\s+")  # what begins the lines of a list
NAMESPACED = re.compile(r"[a-z_]+:\S")  # Hydrus: series:the tale of a cat
TAG_WORDS = 3.0  # words of a tag, on average
WRAPPED = 40  # characters of the longest line: nobody wraps narrower
TOLD = {
    "tags": "each line is a tag, and the lines are joined by the separator",
    "captions": "each line is a caption of its own",
    "join": "the lines are one text that was wrapped, and are joined by a blank",
    "first": "the first line is used",
}


def lined(text: str) -> str:
    """A text with single blanks, its lines apart; an empty line stays as one between paragraphs."""
    text = text.strip()
    if "\n" not in text and "\r" not in text and "\u2028" not in text and "\u2029" not in text:
        return " ".join(text.split())
    lines = [" ".join(line.split()) for line in BREAKS.split(text)]
    return "\n".join(line for line, before in zip(lines, ["", *lines], strict=False) if line or before).strip()


class Captions(NamedTuple):
    """Columns as a Listing has them, and remarks."""

    captions: pa.Array
    further: pa.Array | None
    notes: list[str]


def settled(texts: pa.Array, config: TrainConfig, further: pa.Array | None = None) -> Captions:
    """The captions of texts (null: none) that `lined` made; `further` ones of other files stay after them."""
    several = pc.match_substring(texts, "\n")  # null where there is no text, which neither `any` nor `filter` takes
    if not pc.any(several).as_py():
        return Captions(texts, further, [])
    asked = config.caption_lines
    kind, note = judged(texts.filter(several).to_pylist(), config.caption_separator)
    if asked != "auto":
        kind, note = asked, ""
    column = CaptionColumn()
    others: Sequence[Any] = [[]] * len(texts) if further is None else Texts(further)
    for text, more in zip(Texts[str | None](texts), others, strict=True):
        column.append([] if text is None else [*split(text, kind, config.caption_separator), *more])
    captions, further = column.finish()
    return Captions(captions, further, [note] if note else [])


def split(text: str, kind: Kind, separator: str) -> list[str]:
    """The captions in a text of one or more lines."""
    if "\n" not in text:
        return [text]
    lines = plain(text)
    if kind == "captions":
        return list(dict.fromkeys(lines))
    if kind == "first":
        return lines[:1]
    if kind == "join":
        return [" ".join(lines)]
    mark = separator.strip()
    tags = [tag.strip() for line in lines for tag in (line.split(mark) if mark else [line])]
    return [joined(list(dict.fromkeys(tags)), separator)]


def plain(text: str) -> list[str]:
    """The lines that are not empty, without the dashes or numbers of a list."""
    lines = [line for line in text.split("\n") if line]
    if len(lines) > 1 and all(LISTED.match(line) for line in lines):
        lines = [LISTED.sub("", line, count=1) for line in lines]
    return lines


def judged(texts: Sequence[str], separator: str) -> tuple[Kind, str]:
    """What the lines of these texts are, and the sentence that says so. The kind that most texts are of wins."""
    width = wrapped_at(texts)
    counted = Counter(kind_of(text, separator, width) for text in texts)
    kind: Kind = counted.most_common(1)[0][0]
    count = f"{len(texts)} caption files have" if len(texts) > 1 else "1 caption file has"
    but = f" ({len(texts) - counted[kind]} of them look otherwise)" if counted[kind] < len(texts) else ""
    others = " or ".join(other for other in get_args(Kind) if other != kind)
    return kind, f"{count} several lines: {TOLD[kind]}{but}; --caption_lines {others} reads them otherwise."


def kind_of(text: str, separator: str, width: int) -> Kind:
    """What the lines of one text are; `width` is where all texts are wrapped, 0 if they are not."""
    lines, mark = plain(text), separator.strip()
    items = [[item for item in map(str.strip, line.split(mark) if mark else [line]) if item] for line in lines]
    if are_tags(lines, items):
        return "captions" if repeat_themselves(items) else "tags"
    if is_wrapped(text, width) or is_essay(text):
        return "join"
    return "captions"


def are_tags(lines: Sequence[str], items: Sequence[Sequence[str]]) -> bool:
    """Whether lines are tags or lists of tags: few words each, no sentences."""
    every = [item for line in items for item in line]
    if not every or sum(bool(ENDS.search(line)) for line in lines) * 2 > len(lines):
        return False
    words = [1 if NAMESPACED.match(item) else len(item.split()) for item in every]
    if any(ENDS.search(line) and len(line.split()) > 3 for line in lines):
        return False
    told = [bool(ARTICLE.match(item)) * count for item, count in zip(every, words, strict=True)]
    return sum(words) / len(words) <= TAG_WORDS and max(told) < 6 and sum(count > 2 for count in told) * 3 <= len(told)


def repeat_themselves(items: Sequence[Sequence[str]]) -> bool:
    """Whether lines say the same in other words: a picture has a tag once, so that lists which share tags are several.

    Lines of one tag each are no lists.
    """
    sets = [{item.lower() for item in line} for line in items]
    if max(map(len, sets)) < 2:
        return False
    shared = [len(one & other) / min(len(one), len(other)) for one, other in pairwise(sets) if one and other]
    return bool(shared) and sum(shared) / len(shared) >= 1 / 3


def breaks(text: str) -> list[tuple[str, str]]:
    """The line before and the line after each place where a paragraph goes on in the next line."""
    return [pair for block in text.split("\n\n") for pair in pairwise(block.split("\n"))]


def wrapped_at(texts: Iterable[str]) -> int:
    """The width that lines were wrapped at, 0 where they were not: the next word had no room in any of them."""
    broken = [pair for text in texts for pair in breaks(text)]
    width = max((max(len(line), len(after)) for line, after in broken), default=0)
    full = sum(len(line) + 1 + len(after.split(" ")[0]) > width for line, after in broken)
    return width if width >= WRAPPED and len(broken) > 2 and full * 20 >= len(broken) * 19 else 0


def is_wrapped(text: str, width: int) -> bool:
    """Whether sentences run on from line to line: by their words, or because all lines are full."""
    broken = breaks(text)
    ends = sum(bool(ENDS.search(line)) for line, _ in broken)
    capital = text[:1].isupper()  # else small letters say nothing
    on = sum(
        bool(RUNS_ON.search(line)) or (capital and after[:1].islower() and not ENDS.search(line))
        for line, after in broken
    )
    return ends * 2 <= len(broken) and bool(broken) and (on * 2 > len(broken) or width > 0)


def is_essay(text: str) -> bool:
    """Whether paragraphs of several sentences each make one long description, as captioning models write it."""
    blocks = [" ".join(block.split("\n")) for block in text.split("\n\n")]
    sentences = [len(re.findall(r"[.!?]['\"]?(?:\s|$)", block)) for block in blocks]
    return len(blocks) > 1 and sum(sentences) >= 2 * len(blocks)
