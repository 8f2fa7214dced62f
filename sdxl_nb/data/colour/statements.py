"""What a file says of its colours: profiles, PNG's chunks, CICP, EXIF.

In: an opened picture and its file's bytes; no pixel is decoded. Out: its Colours. A profile is judged by what it
contains, never by its name. The rank of a PNG's chunks is that of its third edition: cICP, iCCP, sRGB, gAMA with cHRM.
Where a standard leaves something open, Chromium decides: what it shows is what people see. HDR (PQ, HLG) cannot be
trained on and raises HighRange; what else cannot be honoured is a doubt.
"""

import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageCms

from .boxes import ColourBoxes, colour_boxes
from .chunks import colour_chunks, png_profile
from .conversion import CMYK, GREY, LAB, RGB, Colours, Misfit, to_srgb_by
from .profiles import CURVES, HDR, PRIMARIES, SRGB, SRGB_CURVE, Curve, of_gamma, profile_of
from .tiffs import white_of

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
AS_STORED = 1.05  # times 2.2: PNG gammas up to here mean sRGB, as libpng and browsers have it
VIDEO = (1, 6, 11, 14, 15)  # transfers of BT.709's family, which browsers show as sRGB in AVIF but not in PNG
WIDE_GAMUT = ("R03", 2)  # EXIF's ways to say Adobe RGB without a profile


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
    return Colours(profile, "; ".join(doubts), kind, _is_inverted(picture), white_of(picture))


def _kind(picture: Image.Image, data: bytes, boxes: ColourBoxes) -> str:
    """Which colours are stored, also where Pillow gives grey as RGB."""
    if picture.format == "PNG" and data[25:26] in (b"\0", b"\4"):
        return GREY
    if picture.mode in GREY_MODES or boxes.grey:
        return GREY
    return picture.mode if picture.mode in (CMYK, LAB) else RGB


def _is_inverted(picture: Any) -> bool:
    """Whether a TIFF of 16-bit grey has 0 for white, which Pillow heeds at 8 bits alone."""
    return bool(picture.format == "TIFF" and picture.mode.startswith("I;16") and picture.tag_v2.get(262) == 0)


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
    profile: bytes | None = picture.info.get("icc_profile")
    return profile


def _only_exif(picture: Any) -> list[str]:
    """Cameras say Adobe RGB by EXIF alone, which no browser honours."""
    try:
        exif = picture.getexif()
        said = exif.get_ifd(0x8769).get(0xA001), str(exif.get_ifd(0xA005).get(1, "")).strip("\0 ")
    except Exception:  # broken EXIF data say nothing
        return []
    return ["EXIF alone says Adobe RGB; taken as sRGB, as browsers do"] if set(said) & set(WIDE_GAMUT) else []
