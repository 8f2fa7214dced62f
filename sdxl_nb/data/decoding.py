"""One picture file, decoded safely: encoded bytes in, an upright 8-bit RGB picture out, or a PictureError.

Also Fault, the small record of one picture left out, and why.
"""

import io
import logging
import os
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..system.errors import DataError
from .colour import statements
from .colour.chunks import openable
from .colour.conversion import Colours, to_srgb
from .colour.depth import low_bytes

MAX_PIXELS = 89_478_485  # Pillow's own limit for one picture (a quarter of a GiB of RGB), but here it is an error
# Read by suffix in folders. No EPS, PSD or PDF: some start other programs, none is a training picture.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),  # those that people know
    *(".jpe", ".jif", ".jfi", ".pjpeg", ".pjp", ".jps", ".mpo", ".apng", ".dib", ".avifs", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".tga", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm"),
)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "PPM", "JPEG2000", "TGA")
# Pictures that people do put into the folder and that would otherwise vanish without a word.
UNREADABLE_SUFFIXES = (".heic", ".heif", ".jxl", ".svg", ".psd", ".pdf", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw")

READING = 3  # raised when files come to be read or refused otherwise: what file_facts.py knows is then looked at again

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
    colours = colours_of(picture, data, name)
    if colours.doubt:
        log.warning("%s: %s.", name, colours.doubt)
    picture = loaded(picture, name)
    low = low_bytes(open_header(data, name)) if colours.profile else None
    return to_rgb(picture, colours, name, low and loaded(low, name))


def colours_of(picture: Image.Image, data: bytes, name: str) -> Colours:
    """What an opened picture's file says of its colours, as Colours. Raises PictureError for HDR."""
    try:
        return statements.colours_of(picture, data)
    except statements.HighRange as error:
        raise PictureError(
            f"{name} is an HDR picture ({error}), whose brightness sRGB cannot hold: export it as SDR, in sRGB."
        ) from None


def loaded(picture: Image.Image, name: str) -> Image.Image:
    """An opened picture decoded and turned upright. Raises PictureError."""
    try:
        picture.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, EOFError, struct.error, zlib.error, ...
        raise PictureError(f"{name} is damaged or cut short ({first_line(error)}): replace or remove it.") from error
    return upright(picture, name)


def open_header(data: bytes, name: str) -> Image.Image:
    """The picture with its size known and its pixels still encoded; this is where decompression bombs stop."""
    if not data:
        raise PictureError(f"{name} is empty (0 bytes): replace or remove it.")
    Image.init()
    too_large = f"{name} holds more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller."
    try:
        picture = Image.open(io.BytesIO(openable(data)), formats=readable(name))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(too_large) from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture that can be read: save it as JPEG, PNG or WebP.") from error
    except Exception as error:
        raise PictureError(f"{name} has a damaged header ({first_line(error)}): replace or remove it.") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise PictureError(too_large)
    return picture


def readable(name: str) -> list[str]:
    """The formats that a file of this name may have; TGA has no sign of its own, so that other bytes pass for it."""
    is_tga = name.lower().endswith(".tga")
    return [kind for kind in FORMATS if kind in Image.OPEN and (is_tga or kind != "TGA")]


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


def to_rgb(picture: Image.Image, colours: Colours, name: str, low: Image.Image | None = None) -> Image.Image:
    """Any of Pillow's modes as 8-bit RGB in sRGB, transparency on white; `name` is for the error.

    `low` holds the low bytes of a 16-bit picture. Transparency comes last, as browsers do it.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        refuse_32_bits(picture, name)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    seen = to_srgb(picture, colours, low)
    if not picture.has_transparency_data:
        return seen
    return Image.composite(seen, Image.new("RGB", seen.size, "white"), opacity(picture))


def opacity(picture: Image.Image) -> Image.Image:
    """How opaque each pixel of a picture with transparency is, 255 where it is wholly: an L picture."""
    if picture.mode == "I;16":  # Pillow cannot make RGBA of it
        return Image.fromarray((np.asarray(picture) != picture.info["transparency"]).astype(np.uint8) * 255)
    return picture.convert("RGBA").getchannel("A")


def refuse_32_bits(picture: Image.Image, name: str) -> None:
    """Raise PictureError for grey of more than 16 bits."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise PictureError(
            f"{name} has {picture.mode} pixels (32 bits a channel): save it with 8 or 16 bits a channel."
        )


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
