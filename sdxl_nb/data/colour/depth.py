"""Sixteen bits a channel, of which Pillow keeps the high bytes when there are several channels.

In: an opened picture. Out: its low bytes too; and both moved through a conversion that takes 8 bits. The first of 256
levels of linear light is 13 of sRGB, and wide gamuts have their darks between levels, so that 8 bits are too few.
"""

import sys
from itertools import pairwise
from typing import Any, cast

import numpy as np
from PIL import Image

ROWS = 64  # of a picture, moved at once
OTHER_END = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}


def low_bytes(picture: Any) -> Image.Image | None:
    """An opened picture of 16-bit colours that will decode to its low bytes, by reading them in the wrong order.

    A PNG of grey and alpha decodes to the high and the low bytes of both. None for other pictures.
    """
    tiles = [_reread(tile) for tile in picture.tile]
    if not tiles or None in tiles:
        return None
    picture.tile = tiles
    return cast(Image.Image, picture)


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


def between_levels(high: Image.Image, low: Image.Image, way: Any) -> Image.Image:
    """16-bit colours through an 8-bit way: between levels by tetrahedra, as LittleCMS does between nodes."""
    goal = Image.new("RGB", high.size)
    for top in range(0, high.height, ROWS):
        box = (0, top, high.width, min(top + ROWS, high.height))
        values = np.asarray(high.crop(box)).astype(np.uint16) * 256 + np.asarray(low.crop(box))
        goal.paste(Image.fromarray(_between(values, high.mode, way)), box)
    return goal


def _between(values: np.ndarray, mode: str, way: Any) -> np.ndarray:
    """From a cube's lower corner to its upper one, along the channel with the largest rest first."""
    corner, rest = np.divmod(values, 257)
    corner = corner.astype(np.uint8)
    falling = np.sort(rest, axis=2)[..., ::-1].astype(np.float32)
    bounds = [np.float32(257), *np.moveaxis(falling, 2, 0), np.float32(0)]
    moved = np.zeros((*values.shape[:2], 3), np.float32)
    for above, below in pairwise(bounds):
        at = corner + (rest >= above[..., None])  # beyond 255 only where its share is nothing
        share = np.broadcast_to((above - below) / 257, values.shape[:2])
        moved += share[..., None] * np.asarray(way.apply(Image.fromarray(at, mode)))
    return np.rint(moved).astype(np.uint8)
