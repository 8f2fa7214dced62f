"""A data file's folders as one data set.

In: a data file and the run's configuration. Out: one Listing, whose names begin with what each folder is called; it
knows the settings, repeats and loss weight of every row. What the file says of a folder, the folder's own
configuration carries from here to captions, crops, buckets and steps.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...config.checks import is_data_file
from ...config.train_config import TrainConfig
from ...system.errors import ConfigError, DataError
from ..decoding import SUFFIXES, Fault
from ..folder_settings import Folders, FolderSettings
from ..listed_captions import as_trained, choose_captions
from ..repeats import by_folder
from ..sources.folders.folders import list_folder
from ..sources.folders.found_captions import with_found
from ..sources.folders.layouts import training_folder
from ..sources.folders.leavings import counted
from ..sources.folders.tree import inside, real
from ..sources.listing import Listing, Note, Texts, flags, joined, led, text_column
from .captions import worded
from .formats import parsed, read
from .kohya_metadata import list_entries

Lister = Callable[[str, TrainConfig], Listing]  # of a folder or s3:// prefix alone


def assembled(place: str, config: TrainConfig, list_directory: Lister) -> Listing:
    """The Listing of all folders of a data file, each opened with a configuration of its own. Raises DataError."""
    file = Path(os.path.expanduser(place)).absolute()
    if config.folder_weights:
        raise DataError(f"folder_weights is for subfolders of one folder: give loss_weight in {file.name} instead.")
    manifest = read(file, config)
    if not manifest.folders:
        why = f" ({' '.join(manifest.notes)})" if manifest.notes else ""
        raise DataError(f"{file.name} leaves no folder to train on{why}: add one.")
    parts, configs = [], []
    for folder in manifest.folders:
        try:
            own = folder.config(config)
            refuse_twofold(folder, manifest.folders, config)
            listing, root = opened(folder, own, list_directory)
            listing = without_inner(listing, folder, root, manifest.folders)
            parts.append(_called(captioned(listing, folder, root, own), folder))
        except (DataError, ConfigError) as error:
            raise DataError(f"{file.name}, folder {folder.name}: {_in_file(str(error))}") from error
        configs.append(own)
    whole = joined(parts)
    number = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    whole.folders = Folders(number, tuple(manifest.folders), tuple(configs))
    whole.notes = [summary(manifest.folders, parts), *manifest.notes, *whole.notes]
    return whole


def refuse_twofold(folder: FolderSettings, folders: Sequence[FolderSettings], config: TrainConfig) -> None:
    """Raise DataError for a folder that is trained on and is held out, or of the class, too."""
    path = real(folder.path)
    for name in ("class_data_dir", "validation_data_dir"):
        given = getattr(config, name)
        if given and "://" not in given and real(os.path.expanduser(given)) == path:
            raise DataError(f"it is the {name} too: give that a folder of its own.")
    if not folder.plain and any(is_held_out_too(path, folder, other) and real(other.path) == path for other in folders):
        raise DataError("it is trained on and held out: leave one of the two away.")


def is_held_out_too(path: Path, folder: FolderSettings, other: FolderSettings) -> bool:
    """Whether a folder at this real path is trained on, and another that is it or lies inside it is held out."""
    inner = real(other.path)
    overlap = inner == path or (folder.subfolders and path in inner.parents)
    return other.held_out and not folder.held_out and overlap


def opened(folder: FolderSettings, config: TrainConfig, list_directory: Lister) -> tuple[Listing, Path]:
    """(Listing of one folder as it is read alone, the folder that its names are relative to). Raises DataError."""
    path = real(folder.path)
    if folder.plain and not os.path.isdir(path):  # which takes a name of any length
        raise DataError(f"There is no folder {folder.path}: correct its path.")
    if folder.table:
        listing, root = list_entries(_table(folder.table), folder, config), path
    else:
        listing = list_folder(path, config) if folder.plain else list_directory(folder.path, config)
        root = training_folder(path) if os.path.isdir(path) else path
        listing = directly_in(listing, folder, root)
    return listing, root


def without_inner(listing: Listing, folder: FolderSettings, root: Path, folders: Sequence[FolderSettings]) -> Listing:
    """The rows that do not lie in a folder inside this one that the file has too, and so says something else of.

    Other trainers see such pictures twice, and so do we where their files say so.
    """
    for other in folders:
        path = real(other.path)
        if folder.plain and is_held_out_too(root, folder, other):
            told = f"Pictures of {other.name} are held out and trained on too, so that their loss says little."
            listing.notes.append(told)
        if folder.plain or folder.table or root not in path.parents:
            continue
        below = f"{path.relative_to(root).as_posix()}/"
        inner = flags(pc.starts_with(listing.names, below))
        if inner.any():
            faults = [fault for fault in listing.faults if not fault.name.startswith(below)]
            listing = listing.select(np.flatnonzero(~inner))
            listing.faults = faults
            many, belong = counted(int(inner.sum()), "picture"), "belongs" if inner.sum() == 1 else "belong"
            listing.notes.append(f"{many} in {below} {belong} to {other.name}.")
    return listing


def captioned(listing: Listing, folder: FolderSettings, root: Path, config: TrainConfig) -> Listing:
    """The Listing with masks and with the captions that training reads; `config` is the folder's own."""
    if folder.masks and config.masked_loss:
        listing.masks = masks_in(folder.masks, listing)
    listing = worded(listing, folder.words, root)
    listing = as_trained(by_folder(with_found(listing, config), config), config)
    choose_captions(listing, config)
    return listing


