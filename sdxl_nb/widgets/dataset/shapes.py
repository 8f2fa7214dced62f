"""The shape that training gives each picture of a data set: its bucket depends on the sizes of all of them.

In: a TrainConfig and its pictures. Out: (height, width) for a picture; before all are measured, the one that it alone
would get. Measuring decodes what the cache's memory of files does not know yet.
"""

from collections.abc import Callable

import numpy as np

from ...config.train_config import TrainConfig
from ...data import buckets
from ...data.dataset import CaptionedPictures


class Shapes:
    """`measure` once, in a thread if it may take long; `of` at any time."""

    def __init__(self, config: TrainConfig, dataset: CaptionedPictures):
        self.config, self.dataset = config, dataset
        self._found: buckets.Buckets | None = None
        self._places = np.empty(0, np.int64)  # of each picture in what was found; -1 for one that cannot be read

    def of(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that a picture of this size is trained at."""
        config = self.dataset.config(index, self.config)
        if not config.uses_buckets():
            return (config.resolution,) * 2
        if self._found is not None and self._places[index] >= 0:
            return self._found.shape(self._places[index])
        return buckets.of(config, [size]).shape(0)

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
        self._places = np.where(good, np.cumsum(good) - 1, -1)
        known = self.dataset.select(np.flatnonzero(good))
        self._found = buckets.of(self.config, known.sizes(), folders=known.folders)
