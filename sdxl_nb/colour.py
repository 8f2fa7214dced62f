"""Colours as the eye saw them: whatever a file says of its colours, moved to sRGB by LittleCMS.

In: an opened picture and its file's bytes. Out: its Colours, from the header alone; then its pixels as 8-bit RGB in
sRGB. A profile is judged by what it contains, never by its name. The rank of a PNG's chunks is that of its third
edition: cICP, iCCP, sRGB, gAMA with cHRM. Where a standard leaves something open, Chromium decides: what it shows is
what people see. HDR (PQ, HLG) cannot be trained on and raises HighRange; what else cannot be honoured is a doubt.
"""

import io
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from .boxes import ColourBoxes, colour_boxes
from .chunks import colour_chunks, png_profile
from .profiles import CURVES, HDR, PRIMARIES, SRGB, SRGB_CURVE, Curve, of_gamma, profile_of

GREY, RGB, CMYK, LAB = "L", "RGB", "CMYK", "LAB"
SPACES = {GREY: ("GRAY", "RGB"), RGB: ("RGB",), CMYK: ("CMYK",), LAB: ("Lab",)}  # whose profiles fit
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
AS_STORED = 1.05  # times 2.2: PNG gammas up to here mean sRGB, as libpng and browsers have it
VIDEO = (1, 6, 11, 14, 15)  # transfers of BT.709's family, which browsers show as sRGB in AVIF but not in PNG
ROWS = 64  # of a 16-bit picture, moved at once
WIDE_GAMUT = ("R03", 2)  # EXIF's ways to say Adobe RGB without a profile


class Colours(NamedTuple):
    """What a file says of its colours: an ICC profile, or None for sRGB, and in a few words what is not honoured."""

    profile: bytes | None = None
    doubt: str = ""
    kind: str = RGB  # GREY, RGB, CMYK or LAB


class HighRange(Exception):
    """Colours of a high dynamic range: PQ or HLG, by name."""


def colours_of(picture: Image.Image, data: bytes) -> Colours:
    """The Colours of a picture whose pixels are still encoded. Raises HighRange."""
    boxes = colour_boxes(data) if data[4:8] in (b"ftyp", b"jP  ") else ColourBoxes()
    kind = _kind(picture, data, boxes)
    doubts: list[str] = []
    profile = next(_said(picture, data, boxes, kind, doubts), None)
    if profile is None and kind == LAB:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    return Colours(profile, "; ".join(doubts), kind)


def _kind(picture: Image.Image, data: bytes, boxes: ColourBoxes) -> str:
    """Which colours are stored, also where Pillow gives grey as RGB."""
    if picture.format == "PNG" and data[25:26] in (b"\0", b"\4"):
        return GREY
    if picture.mode in GREY_MODES or boxes.grey:
        return GREY
    return picture.mode if picture.mode in (CMYK, LAB) else RGB


# What files say, best first: the profiles of each statement that can be honoured. None is sRGB.


def _said(picture: Any, data: bytes, boxes: ColourBoxes, kind: str, doubts: list[str]) -> Iterator[bytes | None]:
    if picture.format == "PNG":
        yield from _of_png(colour_chunks(data), kind, doubts)
        return
    embedded = boxes.profile or _embedded(picture, data, doubts)
    if embedded:
        yield from _of_profile(embedded, kind, doubts)
    elif boxes.cicp:
        primaries, transfer = boxes.cicp
        _refuse_hdr(transfer)
        yield _of_numbers(PRIMARIES.get(primaries, SRGB), SRGB_CURVE if transfer in VIDEO else _curve(transfer))
    elif kind == RGB:
        doubts.extend(_only_exif(picture))


def _of_png(chunks: dict[bytes, bytes], kind: str, doubts: list[str]) -> Iterator[bytes | None]:
    if b"cICP" in chunks:
        yield from _of_cicp(chunks[b"cICP"], doubts)
    if b"iCCP" in chunks:
        profile = png_profile(chunks[b"iCCP"])
        yield from _of_profile(profile or b"", kind, doubts)
    if b"sRGB" in chunks:
        yield None
    yield from _of_gamma(chunks, doubts)


def _of_cicp(chunk: bytes, doubts: list[str]) -> Iterator[bytes | None]:
    """PNG's cICP: H.273's numbers of primaries, transfer, matrix (0: RGB) and range (1: full)."""
    primaries, transfer, matrix, full = chunk if len(chunk) == 4 else (0, 0, 0, 1)
    _refuse_hdr(transfer)
    if matrix or primaries not in PRIMARIES or transfer not in CURVES:
        doubts.append(f"its cICP chunk {'/'.join(map(str, chunk))} is passed over")
        return
    if not full:
        doubts.append("its cICP chunk says narrow range; taken as full, as browsers do")
    yield _of_numbers(PRIMARIES[primaries], CURVES[transfer])


