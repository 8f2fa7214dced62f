"""Captions: the column that holds them, the trigger word in front, and what the tokenizers would cut off."""

from typing import NamedTuple

from .errors import DataError


class LongCaption(NamedTuple):
    """A caption that a tokenizer cuts: its index, its length in tokens (start and end included), the text lost."""

    index: int
    tokens: int
    cut: str


def require_column(name, columns, flag, source):
    """`name` if it is one of `columns`, else a DataError that names them and the flag."""
    if name in columns:
        return name
    listed = ", ".join(str(column) for column in columns) or "none"
    raise DataError(f"{source} has no column '{name}' (its columns: {listed}): name the right one with {flag}.")


def with_trigger(caption, trigger_word):
    """The caption with the trigger word in front, unless it is in it already."""
    if not trigger_word or trigger_word.lower() in caption.lower():
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word


def long_captions(captions, tokenizers):
    """LongCaptions in order of index: what lies beyond `tokenizer.model_max_length` of any of the tokenizers.

    A caption that several of them cut is reported once, with the longest count.
    """
    found = {}
    for tokenizer in tokenizers:
        limit = tokenizer.model_max_length
        for index, ids in enumerate(tokenizer(list(captions), truncation=False, verbose=False)["input_ids"]):
            if len(ids) > limit and (index not in found or len(ids) > found[index].tokens):
                # The end token takes the last of the places, so limit - 1 tokens are kept before it.
                found[index] = LongCaption(index, len(ids), tokenizer.decode(ids[limit - 1 : -1]).strip())
    return [found[index] for index in sorted(found)]
