"""Captions: the column that holds them, the trigger word in front, tags shuffled and dropped, and what is cut off."""

from collections.abc import Callable, Collection, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..config.train_config import TrainConfig
from ..system.errors import DataError

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


def with_trigger(caption: str, trigger_word: str | None) -> str:
    """The caption with the trigger word in front, unless it is in it already."""
    if not trigger_word or trigger_word.lower() in caption.lower():
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word


def is_alone(caption: str, trigger_word: str) -> bool:
    """Whether a caption says nothing but the trigger word."""
    return len(caption) < len(trigger_word) + 4 and caption.strip(" ,.").lower() == trigger_word.strip(" ,.").lower()


def varied(caption: str, config: TrainConfig, generator: np.random.Generator) -> str:
    """The caption as one step sees it: tags shuffled and dropped as `config` says, chosen by a numpy generator.

    The first keep_tokens tags stay where they are. So does a leading trigger word, and no tag with it is dropped.
    """
    separator, trigger = config.caption_separator, (config.trigger_word or "").lower()
    tags = [tag for tag in map(str.strip, caption.split(separator)) if tag]
    calls = [bool(trigger) and trigger in tag.lower() for tag in tags]
    kept = max(config.keep_tokens, 1 if calls and calls[0] else 0)
    drawn = generator.random(len(tags))
    spared = range(kept, len(tags))
    rest = [tags[at] for at in spared if calls[at] or drawn[at] >= config.caption_tag_dropout_rate]
    if config.shuffle_caption:
        rest = [rest[at] for at in generator.permutation(len(rest))]
    glue = f"{separator.strip()} " if separator.strip() else separator
    return glue.join([*tags[:kept], *rest])


def long_captions(
    captions: Sequence[str],
    tokenizers: "Sequence[PreTrainedTokenizer]",
    progress: Callable[[int, int], None] | None = None,
    portion: int = 4096,
) -> list[LongCaption]:
    """LongCaptions in order of index: what lies beyond `tokenizer.model_max_length` of any of the tokenizers.

    A caption that several of them cut is reported once, with the longest count. Captions that are too short to be cut
    (a token takes a byte at least) are not tokenized. `progress(done, total)` is called after each portion.
    """
    found: dict[int, LongCaption] = {}
    limit = min(tokenizer.model_max_length for tokenizer in tokenizers)
    numbered, done = iter(enumerate(captions)), 0
    while read := list(islice(numbered, portion)):
        doubtful = [(index, caption) for index, caption in read if len(caption.encode(errors="replace")) > limit - 2]
        for tokenizer in tokenizers if doubtful else ():
            _note_long(found, tokenizer, doubtful)
        done += len(read)
        if progress:
            progress(done, len(captions))
    return [found[index] for index in sorted(found)]


def _note_long(
    found: dict[int, LongCaption], tokenizer: "PreTrainedTokenizer", numbered: Sequence[tuple[int, str]]
) -> None:
    limit = tokenizer.model_max_length
    every = tokenizer([caption for _, caption in numbered], truncation=False, verbose=False)["input_ids"]
    for (index, _), ids in zip(numbered, every, strict=True):
        if len(ids) > limit and (index not in found or len(ids) > found[index].tokens):
            # The end token takes the last of the places, so limit - 1 tokens are kept before it.
            found[index] = LongCaption(index, len(ids), tokenizer.decode(ids[limit - 1 : -1]).strip())
