"""Captions: the column that holds them, the trigger word in front, tags shuffled and dropped, and what is cut off."""

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .words.chunks import BACK, Chunks
from .words.tags import cleaned, joined
from .words.trigger import calls, folded, with_trigger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizer


class LongCaption(NamedTuple):
    """A caption that a tokenizer cuts: its index, its length in tokens (start and end included), the text lost."""

    index: int  # type: ignore[assignment]  # the field hides tuple's method
    tokens: int
    cut: str


def require_column(name: str, columns: Collection[str], flag: str, source: str) -> str:
    """`name` if it is one of `columns`, else a DataError that names them and the flag."""
    if name in columns:
        return name
    listed = ", ".join(str(column) for column in columns) or "none"
    raise DataError(f"{source} has no column '{name}' (its columns: {listed}): name the right one with {flag}.")


def alternatives(value: Any) -> list[str]:
    """The captions in one cell: a text, or a list of texts that say the same; blank ones of several are left out.

    Raises TypeError for anything else.
    """
    if isinstance(value, str):
        return [value]
    texts = value if isinstance(value, list | tuple) else [value]
    texts = [text for text in texts if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(type(next(text for text in texts if not isinstance(text, str))).__name__)
    return [text for text in texts if text.strip()] or texts[:1]


def surrounded(caption: str, config: TrainConfig) -> str:
    """The caption between the prefix and the suffix of all captions."""
    return " ".join(text for text in (config.caption_prefix, caption, config.caption_suffix) if text)


def dressed(caption: str | None, config: TrainConfig, trigger_word: str | None) -> str | None:
    """A caption as it is trained on: tags cleaned if that is asked for, trigger word, prefix and suffix.

    A missing caption (None) becomes the trigger word, if there is one.
    """
    if caption is None and not trigger_word:
        return None
    text = cleaned(caption or "", config.caption_separator, trigger_word) if config.clean_tags else caption or ""
    led = text if calls(surrounded("", config), trigger_word) else with_trigger(text, trigger_word)
    whole = surrounded(led, config)
    return whole if config.varies_captions() else unmarked(whole, config)


def parted(caption: str, config: TrainConfig) -> tuple[str, str, str]:
    """(prefix, caption, suffix) of what `surrounded` gave, each blank with what it was put for."""
    before, after = (config.caption_prefix or "") and f"{config.caption_prefix} ", (config.caption_suffix or "")
    after = after and f" {after}"
    if not before and not after:
        return "", caption, ""
    if caption == surrounded("", config):
        return caption, "", ""
    return before, caption.removeprefix(before).removesuffix(after), after


def is_alone(caption: str, trigger_word: str) -> bool:
    """Whether a caption says nothing but the trigger word."""
    return len(caption) < len(trigger_word) + 9 and folded(caption).strip(" ,.") == folded(trigger_word).strip(" ,.")


def varied(caption: str, config: TrainConfig, generator: np.random.Generator) -> str:
    """The caption as one step sees it: tags shuffled and dropped as `config` says, chosen by a numpy generator.

    The first keep_tokens tags stay where they are, or those before keep_tokens_separator and after its second place.
    So does a leading trigger word, and no tag with it is dropped, nor the prefix and the suffix of all captions.
    """
    before, inner, after = parted(caption, config)
    front, free, last = sections(inner, config)
    drawn, rate = generator.random(len(front) + len(free))[len(front) :], config.caption_tag_dropout_rate
    rest = [tag for tag, chance in zip(free, drawn, strict=True) if calls(tag, config.trigger_word) or chance >= rate]
    if config.shuffle_caption:
        rest = [rest[at] for at in generator.permutation(len(rest))]
    left = joined([*front, *rest, *last], config.caption_separator)
    return unmarked(before + left + after, config) if left else f"{before.strip()}{after}".strip()


def sections(caption: str, config: TrainConfig) -> tuple[list[str], list[str], list[str]]:
    """(tags that stay in front, tags that may move or be dropped, tags that stay behind)."""
    mark, separator = config.keep_tokens_separator, config.caption_separator
    parts = caption.split(mark, 2) if mark else [caption]
    front, *others = ([tag for tag in map(str.strip, part.split(separator)) if tag] for part in parts)
    if others:
        return front, others[0], [tag for part in others[1:] for tag in part]
    kept = max(config.keep_tokens, leading(front, config))
    return front[:kept], front[kept:], []


def unmarked(caption: str, config: TrainConfig) -> str:
    """The caption without keep_tokens_separator, its tags in their order."""
    if not config.keep_tokens_separator or config.keep_tokens_separator not in caption:
        return caption
    return joined([tag for part in sections(caption, config) for tag in part], config.caption_separator)


def leading(tags: Sequence[str], config: TrainConfig) -> int:
    """How many of the first tags are the trigger word, which may hold the separator itself."""
    if tags and calls(tags[0], config.trigger_word):
        return 1
    word = [
        tag for tag in map(str.strip, folded(config.trigger_word or "").split(folded(config.caption_separator))) if tag
    ]
    return len(word) if word and [folded(tag) for tag in tags[: len(word)]] == word else 0


def long_captions(
    captions: Sequence[str],
    tokenizers: "Sequence[PreTrainedTokenizer]",
    progress: Callable[[int, int], None] | None = None,
    portion: int = 4096,
    chunks: int = 1,
) -> list[LongCaption]:
    """LongCaptions in order of index: what has no place in so many chunks of any of the tokenizers.

    A caption that several of them cut is reported once, with the longest count. Captions that are too short to be cut
    (a token takes a byte at least) are not tokenized. `progress(done, total)` is called after each portion.
    """
    found: dict[int, LongCaption] = {}
    cutters = [Chunks(tokenizer, chunks) for tokenizer in tokenizers]
    limit = min(cutter.size for cutter in cutters) * chunks - BACK * (chunks - 1)  # chunks may end before they are full
    numbered, done = iter(enumerate(captions)), 0
    while read := list(islice(numbered, portion)):
        doubtful = [(index, caption) for index, caption in read if len(caption.encode(errors="replace")) > limit]
        for cutter in cutters if doubtful else ():
            _note_long(found, cutter, doubtful)
        done += len(read)
        if progress:
            progress(done, len(captions))
    return [found[index] for index in sorted(found)]


def _note_long(found: dict[int, LongCaption], cutter: Chunks, numbered: Sequence[tuple[int, str]]) -> None:
    every = cutter.tokens([caption for _, caption in numbered])
    for (index, _), ids in zip(numbered, every, strict=True):
        lost = cutter.cut(ids)[1]
        if lost and (index not in found or len(ids) + 2 > found[index].tokens):
            found[index] = LongCaption(index, len(ids) + 2, cutter.tokenizer.decode(lost).strip())
