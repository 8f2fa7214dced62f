"""Pixels moved to sRGB by LittleCMS, whichever colours they are stored in.

In: a decoded picture and its Colours, an ICC profile or None. Out: 8-bit RGB in sRGB. Whether a profile changes
anything is measured, never read from its name. Where a profile leaves a choice the rendering is perceptual, as browsers
have it.
"""

import io
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from .depth import between_levels

GREY, RGB, CMYK, LAB = "L", "RGB", "CMYK", "LAB"
SPACES = {GREY: ("GRAY", "RGB"), RGB: ("RGB",), CMYK: ("CMYK",), LAB: ("Lab",)}  # whose profiles fit
STORED = np.arange(256).repeat(3).reshape(256, 3)


class Colours(NamedTuple):
    """What a file says of its colours: an ICC profile, or None for sRGB, and in a few words what is not honoured."""

    profile: bytes | None = None
    doubt: str = ""
    kind: str = RGB  # GREY, RGB, CMYK or LAB
    inverted: bool = False  # 0 is white, and Pillow does not say so
    white: int = 65535  # of grey of more than 8 bits


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
    # Optimised, LittleCMS is 10 levels off in dark greys of linear light and in strong colours of Lab.
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
        table = moved.table if moved else STORED
        return _grey(picture, table[::-1] if colours.inverted else table, low, colours.white)
    if moved is None:
        return picture.convert(RGB)
    picture = picture.convert(colours.kind)
    return between_levels(picture, low.convert(colours.kind), moved.way) if low else moved.way.apply(picture)


def _grey(picture: Image.Image, table: np.ndarray, low: Image.Image | None, white: int) -> Image.Image:
    """Grey, of 16 bits at its full scale: `white` becomes 255, where Pillow would clip."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.uint16)
    elif low is not None:
        values = np.asarray(picture.getchannel(0)).astype(np.uint16) * 256 + np.asarray(low.getchannel(1))
    else:
        grey = picture.getchannel(0) if len(picture.getbands()) > 2 else picture.convert(GREY)
        return Image.merge(RGB, [grey.point(column.tolist()) for column in table.T])
    finer = [np.interp(np.arange(65536) * 255 / white, np.arange(256), column) for column in table.T]
    return Image.fromarray(np.rint(np.stack(finer, axis=1)).astype(np.uint8)[values])
