"""Captions from elsewhere than texts and columns: those that pictures carry, and JSON files beside them.

In: a Listing. Out: the Listing with these captions, where `caption_source` asks for them; else, where captions are
missing, a remark that says where some are.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ....config.train_config import TrainConfig
from ....system.threads import ahead
from ...decoding import PictureError
from ...words import sidecars
from ...words.carried import carried
from ..listing import CaptionColumn, Listing, Note, Texts, flags

LOOKED_AT = 50  # pictures without a caption that are searched for a hint
ELSEWHERE = "captions_elsewhere"  # a kind of Note
MAX_JSON = 1 << 20  # bytes
Found = tuple[list[str], str]  # captions, and where they were


def with_found(listing: Listing, config: TrainConfig) -> Listing:
    """The Listing with the captions that pictures carry, if they are asked for; a remark says how many do.

    A picture that carries none keeps what it has.
    """
    look = partial(_carried, listing)
    if config.caption_source == "picture":
        return _replaced(listing, look, "carry their caption")
    if config.caption_source == "files":
        _hint(listing, look, "carry captions themselves", "picture")
    return listing


def with_json(listing: Listing, root: Path | str, config: TrainConfig) -> Listing:
    """The same for the JSON files beside the pictures of a folder."""
    look = partial(_beside, root, listing.names, config)
    if config.caption_source == "json":
        return _replaced(listing, look, "have their caption in a JSON file")
    if config.caption_source == "files":
        _hint(listing, look, "have captions in JSON files beside them", "json")
    return listing


def _replaced(listing: Listing, look: Callable[[int], Found], told: str) -> Listing:
    column, places = CaptionColumn(), Counter[str]()
    further: Texts[Any] | None = Texts(listing.further) if listing.further is not None else None
    captions = Texts[str | None](listing.captions)
    for row, (found, place) in enumerate(ahead(look, range(len(listing)))):
        places[place] += bool(found)
        if not found and captions[row] is not None:
            found = [str(captions[row]), *(further[row] if further is not None else [])]
        column.append(found)
    listing.captions, listing.further = column.finish()
    count = sum(places.values())
    where = f" ({_listed(places)})" if count else ""
    rest = "" if count == len(listing) else "; the others keep that of their files"
    listing.notes.append(f"{count} of {len(listing)} pictures {told}{where}{rest}.")
    return listing


def _hint(listing: Listing, look: Callable[[int], Found], told: str, setting: str) -> None:
    rows = np.flatnonzero(flags(listing.captions.is_null()))[:LOOKED_AT].tolist()
    places = Counter(place for captions, place in map(look, rows) if captions)
    if places:
        some = f"{sum(places.values())} of {len(rows)} pictures without a caption"
        more = " that were looked at" if len(rows) == LOOKED_AT else ""
        where = f"{some}{more} {told} ({_listed(places)})"
        listing.notes.append(Note(f"{where}: --caption_source {setting} reads them.", ELSEWHERE))


def _listed(places: Counter[str]) -> str:
    return ", ".join(f"{place}: {count}" for place, count in places.most_common() if count)


def _carried(listing: Listing, row: int) -> Found:
    name = listing.names[row].as_py()
    try:
        found = carried(listing.read(row), name)
    except (OSError, PictureError):  # which is told when it is used
        found = {}
    place = next(iter(found), "")
    return ([found[place]], place) if place else ([], "")


def _beside(root: Path | str, names: Sequence[str], config: TrainConfig, row: int) -> Found:
    """The captions in a.json or a.jpg.json; one that cannot be read has none."""
    name = str(names[row])
    stem = name[: name.rfind(".")]
    for path in (f"{stem}.json", f"{name}.json"):
        try:
            with open(os.path.join(root, path), "rb") as file:
                text = file.read(MAX_JSON + 1)
            captions = sidecars.read(text.decode("utf-8-sig"), config) if len(text) <= MAX_JSON else []
        except (OSError, ValueError):
            continue
        if captions:
            return captions, "JSON"
    return [], ""
