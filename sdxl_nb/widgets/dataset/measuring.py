"""What a DatasetBrowser finds out in the background: captions in tokens, the shape that training gives each picture.

In: a browser. Out: both for any picture, as far as they are known by then; the page is shown again when they are.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ...config.train_config import TrainConfig
from ...data.dataset import CaptionedPictures
from ...data.words.trigger import calls
from ..parts.watching import Notice, Worker
from .cards import Words, count_words
from .shapes import Shapes

MEASURED = 5_000  # pictures at most that are all measured to know each one's bucket
OFTEN = 0.5  # seconds between two words on how far something is


class Measuring:
    """Mixed into DatasetBrowser, which has all this, and shows `config` and `dataset` with `turn`."""

    config: TrainConfig | None
    dataset: CaptionedPictures
    turn: Callable[[], None]
    _tokenizers: list[Any] | None
    _shapes: Shapes | None
    _work: Worker
    _notice: Notice
    _progress: Notice
    _lock: threading.RLock

    def _words(self, index: int) -> Words | None:
        """The caption in tokens, as it is trained with; None before the tokenizers are there."""
        if not self._tokenizers or self.config is None:
            return None
        trained = self.dataset.captions[index]
        own = self.dataset.config(index, self.config)
        around = added(trained, self.dataset.written[index] or "", own)
        return count_words(trained, self._tokenizers, around, own.chunks())

    def _shape(self, config: TrainConfig, index: int, size: tuple[int, int]) -> tuple[int, int]:
        return (self._shapes or Shapes(config, self.dataset)).of(index, size)

    def measure(self) -> None:
        """Look at what takes longer, in the background: tokens of the captions, and the shape that each picture gets.

        Of a large set each picture shows the shape that it alone would get. The page is shown again with both.
        """
        if self.config is not None:
            self._work.start(self._notice.guard(partial(self._measure, self.config)))

    def _measure(self, config: TrainConfig) -> None:
        if self._tokenizers is None:
            from ...models.loading import load
            from ...models.sources import Source

            source = Source.of(config)
            self._tokenizers = [load(source, name) for name in ("tokenizer", "tokenizer_2")]
            self.turn()
        dataset = self.dataset
        if any(each.uses_buckets() for each in dataset.configs(config)) and len(dataset) <= MEASURED:
            shapes = Shapes(config, dataset)
            try:
                shapes.measure(telling(self._progress.say, "Measuring the pictures"))
            finally:
                self._progress.say("")
            with self._lock:
                if dataset is self.dataset:  # else it is measured again
                    self._shapes = shapes
                    self.turn()


def added(trained: str, written: str, config: TrainConfig) -> str:
    """What training puts around a caption: trigger word, prefix and suffix."""
    parts = (config.trigger_word, config.caption_prefix, config.caption_suffix)
    return " and ".join(part for part in parts if part and trained != written and not calls(written, part))


def telling(say: Callable[[str], object], doing: str) -> Callable[[int, int], None]:
    """A `progress(done, total)` that says how far something is, now and then."""
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= OFTEN:
            said = time.monotonic()
            say(f"{doing}: {done:,} of {total:,} ...")

    return tell
