"""What a folder holds, found in one walk: pictures with the text beside each, metadata files, and what is neither.

In: the real path of a folder and a TrainConfig. Out: a Survey. Nothing is opened but files of unknown suffix, which
may be pictures all the same. Every file is one of those that are read, or is named, or counted, with the reason.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....config.layout import CLASS_PICTURE, CLASS_RECORD
from ....config.train_config import TrainConfig
from ...decoding import SUFFIXES, Fault, is_text, printable
from .. import metadata
from ..listing import TextColumn, Texts, take, text_column
from . import strangers
from .caption_files import as_owner, by_owner, captions_of
from .companions import Doubtful, settled
from .leavings import Leavings
from .suffixes import ARCHIVES, CAPTION, KINDS, OTHER, PACKED, PICTURE, TABLE, hidden_picture
from .tree import Entries, entries, real, unlistable

WEIGHED = (".parquet", *ARCHIVES, *PACKED)  # choice.py says what becomes of them
MODELS = (".safetensors", ".ckpt")


class Corner(NamedTuple):
    """A folder while it is looked through."""

    below: str  # its path, "" or "a/b/"
    models: Collection[str]  # stems of model files in it, in small letters
    drawn: bool  # whether class pictures were drawn into it
    doubt: tuple[str, str] | None  # (reason, folder) where its name, or that of one above, raises one

    def suspicion(self, name: str, stem: str, label: tuple[str, str] | None) -> Doubtful | None:
        """What a picture of this name in it may be instead of one of the set; `label`: what its label says."""
        below, named = self.below.lower(), strangers.by_name(stem)
        found = label or (None if self.doubt else named)
        if found:
            return Doubtful(self.below + name, found[0], keys=(below + found[1],), sure=bool(label))
        if self.doubt:
            reason, folder = self.doubt
            path, above = below[len(folder) :], folder[:-1].lower().rpartition("/")
            keys = tuple(path + owner for owner in (stem, *(named[1:] if named else ())))
            return Doubtful(self.below + name, reason, above[0] + above[1], keys, folder)
        if stem in self.models or stem.removesuffix(".preview") in self.models:
            return Doubtful(self.below + name, strangers.PREVIEW)
        return None


class Survey:
    """`pictures` and `texts` are Arrow columns: names, sorted, and of each the file with its caption or null. `tables`
    are metadata files, `faults` pictures that cannot be used, `never` folders that are not looked into ("a/b/") by
    reason, `masks` the mask of each picture that has one. All names are relative to `root`.
    """

    def __init__(self, root: Path, config: TrainConfig, given: Path, listed: Entries | None = None):
        self.root, self.leavings = root, Leavings(root)
        self.tables: list[str] = []
        self.faults: list[Fault] = []
        self.masks: dict[str, str] = {}
        own = strangers.own_folders(given, config)
        self.never = {f"{path.relative_to(root).as_posix()}/": why for path, why in own.items() if root in path.parents}
        self._doubtful: list[Doubtful] = []
        self._links: list[str] = []
        self._seen: set[str] = set()
        self._pictures, self._texts = TextColumn(), TextColumn()
        self._visit("", None, (), listed)
        self._follow()
        self.pictures, self.texts = self._pictures.finish(), self._texts.finish()

    def leave_out(self, beside: dict[str, str]) -> None:
        """Leave out the files that metadata files name as something of a picture (file -> column)."""
        inside = Texts[str](self.pictures).where(beside)
        left = [*Texts[str](self.pictures, np.flatnonzero(inside)), *(one.name for one in self._doubtful)]
        for name in left:
            if name in beside:
                self.leavings.leave(f"named as {beside[name]}", name)
        self._doubtful = [one for one in self._doubtful if one.name not in beside]
        kept = np.flatnonzero(~inside)
        self.pictures, self.texts = take(self.pictures, kept), take(self.texts, kept)

    def settle(self, named: Collection[str]) -> None:
        """Decide about the doubtful, once it is known which pictures metadata files name."""
        doubtful = [one for one in self._doubtful if one.name not in named]
        if not doubtful:
            return
        more, left, self.masks = settled(doubtful, [*Texts[str](self.pictures), *named])
        if not len(self.pictures) and not named:  # nothing else would be left
            more, left = [one.name for one in doubtful], []
        for one in left:
            self.leavings.leave(one.reason, one.name)
        self.leavings.doubtful = any(not one.sure for one in left)
        if more:
            texts = dict(zip(Texts[str](self.pictures), Texts[str | None](self.texts), strict=True)) | dict.fromkeys(
                more
            )
            names = sorted(texts)
            self.pictures, self.texts = text_column(names), text_column(texts[name] for name in names)

    def _visit(
        self, below: str, doubt: tuple[str, str] | None, siblings: Iterable[str], listed: Entries | None = None
    ) -> None:
        """Take what the folder `below` holds (`listed`, if that is known), between `siblings`."""
        self._seen.add(below)
        try:
            found = listed or entries(self.root, below)
        except OSError as error:
            if not below:
                raise unlistable(error) from error
            self.leavings.unlistable.append(f"{below[:-1]} cannot be listed ({error.strerror})")
            return
        if below:
            reason = self.never.get(below) or strangers.certain(below, set(found.names), siblings)
            if reason:
                self.never[below] = reason
                self.leavings.leave(reason, below)
                return
            suspected = strangers.doubt(below)
            doubt = doubt or ((suspected, below) if suspected else None)
        self.leavings.hide(below, found.hidden)
        self._links += [below + name for name in found.links]
        self._sort(below, found, doubt)

    def _sort(self, below: str, found: Entries, doubt: tuple[str, str] | None) -> None:
        """Every name of a folder to its kind; subfolders in between, so that all names come out sorted."""
        kinds = [KINDS.get(name[name.rfind(".") :].lower()) for name in found.names]  # `ending`, without 100,000 calls
        texts = by_owner(name for name, kind in zip(found.names, kinds, strict=True) if kind == CAPTION)
        odd = OTHER in kinds  # more than pictures and captions
        models = stems(found.names, MODELS) if odd else ()
        corner = Corner(below, models, odd and not below and CLASS_RECORD in found.names, doubt)
        spare, free = [], dict(texts)
        pictures, captions, plain = self._pictures, self._texts, below.isascii() and not corner.drawn
        for name, kind in zip(found.names, kinds, strict=True):
            if name[-1] == "/":
                self._visit(below + name, doubt, found.folders)
            elif kind == PICTURE:
                stem = name[: name.rfind(".")].lower()
                beside = captions_of(name, stem, texts) if texts else []
                if plain and len(beside) == 1 and name.isascii() and not stem.endswith("label"):  # as nearly all are
                    pictures.append(below + name)
                    captions.append(below + beside[0])
                    free.pop(stem, None)
                elif self._is_of_the_set(corner, name, stem, beside):
                    self._take(below + name, [below + text for text in beside])
                    if free:
                        free.pop(as_owner(stem), None)
            elif kind == TABLE and name.lower() in metadata.NAMES:
                self.tables.append(below + name)
            elif kind != CAPTION:
                spare.append((name, kind))
        owners = set(map(as_owner, found.names)) if free else ()
        self.leavings.orphans += [below + t for owner, its in free.items() if owner not in owners for t in its]
        if spare:
            self._judge(below, spare, stems(found.names, SUFFIXES))

    def _take(self, name: str, beside: list[str]) -> None:
        """A picture of the set, and the texts beside it."""
        if not name.isascii() and not is_text(name):
            seen = printable(name)
            self.faults.append(Fault(seen, f"{seen} has a name that is not UTF-8: rename it."))
            return
        self._pictures.append(name)
        self._texts.append(beside[0] if beside else None)
        if len(beside) > 1:
            self.leavings.two[name] = beside[0]

    def _is_of_the_set(self, corner: Corner, name: str, stem: str, beside: list[str]) -> bool:
        """Whether a picture is taken; one that is doubtful is kept for `settle`. `stem` is in small letters."""
        label = strangers.labelled(stem) if stem.endswith("label") else None
        if corner.drawn and CLASS_PICTURE.fullmatch(name):
            self.leavings.leave(strangers.CLASS, corner.below + name)
            return False
        if beside and not label:
            return True
        doubt = corner.suspicion(name, stem, label)
        if doubt:
            self._doubtful.append(doubt)
        return not doubt

    def _judge(self, below: str, spare: list[tuple[str, str | None]], pictures: Collection[str]) -> None:
        """Files that are no pictures by their suffix: those that a person may have meant as one are Faults."""
        for name, kind in spare:
            seen = printable(below + name)
            sentence = hidden_picture(f"{self.root}/{below}{name}", seen) if kind is None else None
            if kind not in (None, OTHER, TABLE) and name[: name.rfind(".")].lower() not in pictures:
                sentence = kind.format(name=seen)  # one beside a picture of its name is what that was made from
            if sentence:
                self.faults.append(Fault(seen, sentence))
            elif not name.lower().endswith(WEIGHED):
                self.leavings.others.append(below + name)

    def _follow(self) -> None:
        """Links to folders that are not looked into already, as one to what is hidden; these may hold links too."""
        for link in self._links:
            target = f"{real(self.root / link).relative_to(self.root).as_posix()}/"
            if target in self._seen or target == "./":
                self.leavings.links.append(link)
            elif not any(target.startswith(folder) for folder in self.never):
                self._seen.add(target)
                self.leavings.take_back(target)
                self._visit(f"{link}/", None, ())


def stems(names: Iterable[str], suffixes: tuple[str, ...]) -> set[str]:
    """The names that end so, in small letters and without the suffix."""
    return {name[: name.rfind(".")].lower() for name in names if name.lower().endswith(suffixes)}
