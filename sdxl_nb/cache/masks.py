"""Masks at the resolution of the latents: from a Store beside the latents, or anew for every step.

In: data/masks.py's Masks and the Encoder of the latents, whose crops they share. Out: for the pictures and random
choices of a batch, (N, h, w) uint8. A row is told by the mask's own bytes and its crop, so a mask that was painted
anew is cut anew, and no latent is encoded for it.
"""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch

from ..data.masks import WHITE, Masks
from ..data.sampling import Choices
from ..system.errors import SdxlNbError
from ..system.keys import key_of
from ..system.threads import Group, ahead, share_out
from .latents import CachedLatents, Encoder, Progress
from .shards import KEY, Store


class LiveMasks:
    """Cuts the masks of each batch when they are asked for, as the latents' crops say; `scale` pixels a latent."""

    def __init__(self, masks: Masks, latents: Encoder, scale: int):
        self.masks, self.latents, self.scale = masks, latents, scale

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> torch.Tensor:
        return torch.from_numpy(np.stack(list(ahead(self._live, zip(indices, choices, strict=True)))))

    def counts(self, indices: Sequence[int], choices: Sequence[Choices]) -> torch.Tensor:
        """What the loss counts at each place, (N, 1, h, w) fp32: at least unmasked_weight, and 1 by its chance."""
        config = self.latents.config
        counts = (self(indices, choices).float() / WHITE).clamp(min=config.unmasked_weight)
        for number, each in enumerate(choices):
            if each.goes_unmasked(config.unmasked_probability):
                counts[number] = 1
        return counts[:, None]

    def _live(self, chosen: tuple[int, Choices]) -> np.ndarray:
        index, choices = chosen
        return self.masks.cut(index, self.latents.taken(index, choices), self.scale)


class CachedMasks(LiveMasks):
    """The masks at the crops that cached latents have, from a Store; `fill` adds what lacks.

    A row is a variant of a picture, as in CachedLatents; those of pictures without a mask are not stored.
    """

    def __init__(self, masks: Masks, latents: CachedLatents, scale: int, store: Store):
        super().__init__(masks, latents, scale)
        self.latents: CachedLatents = latents
        self.store, self.variants = store, latents.variants
        self.keys = np.zeros(len(masks.kinds) * self.variants, KEY)
        self.rows = np.array([row for index in masks.indices() for row in self._rows(index)], np.int64)
        for row in self.rows.tolist():
            index, number = divmod(row, self.variants)
            self.keys[row] = key_of(masks.keys[index], latents.variant(index, number), scale)
        self.places = np.full(len(self.keys), -1, np.int64)
        self.computed = 0  # masks that `fill` cut

    def _rows(self, index: int) -> range:
        return range(index * self.variants, (index + 1) * self.variants)

    def fill(self, progress: Progress | None = None, processes: Group | None = None) -> None:
        """Cut what is not in the store. Raises SdxlNbError."""

        def work(share: range) -> None:
            self.store.refresh()
            rows = self.rows[np.asarray(share, np.int64)]
            self._fill(rows[self.store.find(self.keys[rows]) < 0].tolist(), progress)

        share_out(len(self.rows), work, processes)
        self.places[self.rows] = self.store.find(self.keys[self.rows])
        if (self.places[self.rows] < 0).any():
            raise SdxlNbError(f"The cache folder {self.store.folder} lost files while it was used: start again.")

    def _fill(self, rows: list[int], progress: Progress | None) -> None:
        """Cut these rows, those of one shape after each other, since a shard holds one shape."""
        target = self.latents.target

        def shape(row: int) -> tuple[int, int]:
            return target(row // self.variants)

        done = 0
        for _, same in groupby(sorted(rows, key=shape), key=shape):
            with self.store.writer() as writer:
                for row, mask in ahead(self._cut, same):
                    writer.add(bytes(self.keys[row]).ljust(16, b"\0"), mask=torch.from_numpy(mask.copy()))
                    self.computed += 1
                    done += 1
                    if progress:
                        progress(done, len(rows))

    def _cut(self, row: int) -> tuple[int, np.ndarray]:
        index, number = divmod(row, self.variants)
        return row, self.masks.cut(index, self.latents.variant(index, number), self.scale)

    def _live(self, chosen: tuple[int, Choices]) -> np.ndarray:
        index, choices = chosen
        row = self.latents.row(index, choices)
        if self.places[row] < 0:
            return self.masks.cut(index, self.latents.crop(index, None, False), self.scale)
        (mask,) = self.store.read(self.places[row : row + 1], ("mask",))
        return mask[0].numpy()

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._live(chosen) for chosen in zip(indices, choices, strict=True)]))
