"""The shape that training gives each picture of a data set: its bucket depends on the sizes of all of them.

In: a TrainConfig and its pictures. Out: (height, width) for a picture; before all are measured, the one that it alone
would get. Measuring decodes what the cache's memory of files does not know yet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...config.train_config import TrainConfig
from ...data import buckets


class Shapes:
    """`measure` once, in a thread if it may take long; `of` at any time."""

    def __init__(self, config: TrainConfig, dataset: Any):
        self.config, self.dataset, self._places, self._found = config, dataset, None, None

    def of(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that a picture of this size is trained at."""
        if not self.config.uses_buckets():
            return (self.config.resolution,) * 2
        if self._places is not None and self._places[index] >= 0:
            return self._found.shape(self._places[index])
        return buckets.of(self.config, [size]).shape(0)

    def measure(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Measure all pictures, as a run does before its first step."""
        from ...cache.latents import cache_folder
        from ...data.file_facts import Memo, examine

        memo = Memo(cache_folder(self.config))
        try:
            bad = {fault.name for fault in examine(self.dataset, memo, progress)}
        finally:
            memo.close()
        good = np.fromiter((name not in bad for name in self.dataset.names), bool, len(self.dataset))
        self._found = buckets.of(self.config, self.dataset.sizes()[good])
        self._places = np.where(good, np.cumsum(good) - 1, -1)
