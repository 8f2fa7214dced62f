"""Captioned pictures: a TrainConfig in, a sequence of (name, caption, picture, original size) out.

From the hub, a local folder, a saved data set, parquet files, an s3:// prefix or the embedded sets. Opening lists
and validates without decoding a pixel; a picture is decoded when it is asked for. One bad picture never ends a run:

    pictures = open_dataset(config)        # DataError: the whole source is unusable, and what to do
    faults = pictures.check()              # decodes each picture once; what cannot be used, and why
    pictures = pictures.without(faults.names)
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike
from PIL import Image

from ..config.train_config import TrainConfig
from ..system.errors import DataError, NoPictures
from . import repeats
from .decoding import Decoded, Fault, PictureError, decode, decoded, is_transparent, no_caption, upright_size
from .listed_captions import as_trained, choose_captions
from .manifests import assembly, formats
from .sources import choice, leaving_out, snapshots, tables
from .sources.archives import archives
from .sources.folders import folders
from .sources.folders.folders import NO_CAPTIONS
from .sources.folders.found_captions import ELSEWHERE, with_found
from .sources.folders.tree import real, scan
from .sources.listing import Files, Listing, Texts, counts, flags, joined, take, text_column

if TYPE_CHECKING:
    from ..system.figures import Sheet

__all__ = ["EMBEDDED", "CaptionedPictures", "Fault", "Faults", "PictureError", "Sample", "open_dataset"]

SOME = 1 << 13  # identities that are Python objects at the same time
PICTURES = Path(__file__).parents[1] / "tiny" / "pictures"
# name -> folders of PICTURES; the first holds the concept (and gets the trigger word), the others are mixed in.
HINTS = {"caption_without_picture", "other_files", ELSEWHERE}  # kinds of Notes that may say where the captions are
EMBEDDED = {"blueprint": ("blueprint", "plain"), "emblem": ("emblem", "plain")}


class Sample(NamedTuple):
    """One decoded picture: RGB, upright; original_size is (height, width) after EXIF rotation.

    A picture of more than decoding.WHOLE pixels has half the sides of its original_size.
    """

    name: str
    caption: str
    picture: Image.Image
    original_size: tuple[int, int]


class Faults(list[Fault]):
    """The pictures that were left out, as Fault(name, sentence); `print(faults)` says it in one line."""

    @property
    def names(self) -> list[str]:
        return [fault.name for fault in self]

    def __str__(self) -> str:
        if not self:
            return "No picture was left out."
        listed = " ".join(fault.sentence for fault in self[:5])
        more = f" ... and {len(self) - 5} more." if len(self) > 5 else ""
        return f"{len(self)} picture{'s' * (len(self) != 1)} left out: {listed}{more}"


class CaptionedPictures(Sequence[Sample]):
    """Pictures that are listed and captioned, each decoded when asked for: `pictures[3]` is a Sample.

    `.names` and `.captions` are sequences of text that stay small in memory, `.written` the captions without trigger
    words, None where there is none; `.further` are lists of more captions of each picture, None where no picture has
    several; `.faults` what was left out when listing; `.notes` remarks for the log. `.repeats` and `.weights` (N,) say
    how often an epoch sees a picture and what its loss counts, None for once, and 1; the last `.class_pictures` of them
    are those of prior preservation.
    """

    def __init__(
        self, listing: Listing, source: str, rows: ArrayLike | None = None, faults: Iterable[Fault] | None = None
    ) -> None:
        self.listing, self.source, self.notes = listing, source, listing.notes
        self.rows = np.arange(len(listing)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.faults = Faults(listing.faults if faults is None else faults)
        self.names: Texts[str] = Texts(listing.names, self.rows)
        self.captions: Texts[str] = Texts(listing.captions, self.rows)
        written = listing.captions if listing.written is None else listing.written
        self.written: Texts[str | None] = Texts(written, self.rows)
        self.further = None if listing.further is None else take(listing.further, self.rows)
        self.repeats = None if listing.repeats is None else listing.repeats[self.rows]
        self.weights = None if listing.weights is None else listing.weights[self.rows]
        self.folders = None if listing.folders is None else listing.folders.select(self.rows)
        first = len(listing) if listing.first_of_class is None else listing.first_of_class
        self.class_pictures = int((self.rows >= first).sum())

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> "CaptionedPictures": ...

    def __getitem__(self, index: int | slice) -> "Sample | CaptionedPictures":
        """A Sample; a slice gives CaptionedPictures. Raises PictureError that names the picture."""
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        return Sample(self.names[index], self.captions[index], *self.glance(index))

    def glance(self, index: int, side: int | None = None) -> Decoded:
        """A picture to be looked at, its sides no shorter than `side`, if they ever were. Raises PictureError."""
        return decoded(self.picture_bytes(index), self.names[index], self.background(index), side)

    def alternatives(self, index: int) -> list[str]:
        """All captions of a picture, the first first."""
        return [self.captions[index], *([] if self.further is None else self.further[index].as_py())]

    def written_alternatives(self, index: int) -> list[str]:
        """All captions of a picture as they are written, the first first; none where it has none."""
        column = self.listing.written_further
        if self.further is None or column is None:
            rest = [] if self.further is None else self.further[index].as_py()
        else:
            rest = column[int(self.rows[index])].as_py()
        first = self.written[index]
        return [] if first is None else [first, *rest]

    def every_caption(self) -> Texts[str]:
        """The captions of all pictures, and after these the further ones in the order of their pictures."""
        if self.further is None:
            return self.captions
        return Texts(pa.concat_arrays([take(self.listing.captions, self.rows), self.further.flatten()]))

    def owner(self, number: int) -> int:
        """The picture that caption `number` of `every_caption` belongs to."""
        if number < len(self):
            return number
        return int(np.searchsorted(np.cumsum(counts(self.further)), number - len(self), side="right"))

    def picture_bytes(self, index: int) -> bytes:
        """The file as it is stored, still encoded."""
        try:
            return self.listing.read(int(self.rows[index]))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise PictureError(f"{self.names[index]} cannot be opened ({reason}): check the file.") from error

    def mask_bytes(self, index: int) -> bytes | None:
        """The mask that a file or a table holds for a picture, still encoded; None where there is none."""
        try:
            return self.listing.mask(int(self.rows[index]))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise PictureError(f"{self.mask_name(index)} cannot be opened ({reason}): check the file.") from error

    def mask_name(self, index: int) -> str:
        """What to call the mask of a picture."""
        paths = self.listing.masks
        path: str | None = None if paths is None else paths[int(self.rows[index])].as_py()
        return os.path.basename(path) if path else f"the mask of {self.names[index]}"

    def background(self, index: int) -> str:
        """What a picture is laid on where it is transparent; `random` is a function of the seed and its bytes."""
        colour, seed = self.listing.background
        if colour == "white" or not is_transparent(self.picture_bytes(index), self.names[index]):
            return "white"
        if colour == "random":
            return "#" + hashlib.sha256(f"{seed} {self.identity(index)}".encode()).hexdigest()[:6]
        return colour

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) after EXIF rotation, without decoding. Raises PictureError."""
        if self.listing.known is not None:
            height, width = self.listing.known.sizes[self.rows[index]].tolist()
            return height, width
        return upright_size(self.picture_bytes(index), self.names[index])

    def sizes(self) -> np.ndarray:
        """(N, 2) int32: `size` of every picture. Raises PictureError."""
        if self.listing.known is not None:
            return self.listing.known.sizes[self.rows]
        sizes = (self.size(index) for index in range(len(self)))
        return np.fromiter(sizes, np.dtype((np.int32, 2)), len(self))

    def identity(self, index: int) -> str:
        """SHA-256 of the encoded picture, in hex: the same picture has the same identity wherever it lies."""
        if self.listing.known is not None:
            digest: bytes = self.listing.known.digests[self.rows[index]].tobytes()
            return digest.hex()
        return hashlib.sha256(self.picture_bytes(index)).hexdigest()

    def config(self, index: int, config: TrainConfig) -> TrainConfig:
        """The configuration of a run as it is for this picture: as a data file has it for its folder."""
        return config if self.folders is None else self.folders.config(index, config)

    def configs(self, config: TrainConfig) -> list[TrainConfig]:
        """Every configuration that any of the pictures has."""
        if self.folders is None:
            return [config]
        return [config if number < 0 else self.folders.configs[number] for number in np.unique(self.folders.number)]

    def stamp(self, index: int) -> str | None:
        """A text that changes when the stored picture may have changed (file, size, time), or None if unknown."""
        return self.listing.stamp(int(self.rows[index]))

    def stamps(self, indices: ArrayLike) -> list[str | None]:
        """`stamp` of each of these pictures."""
        rows, at_once = self.rows[np.asarray(indices, dtype=np.int64)], self.listing.stamps
        return at_once(rows) if at_once else [self.listing.stamp(row) for row in rows.tolist()]

    def identities(self) -> Iterator[str]:
        """`identity` of every picture."""
        if self.listing.known is None:
            yield from map(self.identity, range(len(self)))
            return
        for first in range(0, len(self), SOME):
            told = self.listing.known.digests[self.rows[first : first + SOME]].tobytes().hex()
            yield from (told[at : at + 64] for at in range(0, len(told), 64))

    def select(self, indices: ArrayLike) -> "CaptionedPictures":
        """These pictures, in this order."""
        return CaptionedPictures(self.listing, self.source, self.rows[np.asarray(indices, dtype=np.int64)], self.faults)

    def without(self, names: Iterable[str]) -> "CaptionedPictures":
        """All but the named pictures; what was left out when listing counts as dealt with if it is named."""
        names = set(names)
        if not names:
            return self
        faults = [fault for fault in self.faults if fault.name not in names]
        return CaptionedPictures(self.listing, self.source, self.rows[~self.names.where(names)], faults)

    def with_class(self, others: "CaptionedPictures") -> "CaptionedPictures":
        """These pictures and after them those of the class, for prior preservation."""
        both = joined([self.compact(), others.compact()])
        both.first_of_class = len(self)
        return CaptionedPictures(both, self.source, faults=self.faults)

    def compact(self) -> Listing:
        """The Listing of these pictures alone."""
        return self.listing.select(self.rows)

    def left_out(self, name: str, side: int | None = None) -> Decoded | None:
        """The decoded picture of this name, though it has no caption; None when there is none that can be read."""
        rows = np.flatnonzero(flags(pc.is_in(self.listing.names, text_column([name]))))
        try:
            return decoded(self.listing.read(int(rows[0])), name, side=side) if len(rows) else None
        except (OSError, PictureError):
            return None

    def check(self, progress: Callable[[int, int], None] | None = None) -> Faults:
        """Decodes every picture once and returns the Faults, those found when listing first.

        `progress(done, total)` is called after each picture. Raises DataError when no usable picture remains.
        """
        found = []
        for index, name in enumerate(self.names):
            try:
                decode(self.picture_bytes(index), name)
            except PictureError as error:
                found.append(Fault(name, str(error)))
            if progress:
                progress(index + 1, len(self))
        return self.judge(found)

    def judge(self, found: Sequence[Fault]) -> Faults:
        """All Faults, those found when listing first. Raises DataError when `found` leaves no picture to use."""
        if len(found) == len(self):
            first = f"; the first: {found[0].sentence}" if found else "."
            raise DataError(f"None of the {len(self)} pictures of {self.source} can be used{first}")
        return Faults([*self.faults, *found])

    def figure(self, count: int = 8) -> "Sheet":
        """A matplotlib Figure of the first pictures with their captions; it shows itself in a notebook."""
        from .contact_sheet import figure

        return figure(self, count)

    def __repr__(self) -> str:
        left_out = f", {len(self.faults)} left out" if self.faults else ""
        return f"CaptionedPictures: {len(self)} pictures from {self.source}{left_out}"

    def _repr_html_(self) -> str:
        from .contact_sheet import html_table

        return html_table(self)


