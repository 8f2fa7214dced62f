"""Captions as SDXL's U-Net wants them: the penultimate hidden states of both text encoders, and a pooled embedding.

SDXL paper (arXiv 2307.01952), section 2.1. An empty caption is all zeros where the base's pipeline makes it that
(`force_zeros_for_empty_prompt`), so that training without a caption and guidance away from none are the same thing.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.words.chunks import Chunks
from ..system.errors import ConfigError, SdxlNbError
from ..system.keys import key_of
from ..system.threads import Group, share_out
from ..system.transfer import sent
from .shards import KEY, Store, Writer

Progress = Callable[[int, int], None]


class Prompt(NamedTuple):
    """`hidden` (N, tokens, width of both encoders) and `pooled` (N, width of the second)."""

    hidden: torch.Tensor
    pooled: torch.Tensor


def refuse_too_deep(clip_skip: int, layers: Iterable[int]) -> None:
    """Raise ConfigError where one of the text encoders, of so many layers each, has no such layer."""
    fewest = min(layers)
    if clip_skip > fewest:
        raise ConfigError(f"clip_skip {clip_skip} is more than the {fewest} layers of a text encoder: lower it")


class TextEncoders:
    """Both tokenizers and encoders; `encode(captions)` keeps gradients where the encoders have any to keep."""

    def __init__(
        self,
        tokenizers: Sequence[Any],
        encoders: Sequence[Any],
        *,
        zeros_for_empty: bool = True,
        chunks: int = 1,
        clip_skip: int = 2,
    ):
        self.tokenizers, self.encoders = tuple(tokenizers), tuple(encoders)
        self.zeros_for_empty, self.chunks, self.clip_skip = zeros_for_empty, chunks, clip_skip
        refuse_too_deep(clip_skip, (encoder.config.num_hidden_layers for encoder in self.encoders))

    def encode(self, captions: Sequence[str]) -> Prompt:
        """One Prompt for a batch of captions; longer ones than `chunks` of the tokenizers' lengths are cut.

        Each chunk is encoded by itself, and what they are is put side by side; pooled is that of the first, at the
        last layer whatever `clip_skip` says.
        """
        hidden = []
        for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True):
            device = next(encoder.parameters()).device
            ids = torch.tensor(Chunks(tokenizer, self.chunks).rows(captions))
            out = encoder(sent(ids, device), output_hidden_states=True)
            last = out.hidden_states[-self.clip_skip]
            hidden.append(last.reshape(len(captions), -1, last.shape[-1]))
        pooled = out.text_embeds[:: self.chunks]  # the second one's
        if not self.zeros_for_empty:
            return Prompt(torch.cat(hidden, dim=-1), pooled)
        filled = sent(torch.tensor([bool(caption) for caption in captions]), pooled.device)
        return Prompt(torch.cat(hidden, dim=-1) * filled[:, None, None], pooled * filled[:, None])

    __call__ = encode

    def cut(self, captions: Sequence[str]) -> list[int]:
        """How many tokens of each caption lie beyond what the tokenizers take."""
        beyond = np.zeros(len(captions), dtype=np.int64)
        for tokenizer in self.tokenizers:
            chunks = Chunks(tokenizer, self.chunks)
            beyond = np.maximum(beyond, [len(chunks.cut(each)[1]) for each in chunks.tokens(captions)])
        return beyond.tolist()


class EmbeddedPrompts:
    """The embeddings of known captions, from a Store; a call looks them up, `fill` adds what lacks.

    `captions` are those of the pictures, `others` any more. A caption's key tells its text.
    """

    def __init__(self, captions: Sequence[str], others: Sequence[str], store: Store):
        self.captions, self.others, self.store = captions, list(others), store
        count = len(self.captions) + len(self.others)
        self.keys = np.fromiter(map(key_of, chain(self.others, self.captions)), KEY, count)
        self.places = store.find(self.keys)
        self.computed = 0  # captions that `fill` embedded

    def fill(
        self,
        load_encoders: Callable[[], TextEncoders],
        progress: Progress | None = None,
        processes: Group | None = None,
        batch: int = 8,
    ) -> None:
        """Embed what is not in the store; `load_encoders()` is called only when something is. Raises SdxlNbError."""
        _, first = np.unique(self.keys, return_index=True)
        numbers = np.sort(first)

        def work(share: range) -> None:
            mine = numbers[share.start : share.stop : share.step]
            self.store.refresh()
            mine = mine[self.places[mine] < 0]  # what was here once is not looked for again
            mine = mine[self.store.find(self.keys[mine]) < 0]
            if len(mine):
                self._fill(mine, load_encoders(), batch, progress, len(share))

        share_out(len(numbers), work, processes)
        lacking = np.flatnonzero(self.places < 0)
        self.places[lacking] = self.store.find(self.keys[lacking])
        if (self.places < 0).any():
            raise SdxlNbError(f"The cache folder {self.store.folder} lost files while it was used: start again.")

    def forget_keys(self) -> None:
        """Give back what only `fill` needs."""
        self.keys = self.keys[:0].copy()

    @torch.no_grad()
    def _fill(
        self, mine: np.ndarray, encoders: TextEncoders, batch: int, progress: Progress | None, total: int
    ) -> None:
        with self.store.writer() as writer:
            for first in range(0, len(mine), batch):
                self._embed(mine[first : first + batch].tolist(), encoders, batch, writer, len(mine))
                if progress:
                    progress(total - len(mine) + min(first + batch, len(mine)), total)

    def _embed(self, numbers: list[int], encoders: TextEncoders, batch: int, writer: Writer, count: int) -> None:
        self.store.refresh()
        numbers = [n for n in numbers if self.store.find(self.keys[n : n + 1])[0] < 0]  # another run may be as far
        if not numbers:
            return
        texts = [self._text(number) for number in numbers]
        # always as many at once, so that no embedding depends on what was encoded beside it
        hidden, pooled = (t.cpu() for t in encoders.encode(texts + texts[-1:] * (batch - len(texts))))
        if not self.computed:
            self.store.refuse_to_fill(count * (hidden[0].nbytes + pooled[0].nbytes + 20))
        cut = torch.tensor(encoders.cut(texts), dtype=torch.int32)
        for at, number in enumerate(numbers):
            key = bytes(self.keys[number]).ljust(16, b"\0")
            writer.add(key, hidden=hidden[at], pooled=pooled[at], cut=cut[at : at + 1])
        self.computed += len(numbers)

    def _text(self, number: int) -> str:
        return self.others[number] if number < len(self.others) else self.captions[number - len(self.others)]

    def cut(self) -> np.ndarray:
        """The pictures whose captions are longer than the tokenizers take."""
        own = self.places[len(self.others) :]
        if not len(own):
            return own
        different = np.unique(own)
        cut = different[self.store.column(different, "cut").view(np.int32).ravel() > 0]
        return np.flatnonzero(np.isin(own, cut)) if len(cut) else np.empty(0, np.int64)

    def __len__(self) -> int:
        """The number of different captions."""
        return len(np.unique(self.places))

    def __call__(self, captions: Sequence[str]) -> Prompt:
        """KeyError for a caption that was not among those given."""
        places = self.store.find(np.array([key_of(caption) for caption in captions], KEY))
        if (places < 0).any():
            raise KeyError(captions[int(np.argmin(places))])
        return Prompt(*self.store.read(places, ("hidden", "pooled")))
