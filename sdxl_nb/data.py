"""Captioned pictures: a TrainConfig in, a sequence of (name, caption, picture, original size) out.

From the hub, a local folder, a saved data set, parquet files, an s3:// prefix or the embedded sets. Opening lists
and validates without decoding a pixel; a picture is decoded when it is asked for. One bad picture never ends a run:

    pictures = open_dataset(config)        # DataError: the whole source is unusable, and what to do
    faults = pictures.check()              # decodes each picture once; what cannot be used, and why
    pictures = pictures.without(faults.names)
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from . import folders, tables
from .captions import with_trigger
from .errors import DataError
from .pictures import Fault, Listing, PictureError, decode, is_text

__all__ = ["EMBEDDED", "CaptionedPictures", "Fault", "Faults", "PictureError", "Sample", "open_dataset"]

PICTURES = Path(__file__).parent / "tiny" / "pictures"
# name -> folders of PICTURES; the first holds the concept (and gets the trigger word), the others are mixed in.
EMBEDDED = {"blueprint": ("blueprint", "plain"), "emblem": ("emblem", "plain")}


class Sample(NamedTuple):
    """One decoded picture: RGB, upright; original_size is (height, width) after EXIF rotation."""

    name: str
    caption: str
    picture: Image.Image
    original_size: tuple[int, int]


class Faults(list):
    """The pictures that were left out, as Fault(name, sentence); `print(faults)` says it in one line."""

    @property
    def names(self):
        return [fault.name for fault in self]

    def __str__(self):
        if not self:
            return "No picture was left out."
        listed = " ".join(fault.sentence for fault in self[:5])
        more = f" ... and {len(self) - 5} more." if len(self) > 5 else ""
        return f"{len(self)} picture{'s' * (len(self) != 1)} left out: {listed}{more}"


class CaptionedPictures(Sequence):
    """Pictures that are listed and captioned, each decoded when asked for: `pictures[3]` is a Sample.

    `.names` and `.captions` are lists; `.faults` what was left out when listing; `.notes` remarks for the log.
    """

    def __init__(self, entries, source, faults=(), notes=()):
        self.entries, self.source, self.faults, self.notes = list(entries), source, Faults(faults), list(notes)

    @property
    def names(self):
        return [entry.name for entry in self.entries]

    @property
    def captions(self):
        return [entry.caption for entry in self.entries]

    def __len__(self):
        return len(self.entries)

    def __getitem__(self, index):
        """A Sample; a slice gives CaptionedPictures. Raises PictureError that names the picture."""
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        name, caption, _ = self.entries[index]
        picture = decode(self.picture_bytes(index), name)
        return Sample(name, caption, picture, (picture.height, picture.width))

    def picture_bytes(self, index):
        """The file as it is stored, still encoded."""
        entry = self.entries[index]
        try:
            return entry.read()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise PictureError(f"{entry.name} cannot be opened ({reason}): check the file.") from error

    def identity(self, index):
        """SHA-256 of the encoded picture, in hex: the same picture has the same identity wherever it lies."""
        return hashlib.sha256(self.picture_bytes(index)).hexdigest()

    def select(self, indices):
        """These pictures, in this order."""
        return CaptionedPictures([self.entries[index] for index in indices], self.source, self.faults, self.notes)

    def without(self, names):
        """All but the named pictures; what was left out when listing counts as dealt with if it is named."""
        names = set(names)
        entries = [entry for entry in self.entries if entry.name not in names]
        faults = [fault for fault in self.faults if fault.name not in names]
        return CaptionedPictures(entries, self.source, faults, self.notes)

    def check(self, progress=None):
        """Decodes every picture once and returns the Faults, those found when listing first.

        `progress(done, total)` is called after each picture. Raises DataError when no usable picture remains.
        """
        found = []
        for index, entry in enumerate(self.entries):
            try:
                self[index]
            except PictureError as error:
                found.append(Fault(entry.name, str(error)))
            if progress:
                progress(index + 1, len(self))
        if len(found) == len(self):
            first = f"; the first: {found[0].sentence}" if found else "."
            raise DataError(f"None of the {len(self)} pictures of {self.source} can be used{first}")
        return Faults([*self.faults, *found])

    def figure(self, count=8):
        """A matplotlib Figure of the first pictures with their captions; it shows itself in a notebook."""
        from .contact_sheet import figure

        return figure(self, count)

    def __repr__(self):
        left_out = f", {len(self.faults)} left out" if self.faults else ""
        return f"CaptionedPictures: {len(self)} pictures from {self.source}{left_out}"

    def _repr_html_(self):
        from .contact_sheet import html_table

        return html_table(self)


def open_dataset(config):
    """The CaptionedPictures that a TrainConfig names, listed and validated but not decoded.

    Raises DataError, one sentence, when they cannot be used: nothing there, no captions, no such column, a hub or
    bucket that cannot be reached, paths that leave the folder. Single pictures without a caption go to `.faults`.
    """
    listing, source = list_source(config)
    captioned = [entry for entry in listing.entries if isinstance(entry.caption, str)]
    kept = [entry for entry in captioned if is_text(entry.caption)]
    listing.faults += [
        Fault(entry.name, f"{entry.name} has a caption with half a character in it (a lone surrogate): correct it.")
        for entry in captioned
        if not is_text(entry.caption)
    ]
    if listing.faults and len(listing.entries) == len(captioned) and not kept:
        raise DataError(f"None of the pictures of {source} can be used; the first: {listing.faults[0].sentence}")
    if not any(entry.caption for entry in kept):
        why = f" ({listing.notes[0]})" if listing.notes else ""
        raise DataError(f"{source} has no captions at all{why}: add them, or give a --trigger_word to train on alone.")
    listing.faults += [
        Fault(entry.name, f"{entry.name} has no caption: add one or remove the picture.")
        for entry in listing.entries
        if not isinstance(entry.caption, str)
    ]
    pictures = CaptionedPictures(kept, source, listing.faults, listing.notes)
    if config.max_train_samples and config.max_train_samples < len(pictures):
        pictures = pictures[: config.max_train_samples]
    return pictures


def list_source(config):
    """(Listing with trigger words in place, what to call the source)."""
    name = config.dataset_name
    if config.train_data_dir:
        listing, source = list_directory(str(config.train_data_dir), config), str(config.train_data_dir)
    elif not name:
        raise DataError("There is no data: give --dataset_name or --train_data_dir.")
    elif name.startswith("embedded:"):
        return list_embedded(name.removeprefix("embedded:"), config), name
    elif os.path.isdir(name):  # takes a name of any length
        listing, source = list_directory(name, config), f"the local folder {name}"
    else:
        listing, source = tables.list_hub(name, config), name
    return triggered(listing, config.trigger_word), source


def list_directory(place, config):
    """The Listing of a folder or s3:// prefix, whatever kind of data set it holds."""
    if place.startswith("s3://"):
        from . import s3

        place = s3.download(place, config.cache_dir)
    folder = folders.real(os.path.expanduser(place))
    if not os.path.exists(folder):
        raise DataError(f"There is no folder {place}: check --train_data_dir.")
    if not folder.is_dir():
        raise DataError(f"{place} is a file, not a folder: give the folder that holds it with --train_data_dir.")
    if not any(folder.iterdir()):
        raise DataError(f"The folder {place} is empty: check --train_data_dir.")
    if tables.is_saved(folder):
        return tables.list_saved(folder, config)
    if tables.has_only_parquet(folder):
        return tables.list_parquet(folder, config)
    return folders.list_folder(folder, config)


def list_embedded(name, config):
    """The Listing of an embedded set: its concept, then the plain pictures to mix in, names led by their folder."""
    if name not in EMBEDDED:
        raise DataError(f"There is no embedded data set '{name}': choose one of {', '.join(sorted(EMBEDDED))}.")
    concept, *others = (folders.list_folder(PICTURES / part, config) for part in EMBEDDED[name])
    listing = Listing([])
    for part, listed in zip(EMBEDDED[name], [triggered(concept, config.trigger_word), *others], strict=True):
        listing.entries += [entry._replace(name=f"{part}/{entry.name}") for entry in listed.entries]
    return listing


def triggered(listing, trigger_word):
    """The Listing with the trigger word in front of every caption; a missing caption becomes the trigger word."""
    if trigger_word:
        listing.entries = [
            entry._replace(caption=with_trigger(entry.caption if isinstance(entry.caption, str) else "", trigger_word))
            for entry in listing.entries
        ]
    return listing
