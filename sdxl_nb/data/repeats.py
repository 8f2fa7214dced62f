"""What the names of subfolders say: how often an epoch sees a picture, its caption where it has none, its loss weight.

In: a Listing and the configuration. Out: the same Listing with `repeats`, `captions` and `weights` filled in. The
names are kohya's: 10_sks dog is seen 10 times an epoch, and its pictures without a caption are called "sks dog".
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .sources.folders import NO_CAPTIONS
from .sources.listing import Listing, Texts

NAMED = re.compile(r"([1-9]\d*)_(.+)")
MOST = 500  # more is a year or a number of its own, as in 2024_holiday


def by_folder(listing: Listing, config: TrainConfig) -> Listing:
    """The Listing with what the names of its folders say. DataError for a weight of no folder."""
    in_folders = len(listing) and "/" in listing.names[0].as_py()
    if not config.folder_weights and not (config.folder_repeats and in_folders):
        return listing
    folders, number = top_folders(listing.names)
    if config.folder_repeats and folders and all(NAMED.fullmatch(folder) for folder in folders):
        read_numbers(listing, folders, number)
    if config.folder_weights:
        listing.weights = weigh(folders, number, config.folder_weights)
    return listing


def top_folders(names: pa.Array) -> tuple[list[str], np.ndarray]:
    """(names of the subfolders, number of its subfolder for each picture, int32); "" is the folder itself."""
    found: dict[str, int] = {}
    heads = (name.partition("/") for name in Texts[str](names))
    number = np.fromiter((found.setdefault(head if mark else "", len(found)) for head, mark, _ in heads), np.int32)
    return list(found), number


def read_numbers(listing: Listing, folders: Sequence[str], number: np.ndarray) -> None:
    """Repeats and missing captions from names such as 10_sks dog; said in one line."""
    read = [named.groups() for named in map(NAMED.fullmatch, folders) if named]  # all of them; see `by_folder`
    times = np.array([int(count) for count, _ in read])
    if times.max() > MOST:
        folder = folders[int(times.argmax())]
        listing.notes.append(f"Folder {folder} is not read as {times.max()} repeats, which is more than {MOST}.")
        return
    words = [text.replace("_", " ").strip() for _, text in read]
    missing = listing.captions.null_count
    if missing:
        first = words[number[int(np.argmax(listing.captions.is_null()))]]
        numbers = iter(number)
        listing.caption_each(lambda _, caption: caption_or(words[next(numbers)], caption))
        listing.notes = [note for note in listing.notes if note != NO_CAPTIONS]
        listing.notes.append(
            f"{missing} of {len(listing)} pictures have no caption and take the words of their folder, as {first!r}."
        )
    if times.max() > 1:
        listing.repeats = times[number].astype(np.int32)
        counted = zip(folders[:5], times, strict=False)
        said = ", ".join(f"{folder!r} {'once' if count == 1 else f'{count} times'}" for folder, count in counted)
        more = ", ..." if len(folders) > 5 else ""
        listing.notes.append(f"An epoch sees the pictures of {said}{more}; --no_folder_repeats sees each once.")


def caption_or(words: str, caption: str | None) -> str:
    return words if caption is None else caption


def weigh(folders: Sequence[str], number: np.ndarray, wanted: Mapping[str, float]) -> np.ndarray:
    """Loss weights (N,) fp32 of the pictures: what is said of their folder, else 1."""
    unknown = sorted(set(wanted) - set(folders))
    if unknown:
        there = ", ".join(sorted(folder for folder in folders if folder)) or "none"
        raise DataError(f"folder_weights names '{unknown[0]}', but there is no such subfolder (there are: {there}).")
    weights: np.ndarray = np.array([wanted.get(folder, 1.0) for folder in folders], dtype=np.float32)[number]
    return weights