def _of_gamma(chunks: dict[bytes, bytes], doubts: list[str]) -> Iterator[bytes | None]:
    """PNG's gAMA with cHRM, or one that is far from a screen's. Browsers pass cHRM alone over."""
    chromaticities = chunks.get(b"cHRM", b"")
    points = tuple(n / 100_000 for n in struct.unpack(">8I", chromaticities)) if len(chromaticities) == 32 else None
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")[:4], "big") / 100_000
    if not gamma:
        if points and max(abs(a - b) for a, b in zip(points, SRGB, strict=True)) > 0.002:
            doubts.append("its cHRM chunk has no gAMA and is passed over, as browsers do")
    elif points:
        profile = of_gamma(gamma, points)
        if profile is None:
            doubts.append("its cHRM chunk spans no colours and is passed over with gAMA")
        yield profile
    elif not 2 - AS_STORED <= gamma * 2.2 <= AS_STORED:
        yield of_gamma(gamma)


def _of_profile(profile: bytes, kind: str, doubts: list[str]) -> Iterator[bytes | None]:
    """An ICC profile that LittleCMS can use for such a picture."""
    _refuse_hdr(_transfer_in(profile))
    try:
        moved = to_srgb_by(profile, kind)
    except Misfit as error:
        doubts.append(str(error))
        yield None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        doubts.append(f"its colour profile cannot be used ({str(error).splitlines()[0] if str(error) else 'damaged'})")
    else:
        yield None if moved.idle else profile


def _of_numbers(primaries: tuple[float, ...], curve: Curve) -> bytes | None:
    return None if (primaries, curve) == (SRGB, SRGB_CURVE) else profile_of(primaries, curve)


def _curve(transfer: int) -> Curve:
    return CURVES.get(transfer, SRGB_CURVE)


def _refuse_hdr(transfer: int | None) -> None:
    if transfer in HDR:
        raise HighRange(HDR[transfer])


def _transfer_in(profile: bytes) -> int | None:
    """The transfer in an ICC profile's cicp tag, by which profiles say PQ and HLG since version 4.4."""
    for at in range(132, min(132 + 12 * int.from_bytes(profile[128:132], "big"), len(profile) - 11, 1332), 12):
        if profile[at : at + 4] == b"cicp":
            offset = int.from_bytes(profile[at + 4 : at + 8], "big")
            return next(iter(profile[offset + 9 : offset + 10]), None)
    return None


def _embedded(picture: Any, data: bytes, doubts: list[str]) -> bytes | None:
    """The profile that Pillow found, or a BMP's own. Browsers pass a GIF's over, which is rare."""
    if picture.format == "BMP" and data[14:18] == b"\x7c\0\0\0" and data[70:74] == b"DEBM":
        at, size = struct.unpack_from("<II", data, 126)
        return data[14 + at : 14 + at + size] or None
    if picture.format == "GIF" and b"\x21\xff\x0bICCRGBG1012" in data:
        doubts.append("its colour profile is passed over, as browsers do in a GIF")
    return picture.info.get("icc_profile")


def _only_exif(picture: Any) -> list[str]:
    """Cameras say Adobe RGB by EXIF alone, which no browser honours."""
    try:
        exif = picture.getexif()
        said = exif.get_ifd(0x8769).get(0xA001), str(exif.get_ifd(0xA005).get(1, "")).strip("\0 ")
    except Exception:  # broken EXIF data say nothing
        return []
    return ["EXIF alone says Adobe RGB; taken as sRGB, as browsers do"] if set(said) & set(WIDE_GAMUT) else []


# Moving colours.


class Misfit(ValueError):
    """A profile of other colours than the picture's."""


class Moved(NamedTuple):
    """LittleCMS's way from one profile to sRGB: `table` is where it takes 256 greys, as (256, 3) uint8."""

    way: Any
    table: np.ndarray
    idle: bool  # changes nothing by more than a level, as every true sRGB profile