def _table(path: str) -> Any:
    """What a metadata file holds. Raises DataError."""
    if not os.path.isfile(path) or not is_data_file(path):
        raise DataError(f"There is no metadata file {path}: correct metadata_file.")
    said = parsed(Path(path))
    if not isinstance(said, dict | list):
        raise DataError(f"The metadata file {path} names no pictures: correct metadata_file.")
    return said


def masks_in(folder: str, listing: Listing) -> pa.Array:
    """A column of the masks that a folder has for these pictures, by their names without suffix. Raises DataError."""
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder of masks {folder}: correct conditioning_data_dir.")
    root = real(folder)
    known = {os.path.splitext(name)[0]: name for name in sorted(os.listdir(root)) if name.lower().endswith(SUFFIXES)}
    stems = (os.path.splitext(os.path.basename(name))[0] for name in Texts[str](listing.names))
    own = (known.get(stem) for stem in stems)
    return text_column(None if name is None else str(inside(root, name, "conditioning_data_dir")) for name in own)


def directly_in(listing: Listing, folder: FolderSettings, root: Path) -> Listing:
    """The rows that lie directly in a folder whose subfolders are not meant. Raises DataError where there are none."""
    if folder.subfolders:
        return listing
    inner = os.path.relpath(root, os.path.realpath(folder.path))
    below = flags(pc.match_substring(listing.names, "/"))
    if inner != "." or (below.all() and len(listing)):
        where = inner if inner != "." else str(listing.names[0]).partition("/")[0]
        rest = "" if folder.plain else ", or say subfolders: yes"
        raise DataError(f"its pictures lie in subfolders, as {where}: name each of these{rest}.")
    if not below.any():
        return listing
    kept = listing.select(np.flatnonzero(~below))
    kept.faults = [fault for fault in listing.faults if "/" not in fault.name]
    are = "is" if below.sum() == 1 else "are"
    kept.notes.append(f"{counted(int(below.sum()), 'picture')} in its subfolders {are} not meant.")
    return kept


def _in_file(sentence: str) -> str:
    """The sentence of a folder that was opened alone, with the advice for a file."""
    return sentence.replace("check --train_data_dir", "correct its path").rstrip(".") + "."


def _called(listing: Listing, folder: FolderSettings) -> Listing:
    """The Listing with the folder's name before those of its pictures, its repeats and its loss weight."""
    head, count = f"{folder.name}/", len(listing)
    listing.names = led(head, listing.names)
    listing.faults = [
        Fault(head + fault.name, fault.sentence.replace(fault.name, head + fault.name, 1)) for fault in listing.faults
    ]
    listing.notes = [_note(note, folder.name, head) for note in listing.notes]
    times = np.ones(count, np.int32) if listing.repeats is None else listing.repeats
    if folder.entries is not None or folder.repeats != int(folder.repeats):
        wanted = folder.entries if folder.entries is not None else int(folder.repeats * times.sum())
        times = spread(count, wanted)
        if wanted != times.sum():
            many, are = counted(wanted, "picture"), "is" if wanted == 1 else "are"
            told = f"{many} an epoch {are} fewer than its {count}, each of which is seen once instead."
            listing.notes.append(f"{folder.name}: {told}")
    else:
        times = times * int(folder.repeats)
    listing.repeats = times.astype(np.int32) if (times != 1).any() else None
    weights = np.ones(count, np.float32) if listing.weights is None else listing.weights
    if folder.loss_weight != 1:
        listing.weights = (weights * np.float32(folder.loss_weight)).astype(np.float32)
    return listing


def _note(note: str, name: str, head: str) -> str:
    said = f"{name}: {note}"
    if isinstance(note, Note):
        return Note(said, note.kind, {head + file: what for file, what in note.files.items()})
    return said


def spread(count: int, entries: int) -> np.ndarray:
    """How often each of so many pictures is seen when an epoch sees so many entries of them: at least once."""
    if not count:
        return np.zeros(0, np.int64)
    times, more = divmod(max(entries, count), count)
    return np.full(count, times) + (np.arange(count) < more)


def summary(folders: list[FolderSettings], parts: list[Listing]) -> str:
    """What each folder contributes, in one sentence."""
    many = f"{len(folders)} folder{'s' * (len(folders) != 1)}"
    return f"{many}: {', '.join(_share(folder, part) for folder, part in zip(folders, parts, strict=True))}."


def _share(folder: FolderSettings, listing: Listing) -> str:
    """One folder's part of the sentence: usable pictures, repeats, and what of it counts otherwise."""
    usable = ~flags(listing.captions.is_null())
    count, more = int(usable.sum()), []
    times = np.ones(len(listing), np.int64) if listing.repeats is None else listing.repeats
    often = np.unique(times[usable]).tolist()
    said = f"{folder.name} {count}"
    if folder.held_out:
        said = f"held out {said}"
    elif len(often) == 1 and often[0] != 1:
        said += f" × {often[0]}"
    elif len(often) > 1:
        more.append(f"{int(times[usable].sum())} an epoch")
    more += [f"loss weight {folder.loss_weight:g}"] if folder.loss_weight != 1 else []
    more += [f"{folder.settings['resolution']} px"] if "resolution" in folder.settings else []
    return said + (f" ({', '.join(more)})" if more else "")


def refuse_uncaptioned(listing: Listing) -> None:
    """Raise DataError for a folder of which no picture has a caption."""
    if listing.folders is None:
        return
    there = ~flags(listing.captions.is_null())
    texts = Texts[str | None](listing.captions)
    for number, folder in enumerate(listing.folders.settings):
        rows = np.flatnonzero(listing.folders.number == number)
        if len(rows) and not any(texts[row] for row in rows[there[rows]].tolist()):
            what = "add them, or give it a caption or a trigger_word of its own"
            raise DataError(f"Folder {folder.name} has no captions at all: {what}.")
