"""Colour spaces that a file gives in numbers, as ICC profiles, so that LittleCMS can move their colours.

In: chromaticities (x, y) of white, red, green and blue with a gamma (PNG's cHRM and gAMA), or the code points of ITU-T
H.273 (CICP: PNG's cICP, AVIF's and HEIF's nclx). Out: the bytes of a matrix profile, or None where the numbers are not
those of a colour space that can be shown. Adaptation to the profile's white, D50, is Bradford's.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np

D65 = (0.3127, 0.3290)
C = (0.310, 0.316)
E = (1 / 3, 1 / 3)
DCI = (0.314, 0.351)
D50_XYZ = (0.96422, 1.0, 0.82521)
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

SRGB = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
PRIMARIES = {  # H.273 table 2: white, red, green, blue
    1: SRGB,
    4: (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (*DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}


class Curve(NamedTuple):
    """Light of a stored value x, both 0 to 1: (a x + b)^g from d on, c x below (ICC's parametric curve of type 3)."""

    g: float
    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0


SRGB_CURVE = Curve(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT1886 = Curve(2.4)  # what a screen makes of BT.709's family; that camera's own curve is meant for no eye
CURVES = {  # H.273 table 3, as Chromium shows them in a PNG; the logarithmic ones (9, 10) are not for pictures
    1: BT1886,
    4: Curve(2.2),
    5: Curve(2.8),
    6: BT1886,
    7: Curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0912),
    8: Curve(1.0),
    11: BT1886,
    13: SRGB_CURVE,
    14: BT1886,
    15: BT1886,
    17: Curve(2.6, (52.37 / 48) ** (1 / 2.6)),
}
HDR = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2


@lru_cache(64)
def profile_of(chromaticities: tuple[float, ...], curve: Curve) -> bytes | None:
    """An ICC profile (version 4) with these eight chromaticities and one curve for all channels.

    None for chromaticities that span no colours: beyond 0 to 1, or on one line.
    """
    columns = _to_xyz(chromaticities)
    if columns is None:
        return None
    curve_tag = b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *map(_fixed, curve))
    tags = {b"desc": _text("made of numbers"), b"cprt": _text("CC0"), b"wtpt": _xyz(D50_XYZ)}
    for letter, column in zip(b"rgb", columns.T, strict=True):
        tags |= {bytes([letter]) + b"XYZ": _xyz(column), bytes([letter]) + b"TRC": curve_tag}
    return _assembled(tags)


def of_gamma(gamma: float, chromaticities: tuple[float, ...] = SRGB) -> bytes | None:
    """The profile of PNG's gAMA (0.45455 for a screen of 2.2) and cHRM."""
    return profile_of(chromaticities, Curve(1 / gamma))


def _to_xyz(chromaticities: tuple[float, ...]) -> np.ndarray | None:
    """(3, 3): the XYZ of red, green and blue in columns, under D50."""
    points = np.array(chromaticities).reshape(4, 2)
    if points.min() < 0 or points.max() > 1 or not points[0, 1]:
        return None
    full = np.column_stack([points, 1 - points.sum(axis=1)])
    white, primaries = full[0] / full[0, 1], full[1:].T
    if abs(np.linalg.det(primaries)) < 1e-4:
        return None
    to_cones = BRADFORD @ np.array(D50_XYZ), BRADFORD @ white
    if min(abs(to_cones[1])) < 1e-4:
        return None
    adapted = np.linalg.inv(BRADFORD) @ np.diag(to_cones[0] / to_cones[1]) @ BRADFORD
    columns: np.ndarray = adapted @ (primaries * np.linalg.solve(primaries, white))
    return columns


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x", start + len(body), bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp"
    )
    return (header + struct.pack(">3i", *map(_fixed, D50_XYZ))).ljust(128, b"\0") + table + body


def _fixed(value: float) -> int:
    """ICC's s15Fixed16Number; larger values, which no real file has, become the largest."""
    return int(np.clip(round(float(value) * 65536), -(2**31), 2**31 - 1))


def _xyz(values: np.ndarray | tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *map(_fixed, values))


def _text(words: str) -> bytes:
    """A multiLocalizedUnicodeType of one language."""
    encoded = words.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded
