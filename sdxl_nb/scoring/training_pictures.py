"""The pictures that a run was trained on, as scores compare with them: without held-out and class pictures.

In: a TrainConfig. Out: TrainingPictures; opened without decoding, decoded when they are embedded.
"""

import contextlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..data.dataset import CaptionedPictures, PictureError, open_dataset
from ..data.split import divide
from ..system.errors import DataError
from ..system.keys import key_of
from .encoders import AT_ONCE, Encoder
from .evidence import Training

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..config.train_config import TrainConfig

MOST = 512  # pictures that are compared with; of more, so many evenly chosen


class TrainingPictures:
    """`notes` says what was left out, or why there are none."""

    def __init__(self, config: "TrainConfig"):
        self.config, self.notes = config, list[str]()

    @cached_property
    def _all(self) -> CaptionedPictures | None:
        try:
            pictures = open_dataset(self.config)
            return divide(self.config, pictures)[0]
        except DataError as error:  # moved or deleted since
            self.notes.append(f"The training pictures cannot be opened: {error}")
            return None

    @cached_property
    def _rows(self) -> list[int]:
        many = 0 if self._all is None else len(self._all) - self._all.class_pictures
        if many > MOST:
            self.notes.append(f"{MOST} of the {many} training pictures, evenly chosen, were compared with.")
            return np.linspace(0, many - 1, MOST).round().astype(int).tolist()
        return list(range(many))

    def __len__(self) -> int:
        return len(self._rows)

    def captions(self) -> list[str]:
        """Their captions."""
        return [self._all.captions[row] for row in self._rows] if self._all is not None else []

    @cached_property
    def identity(self) -> str:
        """Changes with any of the pictures."""
        names = [self._all.identity(row) for row in self._rows] if self._all is not None else []
        return key_of(*names).hex()

    def embedded(self, encoder: Encoder) -> Training:
        """Names and embeddings of those that can be decoded. Raises DataError where none can."""
        names, parts, portion = list[str](), list[np.ndarray](), list["Image"]()
        for name, picture in self._decoded():
            names.append(name)
            portion.append(picture)
            if len(portion) == AT_ONCE:
                parts.append(encoder.pictures(portion))
                portion = []
        if portion:
            parts.append(encoder.pictures(portion))
        if not parts:
            raise DataError("No training picture can be decoded: score with metrics that need none.")
        if len(names) < len(self):
            self.notes.append(
                f"{len(self) - len(names)} training pictures cannot be decoded and were not compared with."
            )
        return Training(names, np.concatenate(parts))

    def _decoded(self) -> "Iterator[tuple[str, Image]]":
        assert self._all is not None
        for row in self._rows:
            with contextlib.suppress(PictureError):
                sample = self._all[row]
                yield sample.name, sample.picture