def open_dataset(config: TrainConfig, *, uncaptioned: bool = False) -> CaptionedPictures:
    """CaptionedPictures of the data that the configuration names; nothing is decoded. Raises DataError.

    Where no picture has a caption that is one too, unless they are wanted `uncaptioned`: all left out, to look at. Then
    a folder without pictures, or one that is not there yet, is no pictures instead of an error.
    """
    try:
        listing, source = list_source(config)
    except NoPictures as error:
        if not uncaptioned:
            raise
        return _none_yet(config, error)
    if listing.folders is None:
        choose_captions(listing, config)
    elif not uncaptioned:
        assembly.refuse_uncaptioned(listing)
    listing.background = config.alpha_background, config.seed
    if listing.faults and not len(listing):
        raise DataError(f"None of the pictures of {source} can be used; the first: {listing.faults[0].sentence}")
    if not uncaptioned and not (pc.max(pc.binary_length(listing.captions)).as_py() or 0):
        hints = [note.rstrip(".") for note in listing.notes if getattr(note, "kind", "") in HINTS]
        reasons = [*([NO_CAPTIONS] if NO_CAPTIONS in listing.notes else []), *hints]
        if listed := formats.in_folder(str(config.train_data_dir or config.dataset_name)):
            reasons.append(f"{listed} in it is a data file, which --train_data_dir takes by itself")
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise DataError(f"{source} has no captions at all{why}: add them, or give a --trigger_word to train on alone.")
    missing = flags(listing.captions.is_null())
    unwanted = _by_hand(listing, config)
    missing &= ~unwanted
    listing.faults += [no_caption(name) for name in Texts[str](listing.names, np.flatnonzero(missing))]
    listing.faults += [leaving_out.fault(name) for name in Texts[str](listing.names, np.flatnonzero(unwanted))]
    rows = np.flatnonzero(~(missing | unwanted))
    if listing.folders is not None and config.max_train_samples:  # what is held out is no sample to train on
        held_out = listing.folders.held_out()[rows]
        rows = rows[held_out | (np.cumsum(~held_out) <= config.max_train_samples)]
        return CaptionedPictures(listing, source, rows)
    return CaptionedPictures(listing, source, rows[: config.max_train_samples])


