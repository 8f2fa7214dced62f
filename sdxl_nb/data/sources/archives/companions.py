"""Pictures in archives that belong to another picture (its mask, thumbnail) or to no set, told by their names.

In: the names of the pictures in archives, and which of them have a caption. Out: Settled: which of them are training
pictures, and the mask of each that has one. What a name means, and that a caption of its own makes a picture one of the
set, is as in folders (folders/strangers.py, folders/companions.py).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..folders import strangers
from ..folders.companions import Doubtful, settled
from ..folders.leavings import Leavings
from ..folders.survey import Corner
from ..listing import Note, Texts, flags

FOLDERS = "|".join(re.escape(name) for name in (*strangers.SURE, *strangers.UNSURE))
# names that need a look: as a whole column, because there may be many
ODD = (
    rf"(?i)(?:{strangers.LABEL.pattern}|{strangers.BESIDE.pattern})\.[^./]+$"
    rf"|(?:^|/)(?:{FOLDERS}|validation/[^/]+|[^/]*(?:masks|mattes)[^/]*)(?:\.zip|\.tar)?/"
)


class Settled(NamedTuple):
    """Of N pictures `kept` (N,) bool says which are of the set, `masks` the mask of a picture, `notes` what is left."""

    kept: np.ndarray
    masks: dict[str, str]
    notes: list[Note]


def sort_out(names: pa.Array, captioned: np.ndarray, parts: pa.Array) -> Settled:
    """Settled of pictures with these names. `parts` are those that webdataset keeps with one of the same key."""
    odd = np.flatnonzero(flags(pc.match_substring_regex(names, ODD)))
    kept, leavings = np.ones(len(names), bool), Leavings(Path(), "archive")
    doubtful = [*_doubtful(names, odd, captioned, leavings, kept), *_of_parts(parts)]
    if not doubtful and kept.all():
        return Settled(kept, {}, [])
    unsure = {one.name for one in doubtful}
    kept[odd] &= ~np.isin(odd, [row for row in odd.tolist() if names[row].as_py() in unsure])
    if not kept.any():  # nothing else would be left
        return Settled(np.ones(len(names), bool), {}, [])
    more, left, masks = settled(doubtful, Texts[str](names, np.flatnonzero(kept)))
    again = set(more)
    for row in odd.tolist() if again else ():
        kept[row] |= names[row].as_py() in again
    told = set(Texts[str](parts))
    for one in left:
        if one.name not in told:
            leavings.leave(one.reason, one.name)
    leavings.doubtful = any(not one.sure for one in left)
    return Settled(kept, masks, leavings.notes(tables=False))


def _doubtful(
    names: pa.Array, odd: np.ndarray, captioned: np.ndarray, leavings: Leavings, kept: np.ndarray
) -> Iterator[Doubtful]:
    """Those of the `odd` rows that are doubtful; what is in a folder of no set for certain is no longer `kept`."""
    for row in odd.tolist():
        below, _, file = names[row].as_py().rpartition("/")
        reason, doubt = _of_folders(below)
        if reason:
            leavings.leave(reason, names[row].as_py())
            kept[row] = False
            continue
        stem = os.path.splitext(file)[0].lower()
        label = strangers.labelled(stem)
        if label or not captioned[row]:
            found = Corner(below + "/" * bool(below), (), False, doubt).suspicion(file, stem, label)
            if found:
                yield found


def _of_folders(below: str) -> tuple[str | None, tuple[str, str] | None]:
    """(why the folder is none of the set for certain, else (reason, folder) of a doubt that its name raises)."""
    path, doubt = "", None
    for part in below.split("/") if below else ():
        path += f"{part}/"
        plain = path[:-1].removesuffix(".zip").removesuffix(".tar")  # of several archives the name is a folder's
        if sure := strangers.certain(plain, (), ()):
            return sure, None
        suspected = None if doubt else strangers.doubt(plain)
        doubt = doubt or ((suspected, path) if suspected else None)
    return None, doubt


def _of_parts(parts: pa.Array) -> Iterator[Doubtful]:
    """The masks among pictures such as key.mask.png, which belong to key.jpg."""
    for name in Texts[str](parts):
        owned = strangers.by_name(os.path.splitext(name)[0].lower())
        if owned:
            yield Doubtful(name, owned[0], keys=(owned[1],), sure=True)
