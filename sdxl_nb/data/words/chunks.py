"""Captions longer than a text encoder takes, cut into chunks as AUTOMATIC1111 and ComfyUI cut prompts.

In: a tokenizer, captions, and how many chunks there may be. Out: tokens for as many passes through the encoder, each
with a start, an end and padding of its own, so that drawing sees what training saw.
"""

from collections.abc import Callable, Sequence
from typing import Any

BACK = 20  # tokens before the end of a chunk in which a comma ends it, as A1111's comma_padding_backtrack


class Chunks:
    """One tokenizer, and up to `most` chunks of the tokens that its encoder takes at once."""

    def __init__(self, tokenizer: Any, most: int = 1):
        self.tokenizer, self.most = tokenizer, most
        self.size = tokenizer.model_max_length - 2  # beside start and end

    @property
    def limit(self) -> int:
        """How many tokens may have their place, one start and end counted, as tokenizers count."""
        return int(self.most * self.size + 2)

    def tokens(self, captions: Sequence[str]) -> list[list[int]]:
        """All tokens of each caption, without start and end."""
        read = self.tokenizer(list(captions), truncation=False, verbose=False)
        return [ids[1:-1] for ids in read["input_ids"]]

    def cut(self, tokens: list[int]) -> tuple[list[list[int]], list[int]]:
        """(chunks, the tokens for which there is no place); no caption makes one empty chunk."""
        chunks, rest = [tokens[: self.size]], tokens[self.size :]
        if self.most > 1 and rest:
            chunks, rest = [], tokens
            while rest and len(chunks) < self.most - 1:
                end = self._end(rest)
                chunks.append(rest[:end])
                rest = rest[end:]
            if rest:  # the last one is filled: there is none after it
                chunks.append(rest[: self.size])
                rest = rest[self.size :]
        return chunks, rest

    def _end(self, rest: list[int]) -> int:
        """Where a chunk ends: after its last comma if that is near its end, else after its last whole word."""
        if len(rest) <= self.size:
            return len(rest)
        words = self.tokenizer.convert_ids_to_tokens(rest[: self.size])
        near = range(self.size - 1, max(0, self.size - 1 - BACK), -1)
        ends: tuple[Callable[[str], bool], ...] = (lambda word: word == ",</w>", lambda word: word.endswith("</w>"))
        return next((at + 1 for is_end in ends for at in near if is_end(words[at])), self.size)

    def rows(self, captions: Sequence[str]) -> list[list[int]]:
        """For each caption `most` rows of the encoder's length: start, tokens, end, padding."""
        first, last, pad = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
        rows = []
        for tokens in self.tokens(captions):
            chunks, _ = self.cut(tokens)
            for chunk in [*chunks, *[[]] * (self.most - len(chunks))]:
                rows.append([first, *chunk, last, *[pad] * (self.size - len(chunk))])
        return rows
