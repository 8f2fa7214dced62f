"""What a data file says of each of its folders, and what each picture takes over from its own.

In: what the readers of data/manifests found. Out: FolderSettings, one a folder, and Folders, which knows the
folder of each row. A setting of a folder is one of the run's own, in the run's place: each folder has a TrainConfig.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..config.train_config import TrainConfig

SETTINGS = (  # of a run that a folder may have for itself
    *("resolution", "center_crop", "random_flip", "image_interpolation_mode"),
    *("aspect_ratio_buckets", "bucket_reso_steps", "bucket_no_upscale", "folder_repeats"),
    *("caption_source", "caption_lines", "caption_choice", "caption_column", "image_column"),
    *("caption_prefix", "caption_suffix", "caption_separator", "clean_tags", "trigger_word"),
    *(
        "shuffle_caption",
        "keep_tokens",
        "keep_tokens_separator",
        "caption_tag_dropout_rate",
        "proportion_empty_prompts",
    ),
)


@dataclass(frozen=True)
class Words:
    """Where the captions of a folder are, other than where they are sought in a folder alone.

    `every` are captions of every picture, one of which is drawn; `from_names` takes the files' names, as they are or
    with blanks for underscores. `suffix` is that of the only caption files, of which the first of the `lines` is the
    caption, each is one, or all are. `missing` is the caption of pictures without any. `before` and `after` are put
    around each caption, as tags among its tags.
    """

    every: tuple[str, ...] = ()
    from_names: Literal["", "as they are", "with blanks"] = ""
    suffix: str | None = None
    lines: Literal["first", "each", "all"] = "first"
    missing: str | None = None
    before: str = ""
    after: str = ""
    replaced: tuple[str, str] | None = None  # a text in captions, and what stands for it


@dataclass(frozen=True)
class FolderSettings:
    """One folder of a data file. `settings` are those of SETTINGS that it has for itself.

    An epoch sees each picture `repeats` times, or `entries` pictures in all. `plain` folders are read as other trainers
    do: picture files alone, without `subfolders` those directly in it. `table` is kohya's JSON of pictures and
    captions; `masks` a folder with a mask of the same name for each picture.
    """

    path: str  # absolute, or s3://
    name: str = ""  # what it is called; each has another
    settings: Mapping[str, Any] = field(default_factory=dict)
    repeats: float = 1
    entries: int | None = None
    loss_weight: float = 1.0
    held_out: bool = False
    words: Words = field(default_factory=Words)
    plain: bool = False
    subfolders: bool = True
    table: str | None = None
    masks: str | None = None

    def config(self, config: TrainConfig) -> TrainConfig:
        """The configuration of a run as it is for this folder. Raises ConfigError."""
        changes = dict(self.settings)
        if "center_crop" in changes:  # which says of the run whether there are buckets
            changes.setdefault("aspect_ratio_buckets", config.uses_buckets())
        if changes.get("center_crop"):  # however many crops the pictures of other folders have
            changes["cached_variants"] = 1
        return config.replace(**changes) if changes else config


@dataclass(frozen=True, eq=False)
class Folders:
    """By row the `number` (N,) int32 of its folder in `settings` and `configs`; -1 for one that is of none."""

    number: np.ndarray
    settings: tuple[FolderSettings, ...]
    configs: tuple[TrainConfig, ...] = field(repr=False)

    def select(self, rows: np.ndarray) -> "Folders":
        """Those of these rows."""
        return Folders(self.number[rows], self.settings, self.configs)

    def config(self, row: int, otherwise: TrainConfig) -> TrainConfig:
        """The configuration of a row's folder."""
        number = int(self.number[row])
        return otherwise if number < 0 else self.configs[number]

    def held_out(self) -> np.ndarray:
        """(N,) bool: which rows are never trained on."""
        held_out: np.ndarray = np.array([*(folder.held_out for folder in self.settings), False])[self.number]
        return held_out

    def told(self) -> bytes:
        """What tells these folders from others: their settings, and which row is of which."""
        said = json.dumps([dict(folder.settings) for folder in self.settings], sort_keys=True)
        return said.encode() + np.ascontiguousarray(self.number, np.int32).tobytes()


def joined_folders(parts: Sequence[Folders | None], counts: Sequence[int]) -> Folders | None:
    """The Folders of several Listings after each other, whose numbers of rows are `counts`."""
    if all(part is None for part in parts):
        return None
    numbers, settings, configs = [], list[FolderSettings](), list[TrainConfig]()
    for part, count in zip(parts, counts, strict=True):
        own = np.full(count, -1, np.int32) if part is None else part.number
        numbers.append(np.where(own < 0, -1, own + len(settings)).astype(np.int32))
        settings += part.settings if part else ()
        configs += part.configs if part else ()
    return Folders(np.concatenate(numbers), tuple(settings), tuple(configs))