def _by_hand(listing: Listing, config: TrainConfig) -> np.ndarray:
    """(N,) bool: the pictures of a local folder that somebody has put on its list of what is left out."""
    place = os.path.expanduser(config.train_data_dir or config.dataset_name or "")
    names = leaving_out.listed(place) if listing.folders is None and os.path.isdir(place) else set()
    return flags(pc.is_in(listing.names, text_column(names))) if names else np.zeros(len(listing), bool)


def _none_yet(config: TrainConfig, error: NoPictures) -> CaptionedPictures:
    """No pictures, and in the notes why."""
    place, names = str(config.train_data_dir or config.dataset_name), text_column([])
    files = Files(place, names)
    return CaptionedPictures(Listing(names, text_column([]), files.read, files.stamp, [], [str(error)]), place)


def list_source(config: TrainConfig) -> tuple[Listing, str]:
    """(Listing with trigger words and what folders say in place, what to call the source)."""
    name = config.dataset_name
    place = str(config.train_data_dir or name or "")
    if formats.is_there(place):
        return assembly.assembled(place, config, list_directory), place
    if config.train_data_dir:
        listing, source = list_directory(str(config.train_data_dir), config), str(config.train_data_dir)
    elif not name:
        raise DataError("There is no data: give --dataset_name or --train_data_dir.")
    elif name.startswith("embedded:"):
        return repeats.by_folder(list_embedded(name.removeprefix("embedded:"), config), config), name
    elif os.path.isdir(name) or archives.is_archive(name):  # which take a name of any length
        listing, source = list_directory(name, config), f"the local folder {name}" if os.path.isdir(name) else name
    elif folder := snapshots.snapshot_of(name, config):
        listing, source = list_directory(str(folder), config), name
    else:
        listing, source = tables.list_hub(name, config), name
    return as_trained(repeats.by_folder(with_found(listing, config), config), config), source


