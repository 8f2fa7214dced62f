"""What the names of subfolders say: how often an epoch sees a picture, its caption where it has none, its loss weight.

In: a Listing and the configuration. Out: the same Listing with `repeats`, `captions` and `weights` filled in. The
names are kohya's: 10_sks dog is seen 10 times an epoch, and its pictures without a caption are called "sks dog".
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .sources.folders.folders import NO_CAPTIONS
from .sources.folders.leavings import some
from .sources.folders.strangers import NUMBERED
from .sources.listing import Listing, Texts, flags, text_column

MOST = 500  # more is a year or a number of its own, as in 2024_holiday


def by_folder(listing: Listing, config: TrainConfig) -> Listing:
    """The Listing with what the names of its folders say. DataError for a weight of no folder."""
    in_folders = config.folder_repeats and pc.any(pc.match_substring(listing.names, "/")).as_py()
    if not config.folder_weights and not in_folders:
        return listing
    folders, number = top_folders(listing.names)
    if in_folders:
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
    """Repeats and missing captions from names such as 10_sks dog; what lies elsewhere is seen once. All of it is said.

    Where most folders have no number, and most pictures lie in those, a number is only part of a name.
    """
    read = [NUMBERED.fullmatch(folder) for folder in folders]
    times = np.array([int(named[1]) if named else 0 for named in read])
    if times.max() > MOST:
        folder = folders[int(times.argmax())]
        listing.notes.append(f"Folder {folder} is not read as {times.max()} repeats, which is more than {MOST}.")
        times[times > MOST] = 0
    numbered, pictures = times > 0, np.bincount(number, minlength=len(folders))
    if not numbered.any():
        return
    if numbered.mean() < 0.5 and pictures[numbered].sum() < pictures.sum() / 2:
        told = some(folder for folder, is_so in zip(folders, numbered, strict=True) if is_so)
        listing.notes.append(f"{told}: not read as repeats, because most folders have no number and most pictures.")
        return
    words = [named[2] if named and count else None for named, count in zip(read, times, strict=True)]
    name_pictures(listing, words, number)
    if times.max() > 1:
        listing.repeats = np.maximum(times, 1)[number].astype(np.int32)
        say_repeats(listing, dict(zip(folders, times.tolist(), strict=True)), ~numbered[number])


def say_repeats(listing: Listing, times: Mapping[str, int], outside: np.ndarray) -> None:
    """Notes: how often an epoch sees the pictures of folders, and which (N,) lie outside of those with a number."""
    counted = {folder: count for folder, count in times.items() if count}
    said = [f"{folder!r} {'once' if count == 1 else f'{count} times'}" for folder, count in counted.items()]
    more = ", ..." if len(said) > 5 else ""
    told = f"An epoch sees the pictures of {', '.join(said[:5])}{more}; --no_folder_repeats sees each once."
    listing.notes.append(told)
    if outside.any():
        loose = [name for name in Texts[str](listing.names, np.flatnonzero(outside)[:4]) if "/" not in name]
        places = some([*loose, *(f"{folder}/" for folder in times if folder and folder not in counted)])
        many = f"{outside.sum()} of {len(listing)} pictures"
        listing.notes.append(f"{many} lie in no folder with a number of repeats, and are seen once: {places}.")


def name_pictures(listing: Listing, words: Sequence[str | None], number: np.ndarray) -> None:
    """Captions from the words of folders, by number of the folder, for the pictures that have none."""
    said = [text and text.replace("_", " ").strip() for text in words]
    missing = flags(listing.captions.is_null()) & np.array([text is not None for text in said])[number]
    if not missing.any():
        return
    first = said[number[int(missing.argmax())]]
    each = zip(number, Texts[str | None](listing.captions), strict=True)
    listing.captions = text_column(said[its] if caption is None else caption for its, caption in each)
    listing.notes = [note for note in listing.notes if note != NO_CAPTIONS]
    listing.notes.append(
        f"{missing.sum()} of {len(listing)} pictures have no caption and take the words of their folder, as {first!r}."
    )


def weigh(folders: Sequence[str], number: np.ndarray, wanted: Mapping[str, float]) -> np.ndarray:
    """Loss weights (N,) fp32 of the pictures: what is said of their folder, else 1."""
    unknown = sorted(set(wanted) - set(folders))
    if unknown:
        there = ", ".join(sorted(folder for folder in folders if folder)) or "none"
        raise DataError(f"folder_weights names '{unknown[0]}', but there is no such subfolder (there are: {there}).")
    weights: np.ndarray = np.array([wanted.get(folder, 1.0) for folder in folders], dtype=np.float32)[number]
    return weights
