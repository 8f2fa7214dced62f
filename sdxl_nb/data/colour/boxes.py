"""The boxes of AVIF, HEIF and JPEG 2000: what they say of the colours of the main picture.

In: the bytes of a file, of which nothing is decoded. Out: ColourBoxes, empty for other files and damaged ones.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_PROFILE = 32 << 20  # bytes; a printer's profile has a few million
BEFORE = {b"meta": 4, b"stsd": 8, b"av01": 78}  # bytes of a box before the first box inside it
TRACK = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")
Box = tuple[bytes, int, int]  # its name, and where its contents begin and end


class ColourBoxes(NamedTuple):
    """Of a picture in boxes: its ICC profile, its CICP code points (primaries, transfer), whether it is all grey."""

    profile: bytes | None = None
    cicp: tuple[int, int] | None = None
    grey: bool = False


def colour_boxes(data: bytes) -> ColourBoxes:
    """What is said of the main picture in AVIF and HEIF (of the primary item, else of a track) and JPEG 2000."""
    try:
        found = _item_properties(data) or _boxes_at(data, *TRACK) or _boxes_at(data, b"jp2h")
        said = [_colr(data[start:end]) for name, start, end in found if name == b"colr"]
        grey = any(_is_grey(name, data[start:end]) for name, start, end in found)
    except (struct.error, IndexError):
        return ColourBoxes()
    profiles = (one.profile for one in said if one.profile)
    codes = (one.cicp for one in said if one.cicp)
    return ColourBoxes(next(profiles, None), next(codes, None), grey)


def _boxes_at(data: bytes, *way: bytes) -> list[Box]:
    return list(boxes(data, *_down(data, *way)))


def _down(data: bytes, *way: bytes) -> tuple[int, int]:
    """Where the contents of the box lie that these names lead to, each the first of its name; (0, 0) without one."""
    place = (0, len(data))
    for name in way:
        start, end = next(((start, end) for kind, start, end in boxes(data, *place) if kind == name), (0, 0))
        place = (start + BEFORE.get(name, 0), end)
    return place


def _item_properties(data: bytes) -> list[Box]:
    """The properties of the primary item."""
    at, _ = _down(data, b"meta", b"pitm")
    primary = int.from_bytes(data[at + 4 : at + (8 if data[at] else 6)], "big")
    lists = [start for name, start, _ in _boxes_at(data, b"meta", b"iprp") if name == b"ipma"]
    wanted = {number for start in lists for number in _of_item(data, start, primary)}
    return [box for number, box in enumerate(_boxes_at(data, b"meta", b"iprp", b"ipco"), 1) if number in wanted]


def _of_item(data: bytes, at: int, item: int) -> list[int]:
    """The numbers of an item's properties in an `ipma` box."""
    version, wide, count = data[at], data[at + 3] & 1, struct.unpack_from(">I", data, at + 4)[0]
    at += 8
    for _ in range(count):
        (number,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        many, at = data[at], at + 1
        if number == item:
            some = struct.unpack_from(f">{many}{'H' if wide else 'B'}", data, at)
            return [one & (0x7FFF if wide else 0x7F) for one in some]
        at += many * (2 if wide else 1)
    return []


def _colr(content: bytes) -> ColourBoxes:
    kind = content[:4]
    if kind in (b"prof", b"rICC"):
        return ColourBoxes(profile=content[4 : 4 + MAX_PROFILE])
    if kind == b"nclx":
        return ColourBoxes(cicp=struct.unpack_from(">HH", content, 4))
    if content[:1] in (b"\2", b"\3"):  # JPEG 2000: a restricted or any ICC profile
        return ColourBoxes(profile=content[3 : 3 + MAX_PROFILE])
    return ColourBoxes()


def _is_grey(name: bytes, content: bytes) -> bool:
    """AV1's and HEVC's configuration say whether there is any chroma."""
    return (name == b"av1C" and content[2] & 0x10 > 0) or (name == b"hvcC" and content[16] & 3 == 0)


def boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """(name, start, end) of the contents of the boxes between two places."""
    while at + 8 <= end:
        size, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        after = end if size == 0 else at + size
        if after > end or after < start:
            return
        yield data[at + 4 : at + 8], start, after
        at = after
