"""Captions in text files beside pictures: names of files in, which of them belong to which picture; texts.

Of a picture a.jpg they are a.txt, a.caption, a.cap, or a.jpg.txt, in small letters or capitals, and with the marks
above letters apart or not: macOS takes them apart.
"""

import os
import unicodedata
from collections.abc import Iterable

from ....system.errors import DataError
from .suffixes import CAPTIONS, ending

MAX_CAPTION = 1_000_000  # bytes of one caption's file
SHORT = 4096  # bytes that hold nearly every caption: to have the room for the largest costs more than to read one


def as_owner(name: str) -> str:
    """A name in small letters, its marks not apart."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.lower())


def by_owner(names: Iterable[str]) -> dict[str, list[str]]:
    """Caption files by what their picture may be called: `as_owner`, with its suffix or without."""
    found: dict[str, list[str]] = {}
    for name in names:
        owner = as_owner(name[: name.rfind(".")])
        if owner in found:
            found[owner].append(name)
        else:
            found[owner] = [name]
    return found


def captions_of(name: str, stem: str, texts: dict[str, list[str]]) -> list[str]:
    """The caption files of the picture `name`, in small letters and without suffix `stem`; the one to be used first."""
    found, more = texts.get(as_owner(stem), []), texts.get(as_owner(name))
    if more or len(found) > 1:
        return sorted([*found, *(more or ())], key=lambda text: _rank(text, name))
    return found


def _rank(text: str, name: str) -> tuple[bool, bool, int]:
    """Small for what is nearest: the same letters, the name without suffix, the usual suffix."""
    suffix = ending(text)
    owner, stem = text[: -len(suffix)], name[: name.rfind(".")]
    return owner not in (stem, name), len(owner) > len(stem), CAPTIONS.index(suffix)


def read_text(root: str | os.PathLike[str], name: str) -> str:
    """UTF-8 text, with or without a byte order mark."""
    try:
        file = os.open(f"{root}/{name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))  # half the calls of open(): 100,000
        try:
            text = os.read(file, SHORT)
            if len(text) == SHORT:
                text += os.read(file, MAX_CAPTION + 1 - SHORT)
        finally:
            os.close(file)
        if len(text) > MAX_CAPTION:
            raise DataError(f"{os.path.basename(name)} is larger than {MAX_CAPTION:,} bytes: shorten it.")
        return text.decode().removeprefix("\ufeff")  # a third of the time of utf-8-sig
    except UnicodeDecodeError as error:
        raise DataError(f"{os.path.basename(name)} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:  # a link that leads nowhere, a file of somebody else
        raise DataError(f"{os.path.basename(name)} cannot be read ({error.strerror}): correct or remove it.") from error
