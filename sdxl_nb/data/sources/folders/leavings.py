"""What of a folder is not trained on, counted by reason, and the sentences that say so.

In: names and reasons, while a folder is looked through. Out: Notes for the log and the audit.
"""

from collections.abc import Iterable
from pathlib import Path

from ...decoding import printable
from ..listing import Note
from .strangers import HIDDEN, REGULARISATION
from .suffixes import LOOKED_AT
from .tree import scan

SHOWN = 3  # names in a sentence
ORPHAN, TWO_CAPTIONS = "caption_without_picture", "two_caption_files"  # kinds of Notes
TO_CLASS = " Give regularisation pictures as --class_data_dir."
TO_USE = " A caption of its own makes a picture one of the set."


class Leavings:
    """Fill in while a folder is looked through; `notes` says what there is."""

    def __init__(self, root: Path, where: str = "folder"):
        self.root, self.where = root, where
        self.pictures: dict[str, dict[str, int]] = {}  # reason -> folder or file -> how many pictures
        self.doubtful = False  # whether some of them are left out by their names alone
        self.unlistable: list[str] = []
        self.others: list[str] = []
        self.orphans: list[str] = []  # caption files without a picture
        self.two: dict[str, str] = {}  # picture -> the one of its caption files that is used
        self.links: list[str] = []  # to folders that are read already

    def leave(self, reason: str, place: str) -> None:
        """Count a picture, or the pictures in a folder ("a/b/")."""
        count = sum(name.endswith(LOOKED_AT) for name in scan_all(self.root / place)) if place.endswith("/") else 1
        if count:
            self.pictures.setdefault(reason, {})[printable(place)] = count

    def take_back(self, place: str) -> None:
        """What was counted in a folder is read after all."""
        for places in self.pictures.values():
            places.pop(place, None)
        self.pictures = {reason: places for reason, places in self.pictures.items() if places}

    def hide(self, below: str, names: Iterable[str]) -> None:
        """Count the pictures among hidden names; what git keeps is nobody's."""
        for name in names:
            if name.lower().endswith(LOOKED_AT) or (name.endswith("/") and name != ".git/"):
                self.leave(HIDDEN, below + name)

    def __bool__(self) -> bool:
        return bool(self.pictures)

    def sentence(self) -> str:
        """What is not trained on, and why."""
        total = sum(sum(places.values()) for places in self.pictures.values())
        parts = (f"{why} {sum(places.values())} ({some(places)})" for why, places in self.pictures.items())
        advice = TO_CLASS * (REGULARISATION in self.pictures) + TO_USE * self.doubtful
        return f"{counted(total, 'picture')} in the {self.where} not trained on: {', '.join(parts)}.{advice}"

    def notes(self, tables: bool) -> list[Note]:
        """The Notes; where `tables` name the pictures, texts and links beside them are expected to be more."""
        found = [Note(self.sentence(), "not_training_pictures")] if self.pictures else []
        if self.unlistable:
            told = f"{some(self.unlistable)}: what is in there is left out; check the permissions."
            found.append(Note(told, "cannot_be_listed"))
        if self.two:
            first, used = next(iter(self.two.items()))
            told = f"{first} has two caption files; {used} is used."
            if len(self.two) > 1:
                told = f"{len(self.two)} pictures have two caption files, such as {first}; {used} is used."
            found.append(Note(told, TWO_CAPTIONS, {name: f"{text} is used" for name, text in self.two.items()}))
        if not tables:
            found += leftover_captions(self.orphans)
        if self.links and not tables:
            found.append(Note(f"Links to folders that are read already are not followed ({some(self.links)}).", "link"))
        if self.others:
            told = f"{counted(len(self.others), 'other file')} not read ({some(sorted(self.others))})."
            found.append(Note(told, "other_files"))
        return found


def leftover_captions(names: Iterable[str]) -> list[Note]:
    """A Note about caption files that belong to no picture, if there are any."""
    orphans = sorted(map(printable, names))
    if not orphans:
        return []
    told = f"{counted(len(orphans), 'caption file')} without a picture of that name ({some(orphans)})."
    return [Note(told, ORPHAN, dict.fromkeys(orphans, ""))]


def scan_all(folder: Path) -> Iterable[str]:
    """The names of all files below a folder, those of folders within that cannot be listed left out."""
    from ....system.errors import DataError

    try:
        yield from scan(folder)
    except DataError:
        return


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def some(names: Iterable[str]) -> str:
    """The first of these names."""
    names = list(names)
    return ", ".join(map(printable, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)