def list_directory(place: str, config: TrainConfig) -> Listing:
    """The Listing of a folder or s3:// prefix, whatever kind of data set it holds."""
    if place.startswith("s3://"):
        from .sources import s3

        place = str(s3.download(place, config.cache_dir))
    folder = real(os.path.expanduser(place))
    if not os.path.exists(folder):
        raise NoPictures(f"There is no folder {place}: check --train_data_dir.")
    if archives.is_archive(folder):
        return archives.list_archives([str(folder)], config)
    if not folder.is_dir():
        raise DataError(f"{place} is a file, not a folder: give the folder that holds it with --train_data_dir.")
    if not next(scan(folder), None):
        raise NoPictures(f"The folder {place} is empty: check --train_data_dir.")
    if tables.is_saved(folder):
        return tables.list_saved(folder, config)
    return choice.list_local(folder, config)


def list_embedded(name: str, config: TrainConfig) -> Listing:
    """The Listing of an embedded set: its concept, then the plain pictures to mix in, names led by their folder."""
    if name not in EMBEDDED:
        raise DataError(f"There is no embedded data set '{name}': choose one of {', '.join(sorted(EMBEDDED))}.")
    concept, *others = (folders.list_folder(PICTURES / part, config) for part in EMBEDDED[name])
    listed = [as_trained(concept, config), *(as_trained(other, config, led=False) for other in others)]
    for part, listing in zip(EMBEDDED[name], listed, strict=True):
        listing.names = text_column(f"{part}/{name}" for name in Texts[str](listing.names))
    return joined(listed)
