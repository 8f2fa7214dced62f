"""Pictures that may belong to another picture (its mask, thumbnail, conditioning picture) or to no set: which do?

In: Doubtful pictures, and the names of those that are none. Out: the doubtful ones that are training pictures after
all, those that are not, and the mask of each picture that has one.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .strangers import CONTROL, MASK, THUMBNAIL

OF_ANOTHER = (MASK, CONTROL, THUMBNAIL)


class Doubtful(NamedTuple):
    """A picture without a caption, and why it may be none of the set; `sure`: a caption would not help.

    Its own picture is called `keys` (any of them), in small letters and with or without suffix: somewhere below
    `scope` ("" or "a/b/"), or exactly so where `folder` is "". `folder` is the one whose name raised the doubt.
    """

    name: str
    reason: str
    scope: str = ""
    keys: tuple[str, ...] = ()
    folder: str = ""
    sure: bool = False


def settled(doubtful: list[Doubtful], pictures: Iterable[str]) -> tuple[list[str], list[Doubtful], dict[str, str]]:
    """(doubtful names that are training pictures, the Doubtful that are not, picture -> mask).

    What belongs to a picture by its name is none itself, and neither are the others in a folder of such; what has a
    folder of masks for itself and no partner is a picture of masks.
    """
    owned, masks = _owned(doubtful, pictures)
    folders = {one.folder for one in doubtful if one.folder and one.name in owned}
    left = [one for one in doubtful if one.reason not in OF_ANOTHER or one.name in owned or one.folder in folders]
    names = {one.name for one in left}
    return [one.name for one in doubtful if one.name not in names], left, masks


def _owned(doubtful: list[Doubtful], pictures: Iterable[str]) -> tuple[set[str], dict[str, str]]:
    """The names of those that have a picture, and the mask of each such picture."""
    exact: dict[str, list[Doubtful]] = {}
    below: dict[str, dict[str, list[Doubtful]]] = {}
    for one in doubtful:
        table = below.setdefault(one.scope, {}) if one.folder else exact
        for key in one.keys:
            table.setdefault(key, []).append(one)
    owned: set[str] = set()
    masks: dict[str, str] = {}
    for picture in pictures if exact or below else ():
        for one in _partners(picture.lower(), exact, below):
            owned.add(one.name)
            if one.reason == MASK:
                masks.setdefault(picture, one.name)
    return owned, masks


def _partners(
    low: str, exact: dict[str, list[Doubtful]], below: dict[str, dict[str, list[Doubtful]]]
) -> Iterator[Doubtful]:
    """The doubtful ones that belong to a picture of this name: beside it first, then those of the nearest path."""
    for form in (os.path.splitext(low)[0], low):
        yield from exact.get(form, ())
        for scope, table in below.items():
            rest = form[len(scope) :] if form.startswith(scope) else ""
            while rest and rest not in table:
                rest = rest.partition("/")[2]
            yield from table.get(rest, ())
