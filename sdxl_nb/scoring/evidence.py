"""What a scorer sees of one stage: its pictures, those of plain prompts, the training pictures, encoders, losses.

In: what run_scores.py has drawn and opened. Out: an Evidence, whose embeddings are computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..system.errors import SdxlNbError

if TYPE_CHECKING:
    from PIL.Image import Image

    from .encoders import AestheticHead, Encoder

    Pictures = Sequence[Sequence[Image]]

USUAL = 0.95  # share of training pictures that are less near to another one than what counts as usual


@dataclass
class Training:
    """The pictures that were trained on, embedded: `names` (N,) and `embedded` (N, D), each row of length 1."""

    names: Sequence[str]
    embedded: np.ndarray

    @cached_property
    def usual(self) -> float:
        """How near a training picture usually is, at most, to its nearest other: the 95th percentile."""
        between = self.embedded @ self.embedded.T
        np.fill_diagonal(between, -np.inf)
        return float(np.quantile(between.max(1), USUAL))


@dataclass
class Evidence:
    """A stage. Pictures are lists [prompt][seed] of PIL images, embeddings arrays (prompts, seeds, D) of length 1.

    `plain` are pictures of prompts that have nothing to do with the training, `plain_base` the bare base's of them;
    `losses` the held-out losses of single pictures, or the mean alone.
    """

    step: int
    prompts: Sequence[str]
    seeds: Sequence[int]
    pictures: "Pictures"
    plain_prompts: Sequence[str] = ()
    plain: "Pictures" = ()
    plain_base: "Pictures" = ()
    losses: Sequence[float] = ()
    trained: Training | None = None
    image_encoder: "Encoder | None" = None
    text_encoder: "Encoder | None" = None
    aesthetic_head: "AestheticHead | None" = None
    _known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def training(self) -> Training:
        """The training pictures; say needs=("pictures", "image", "training") to have them."""
        if self.trained is None:
            raise SdxlNbError('A scorer that looks at training pictures must say so: needs=("image", "training").')
        return self.trained

    @property
    def image(self) -> np.ndarray:
        """The pictures by the image encoder."""
        return self._embedded(self.image_encoder, "image")

    @property
    def text(self) -> np.ndarray:
        """The pictures by the encoder that reads text too."""
        return self._embedded(self.text_encoder, "text")

    def _embedded(self, encoder: "Encoder | None", need: str) -> np.ndarray:
        if encoder is None:
            raise SdxlNbError(f'A scorer that looks at embeddings must say so: needs=("{need}",).')
        if encoder.name not in self._known:
            flat = encoder.pictures([picture for row in self.pictures for picture in row])
            self._known[encoder.name] = flat.reshape(len(self.prompts), len(self.seeds), -1)
        return self._known[encoder.name]
