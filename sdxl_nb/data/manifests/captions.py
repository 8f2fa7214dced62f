"""The captions of a folder as a data file means them: the same for all, the files' names, one kind of caption files.

In: the Listing of a folder and its Words. Out: the Listing with those captions; what it has stays where Words say
nothing.
"""

import os
import re
from pathlib import Path

from ...system.errors import DataError
from ..decoding import Fault
from ..folder_settings import Words
from ..sources.folders.caption_files import read_text
from ..sources.folders.folders import NO_CAPTIONS
from ..sources.listing import CaptionColumn, Listing, Texts, flags

BLANKS = re.compile(r"[_\s]+")


def worded(listing: Listing, words: Words, root: Path) -> Listing:
    """The Listing with the captions that `words` mean; `root` is the folder that its names are relative to."""
    if words.every:
        _replace(listing, [list(words.every)] * len(listing))
    elif words.from_names:
        blanks = words.from_names == "with blanks"
        _replace(listing, [[named(name, blanks)] for name in Texts[str](listing.names)])
    elif words.suffix:
        _replace(listing, [_read(listing, name, words, root) for name in Texts[str](listing.names)])
    if words.missing:
        missing = int(flags(listing.captions.is_null()).sum())
        listing.caption_each(lambda _, text: words.missing if text is None else text)
        listing.notes = [note for note in listing.notes if note != NO_CAPTIONS]
        if missing and not words.every:
            listing.notes.append(f"{missing} of {len(listing)} pictures have no caption and take {words.missing!r}.")
    if words.replaced:
        old, new = words.replaced
        listing.caption_each(lambda _, text: text and text.replace(old, new))
    if words.before or words.after:
        listing.caption_each(lambda _, text: around(text, words))
    return listing


def around(text: str | None, words: Words) -> str | None:
    """A caption between what is put before and after it."""
    return text if text is None else " ".join(part for part in (words.before, text, words.after) if part)


def named(name: str, blanks: bool) -> str:
    """The caption in a file's name: without folder and suffix, perhaps with `blanks` for underscores."""
    stem = os.path.splitext(os.path.basename(name))[0]
    return BLANKS.sub(" ", stem).strip() if blanks else stem


def _replace(listing: Listing, captions: list[list[str]]) -> None:
    column = CaptionColumn()
    for texts in captions:
        column.append(texts)
    listing.captions, listing.further = column.finish()
    listing.notes = [note for note in listing.notes if note != NO_CAPTIONS]


def _read(listing: Listing, name: str, words: Words, root: Path) -> list[str]:
    """The captions in the file of this suffix beside a picture, none where there is none; a Fault where it is bad."""
    path = os.path.splitext(name)[0] + (words.suffix or "")
    if not os.path.isfile(root / path):
        return []
    try:
        lines = [line.strip() for line in read_text(root, path).splitlines()]
    except DataError as error:
        listing.faults.append(Fault(name, f"{name}: its caption file {error}"))
        return []
    lines = [line for line in lines if line]
    if words.lines == "all":
        return [" ".join(lines)] if lines else []
    return lines if words.lines == "each" else lines[:1]