@lru_cache(8)
def to_srgb_by(profile: bytes, kind: str) -> Moved:
    """Raises PyCMSError or OSError for a profile that LittleCMS cannot use, Misfit for one of other colours."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if space not in SPACES[kind] or source.profile.device_class.strip() in ("link", "nmcl"):
        raise Misfit(f"its colour profile is for {space}, its pixels are {kind}; taken as sRGB")
    mode = GREY if space == "GRAY" else kind if kind != GREY else RGB
    # Optimised, LittleCMS is 7 levels off in dark greys of linear light and in strong colours of Lab.
    precise = ImageCms.Flags.NOOPTIMIZE if mode in (GREY, LAB) else ImageCms.Flags.NONE
    way = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, RGB, flags=precise)
    if mode not in (GREY, RGB):
        return Moved(way, np.zeros((0, 3), np.uint8), False)
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(mode)
    return Moved(way, np.asarray(way.apply(ramp))[0], _is_idle(way, mode))


def _is_idle(way: Any, mode: str) -> bool:
    """Whether no colour of a fine grid moves by more than a level."""
    levels = np.arange(256) if mode == GREY else np.array(np.meshgrid(*[np.arange(0, 256, 15)] * 3)).reshape(3, -1).T
    grid = levels.astype(np.uint8)[None]
    moved = np.asarray(way.apply(Image.fromarray(grid)), dtype=int)
    return bool(np.abs(moved - (grid[..., None] if mode == GREY else grid)).max() <= 1)


def to_srgb(picture: Image.Image, colours: Colours, low: Image.Image | None = None) -> Image.Image:
    """A decoded picture without its transparency as RGB in sRGB; `low` are the low bytes of a 16-bit one."""
    moved = to_srgb_by(colours.profile, colours.kind) if colours.profile else None
    if colours.kind == GREY and (moved or picture.mode.startswith("I")):
        return _grey(picture, moved.table if moved else STORED, low)
    if moved is None:
        return picture.convert(RGB)
    picture = picture.convert(colours.kind)
    return _deep(picture, low.convert(colours.kind), moved.way) if low else moved.way.apply(picture)


STORED = np.arange(256).repeat(3).reshape(256, 3)


def _grey(picture: Image.Image, table: np.ndarray, low: Image.Image | None) -> Image.Image:
    """Grey, of 16 bits at its full scale: 65535 becomes 255, where Pillow would clip."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.uint16)
    elif low is not None:
        values = np.asarray(picture.getchannel(0)).astype(np.uint16) * 256 + np.asarray(low.getchannel(1))
    else:
        grey = picture.getchannel(0) if len(picture.getbands()) > 2 else picture.convert(GREY)
        return Image.merge(RGB, [grey.point(column.tolist()) for column in table.T])
    finer = [np.interp(np.arange(65536) / 257, np.arange(256), column) for column in table.T]
    return Image.fromarray(np.rint(np.stack(finer, axis=1)).astype(np.uint8)[values])


# Sixteen bits. Pillow keeps the high bytes of colours; the first of 256 levels of linear light is 13 of sRGB, and wide
# gamuts have their darks between levels too.

OTHER_END = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def low_bytes(picture: Image.Image) -> Image.Image | None:
    """An opened picture of 16-bit colours that will decode to its low bytes, by reading them in the wrong order.

    A PNG of grey and alpha decodes to the high and the low bytes of both. None for other pictures.
    """
    tiles = [_reread(tile) for tile in picture.tile]
    if not tiles or None in tiles:
        return None
    picture.tile = tiles
    return picture


def _reread(tile: Any) -> Any:
    one = isinstance(tile.args, str)
    raw, *more = [tile.args] if one else tile.args
    if raw == "LA;16B":
        other = "RGBA"
    elif raw[:-4] in ("RGB", "RGBA", "RGBX", "CMYK") and raw[-4:] in OTHER_END:
        other = raw[:-4] + OTHER_END[raw[-4:]]
    else:
        return None
    return tile._replace(args=other if one else (other, *more))


def _deep(high: Image.Image, low: Image.Image, way: Any) -> Image.Image:
    """16-bit colours through an 8-bit way: between levels by tetrahedra, as LittleCMS does between nodes."""
    goal = Image.new(RGB, high.size)
    for top in range(0, high.height, ROWS):
        box = (0, top, high.width, min(top + ROWS, high.height))
        values = np.asarray(high.crop(box)).astype(np.uint16) * 256 + np.asarray(low.crop(box))
        goal.paste(Image.fromarray(_between(values, high.mode, way)), box)
    return goal


def _between(values: np.ndarray, mode: str, way: Any) -> np.ndarray:
    """From a cube's lower corner to its upper one, along the channel with the largest rest first."""
    corner, rest = np.divmod(values, 257)
    rank = np.argsort(np.argsort(rest, axis=2), axis=2)  # the largest rest has the last
    shares = np.diff(np.sort(rest, axis=2), axis=2, prepend=0, append=257)[..., ::-1].astype(np.float32) / 257
    moved = np.zeros((*values.shape[:2], 3), np.float32)
    for step in range(values.shape[2] + 1):
        at = np.minimum(corner + (rank >= values.shape[2] - step), 255).astype(np.uint8)
        moved += shares[..., step, None] * np.asarray(way.apply(Image.fromarray(at, mode)))
    return np.rint(moved).astype(np.uint8)
