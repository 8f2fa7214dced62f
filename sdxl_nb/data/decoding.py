"""One picture file, decoded safely: encoded bytes in, an upright 8-bit RGB picture out, or a PictureError.

Also Fault, the small record of one picture left out, and why.
"""

import io
import logging
import os
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..system.errors import DataError

MAX_PIXELS = 89_478_485  # Pillow's own limit for one picture (a quarter of a GiB of RGB), but here it is an error
# Read by suffix in folders. No EPS, PSD or PDF: some start other programs, none is a training picture.
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "PPM")
# Pictures that people do put into the folder and that would otherwise vanish without a word.
UNREADABLE_SUFFIXES = (".heic", ".heif", ".jxl", ".svg", ".psd", ".pdf", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw")

ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 lie on their side

log = logging.getLogger(__name__)


class PictureError(DataError):
    """One picture that cannot be used; the message names it."""


class Fault(NamedTuple):
    """A picture that was left out: its name, and one sentence that says why."""

    name: str
    sentence: str


def decode(data: bytes, name: str) -> Image.Image:
    """The first frame of an encoded picture as RGB: EXIF rotation applied, transparency on white, colours in sRGB.

    Raises PictureError for anything that is no picture, is cut short or damaged, or is larger than MAX_PIXELS.
    """
    picture = open_header(data, name)
    try:
        picture.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, EOFError, struct.error, zlib.error, ...
        raise PictureError(f"{name} is damaged or cut short ({first_line(error)}): replace or remove it.") from error
    return to_rgb(upright(picture, name), name)


def open_header(data: bytes, name: str) -> Image.Image:
    """The picture with its size known and its pixels still encoded; this is where decompression bombs stop."""
    if not data:
        raise PictureError(f"{name} is empty (0 bytes): replace or remove it.")
    Image.init()
    too_large = f"{name} holds more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller."
    try:
        picture = Image.open(io.BytesIO(data), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(too_large) from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture that can be read: save it as JPEG, PNG or WebP.") from error
    except Exception as error:
        raise PictureError(f"{name} has a damaged header ({first_line(error)}): replace or remove it.") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise PictureError(too_large)
    return picture


def upright_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) after EXIF rotation, from the header alone: no pixel is decoded. Raises PictureError."""
    picture = open_header(data, name)
    try:
        turned = picture.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception:  # as in `upright`: broken EXIF data leaves the picture as it is stored
        turned = False
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def upright(picture: Image.Image, name: str) -> Image.Image:
    """The picture as its EXIF orientation says a person sees it; broken EXIF data leaves it as it is stored."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception as error:
        log.warning("%s: its EXIF data cannot be read (%s), so it is used as stored.", name, first_line(error))
        return picture


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Any of Pillow's modes as 8-bit RGB; `name` is for the error and the log."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = deep_to_grey(picture, name)
    if picture.mode == "CMYK":
        return to_srgb(picture, profile, name).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(white, layer)
    return to_srgb(picture.convert("RGB"), profile, name)


def deep_to_grey(picture: Image.Image, name: str) -> Image.Image:
    """16-bit grey to 8 bit by its full scale, 65535 -> 255 (Pillow's own conversion would clip at 255)."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"{name} has {picture.mode} pixels (32 bits a channel): save it with 8 or 16 bits a channel."
        )
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def to_srgb(picture: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """Colours moved from an embedded ICC profile of the same colour space to sRGB; without one, as they are."""
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in (source.profile.profile_description or "") or source.profile.xcolor_space.strip() != picture.mode:
            return picture
        moved = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return cast(Image.Image, moved)  # None is what it gives in place
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("%s: its colour profile cannot be used (%s); colours are as stored.", name, first_line(error))
        return picture


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates come from JSON escapes and undecodable file names."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    r"""A file name of any bytes as text that can be printed: what is not UTF-8 as \xff."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, without its final full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
