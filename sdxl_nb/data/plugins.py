"""Pictures that Pillow reads through a plugin: HEIC (HEIF) and JPEG XL.

In: the first bytes of a file. Out: which plugin it needs, imported and registered when the first such file is opened,
and a JPEG XL's own header, because its plugin decodes whatever it opens.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image

HEIC, JXL = "HEIF", "JXL"  # what Pillow and the plugins call them
NAMES = {HEIC: "HEIC", JXL: "JPEG XL"}
MODULES = {HEIC: "pillow_heif", JXL: "pillow_jxl"}
SUFFIXES = (".heic", ".heif", ".hif", ".jxl")
EXTRA = "pip install 'sdxl_nb[formats]'"
HEVC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
ANY_HEIF, AV1 = (b"mif1", b"msf1"), (b"avif", b"avis")
JXL_START, JXL_BOX = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width to height


def plugin_of(data: bytes) -> str | None:
    """HEIC or JXL where a file is one of them. An AVIF is neither, though its boxes are the same."""
    if data.startswith((JXL_START, JXL_BOX)):
        return JXL
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    generic = brands.intersection(ANY_HEIF) and not brands.intersection(AV1)
    return HEIC if generic or brands.intersection(HEVC) else None


def registered(kind: str) -> bool:
    """Whether Pillow opens such files now: by whichever plugin somebody registered, else by the one of the extra."""
    if kind not in Image.OPEN:
        try:
            plugin = importlib.import_module(MODULES[kind])
        except ImportError:
            return False
        if kind == HEIC:
            plugin.register_heif_opener()
    return kind in Image.OPEN


class JxlHeader(NamedTuple):
    """Of a JPEG XL: the size as it is stored, EXIF's number for how it is turned, whether it moves."""

    width: int
    height: int
    orientation: int
    animated: bool


def jxl_header(data: bytes) -> JxlHeader | None:
    """What a JPEG XL says of itself (ISO/IEC 18181-1, annexes B and D); None where it is cut or damaged."""
    at = _codestream(data)
    if at is None or not data.startswith(JXL_START, at):
        return None
    bits = _Bits(data[at + 2 : at + 66])
    width, height = _size(bits)
    orientation, animated = 1, False
    if not bits.take(1) and bits.take(1):  # not all as usual; more fields
        orientation = bits.take(3) + 1
        if bits.take(1):
            _size(bits)  # how large it is meant to be shown
        if bits.take(1):
            _preview(bits)
        animated = bool(bits.take(1))
    return JxlHeader(width, height, orientation, animated)


def _codestream(data: bytes) -> int | None:
    """Where the pixels' own part begins: at once, or in the first jxlc or jxlp box."""
    if data.startswith(JXL_START):
        return 0
    at = len(JXL_BOX) if data.startswith(JXL_BOX) else len(data)
    while at + 16 <= len(data):
        size, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        if data[at + 4 : at + 8] in (b"jxlc", b"jxlp"):
            return start + (4 if data[at + 4 : at + 8] == b"jxlp" else 0)
        if size < start - at:
            return None
        at += size
    return None


class _Bits:
    """Bits of bytes, the lowest first; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self.rest = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """One of four ways: so many bits, and what is added."""
        count, more = ways[self.take(2)]
        return self.take(count) + more


def _size(bits: _Bits) -> tuple[int, int]:
    eights = bits.take(1)

    def side() -> int:
        return 8 * (bits.take(5) + 1) if eights else bits.choose((9, 1), (13, 1), (18, 1), (30, 1))

    return _with_ratio(bits, side(), side)


def _preview(bits: _Bits) -> tuple[int, int]:
    eights = bits.take(1)

    def side() -> int:
        if eights:
            return 8 * bits.choose((0, 16), (0, 32), (5, 1), (9, 33))
        return bits.choose((6, 1), (8, 65), (10, 321), (12, 1345))

    return _with_ratio(bits, side(), side)


def _with_ratio(bits: _Bits, height: int, side: Callable[[], int]) -> tuple[int, int]:
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    across, down = RATIOS[ratio - 1]
    return height * across // down, height
