"""One picture file, decoded safely: encoded bytes in, an upright 8-bit RGB picture out, or a PictureError.

Also Fault, the small record of one picture left out, and why.
"""

import io
import logging
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..system.errors import DataError
from . import plugins
from .colour import statements
from .colour.chunks import openable
from .colour.conversion import Colours, to_srgb
from .colour.depth import low_bytes
from .colour.tiffs import OddSamples, as_meant
from .crops import half

MAX_PIXELS = 200_000_000  # of one picture; more is refused by its header
WHOLE = 89_478_485  # pixels, Pillow's own limit for one picture; larger ones are read at half their sides
TILE = 2048  # pixels, even: the side of what is moved to sRGB and halved at once
# Read by suffix in folders. No EPS, PSD or PDF: some start other programs, none is a training picture.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),  # those that people know
    *(".jpe", ".jif", ".jfi", ".pjpeg", ".pjp", ".jps", ".mpo", ".apng", ".dib", ".avifs", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".tga", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm"),
    *plugins.SUFFIXES,
)
FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "AVIF",
    "MPO",
    "PPM",
    "JPEG2000",
    "TGA",
    plugins.HEIC,
    plugins.JXL,
)
# Pictures that people do put into the folder and that would otherwise vanish without a word.
UNREADABLE_SUFFIXES = (".svg", ".psd", ".pdf", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw")

READING = 5  # raised when files come to be read or refused otherwise: what file_facts.py knows is then looked at again

EIGHT_BITS = "save it with 8 or 16 bits a channel"
ORIENTATION = 0x0112  # EXIF's tag; 5 to 8 lie on their side
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

log = logging.getLogger(__name__)
_one_large = threading.RLock()  # several threads decode, and a large picture takes a gigabyte
_pillows_limit = threading.RLock()


class PictureError(DataError):
    """One picture that cannot be used; the message names it."""


class MissingPlugin(PictureError):
    """A picture that can be read once a plugin is installed."""


class Decoded(NamedTuple):
    """A picture, RGB and upright, and its true (height, width), of which one above WHOLE has half."""

    picture: Image.Image
    size: tuple[int, int]


class Fault(NamedTuple):
    """A picture that was left out: its name, and one sentence that says why."""

    name: str
    sentence: str


def no_caption(name: str) -> Fault:
    """How a picture without a caption is called."""
    return Fault(name, f"{name} has no caption: add one or remove the picture.")


def decode(data: bytes, name: str, background: str = "white") -> Image.Image:
    """The first frame of an encoded picture as RGB: EXIF rotation applied, transparency on a colour, colours in sRGB.

    One of more than WHOLE pixels has half its sides. Raises PictureError for anything that is no picture, is cut
    short or damaged, or is larger than MAX_PIXELS.
    """
    return decoded(data, name, background).picture


def decoded(data: bytes, name: str, background: str = "white", side: int | None = None) -> Decoded:
    """As `decode`, with the true size. With `side` a JPEG may come smaller, its sides no shorter: to be looked at."""
    header = plugins.jxl_header(data)  # a JPEG XL is decoded where it is opened
    with alone((header.width, header.height) if header else (0, 0)):
        picture = open_header(data, name)
        colours = colours_of(picture, data, name)
        if colours.doubt:
            log.warning("%s: %s.", name, colours.doubt)
        with alone(picture.size):
            seen, size = seen_of(picture, colours, data, name, background, side)
    turn = orientation_of(picture, name)
    return Decoded(seen.transpose(TURNS[turn]) if turn in TURNS else seen, size if turn >= 5 else size[::-1])


def seen_of(
    picture: Image.Image, colours: Colours, data: bytes, name: str, background: str, side: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """An opened picture as RGB in sRGB, not yet turned, and its true (width, height). Raises PictureError."""
    size, large = picture.size, is_large(picture.size)
    if large:
        ask_for_half(picture)
    elif side and picture.format in ("JPEG", "MPO"):
        picture.draft(None, (side, side))
    less = picture.size != size
    loaded(picture, name)
    low = low_bytes(open_header(data, name)) if colours.profile and picture.format not in plugins.NAMES else None
    low = low and loaded(low, name)
    if large and picture.size != half(size):
        return in_tiles(picture, colours, name, low, background), picture.size
    seen = to_rgb(picture, colours, name, low, background)
    return seen, size if large or less else picture.size  # HEIC may change it when decoded


def ask_for_half(picture: Any) -> None:
    """Have those decoders that can give half the sides, for a quarter of the memory."""
    if picture.format in ("JPEG", "MPO"):
        picture.draft(None, (max(picture.width // 2, 1), max(picture.height // 2, 1)))
    elif picture.format == "JPEG2000":
        picture.reduce = 1


def in_tiles(
    picture: Image.Image, colours: Colours, name: str, low: Image.Image | None, background: str
) -> Image.Image:
    """`to_rgb` at half the sides, a tile at a time, so that no second copy is made of what is large already."""
    goal = Image.new("RGB", half(picture.size))
    for box in tiles(picture.size):
        part = to_rgb(picture.crop(box), colours, name, low and low.crop(box), background)
        goal.paste(part.reduce(2), (box[0] // 2, box[1] // 2))
    return goal


def tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of TILE pixels at most that cover a picture of `size` (width, height)."""
    width, height = size
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield left, top, min(left + TILE, width), min(top + TILE, height)


def is_large(size: tuple[int, int]) -> bool:
    """Whether a picture is read at half its sides."""
    return size[0] * size[1] > WHOLE


def alone(size: tuple[int, int]) -> AbstractContextManager[Any]:
    """A block in which a picture of this size is decoded: of large ones only one at a time."""
    return _one_large if is_large(size) else nullcontext()


@contextmanager
def pillows_limit_lifted(limit: int | None = None) -> Iterator[None]:
    """A block with another limit of pixels than Pillow's own, which some of its formats look at beside ours.

    It is one for the whole process, so that only what needs it is done in the block, by one thread at a time.
    """
    with _pillows_limit:
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = kept


def _beyond_pillow(size: tuple[int, int]) -> bool:
    """Whether a picture is larger than somebody lets Pillow read."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and size[0] * size[1] > limit


def colours_of(picture: Image.Image, data: bytes, name: str) -> Colours:
    """What an opened picture's file says of its colours, as Colours. Raises PictureError for HDR."""
    try:
        return statements.colours_of(picture, data)
    except statements.HighRange as error:
        raise PictureError(
            f"{name} is an HDR picture ({error}), whose brightness sRGB cannot hold: export it as SDR, in sRGB."
        ) from None


def loaded(picture: Image.Image, name: str) -> Image.Image:
    """An opened picture, decoded in place. Raises PictureError."""
    try:
        with pillows_limit_lifted() if is_large(picture.size) or _beyond_pillow(picture.size) else nullcontext():
            picture.load()
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, EOFError, struct.error, zlib.error, ...
        raise unreadable(picture, name, first_line(error)) from error
    return picture


def unreadable(picture: Image.Image, name: str, said: str) -> PictureError:
    """What to say of a picture that cannot be decoded; a TIFF may be whole and packed in a way that Pillow lacks."""
    if (picture.format == "TIFF" and "decoder error" in said) or "raw mode" in said:
        packed = picture.info.get("compression", "raw")
        return PictureError(f"{name} is damaged, or packed in a way that cannot be read ({packed}): save it as PNG.")
    return PictureError(f"{name} is damaged or cut short ({said}): replace or remove it.")


def open_header(data: bytes, name: str) -> Image.Image:
    """The picture with its size known and its pixels still encoded; this is where decompression bombs stop.

    A JPEG XL is decoded already, after its own header was judged. Raises PictureError, MissingPlugin among them.
    """
    if not data:
        raise PictureError(f"{name} is empty (0 bytes): replace or remove it.")
    Image.init()
    prepare_plugin(data, name)
    try:
        picture = as_meant(opened(openable(data), readable(name)))
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture that can be read: save it as JPEG, PNG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise too_many(name) from error
    except OddSamples as error:
        raise PictureError(f"{name} has {error}, of which nobody can tell black and white: {EIGHT_BITS}.") from None
    except Exception as error:
        raise PictureError(f"{name} has a damaged header ({first_line(error)}): replace or remove it.") from error
    refuse_huge(picture.size, name)
    return picture


def readable(name: str) -> list[str]:
    """The formats that a file of this name may have; TGA has no sign of its own, so that other bytes pass for it."""
    is_tga = name.lower().endswith(".tga")
    return [kind for kind in FORMATS if kind in Image.OPEN and (is_tga or kind != "TGA")]


def opened(data: bytes, formats: list[str]) -> Image.Image:
    """As Image.open, whose own limit of pixels is one for the whole process. Raises UnidentifiedImageError."""
    for kind in formats:
        factory, accept = Image.OPEN[kind]
        said = accept(data[:16]) if accept else True
        if not said or isinstance(said, str):  # a text says why not
            continue
        try:
            try:
                return factory(io.BytesIO(data), "")
            except Image.DecompressionBombError:  # of WebP, which makes room for its pixels here
                with pillows_limit_lifted(MAX_PIXELS // 2):  # Pillow's errors begin at twice its limit
                    return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # those that Image.open takes for "another format"
            continue
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # how a decoder written in Rust fails
                raise
    raise UnidentifiedImageError("no format fits")


def prepare_plugin(data: bytes, name: str) -> None:
    """Register the plugin that a HEIC or JPEG XL needs; judge a JPEG XL's header, as its plugin decodes at once."""
    kind = plugins.plugin_of(data)
    if kind and not plugins.registered(kind):
        raise MissingPlugin(f"{name} is a {plugins.NAMES[kind]} picture: {plugins.EXTRA} reads it, or save it as JPEG.")
    if kind != plugins.JXL:
        return
    header = plugins.jxl_header(data)
    if header is None:
        raise PictureError(f"{name} has a damaged header (JPEG XL): replace or remove it.")
    refuse_huge((header.width, header.height), name)
    if header.animated:  # the plugin gives the last frame, where all others give the first
        raise PictureError(f"{name} is a moving JPEG XL, in a format that cannot be read: save a frame of it as PNG.")


def too_many(name: str) -> PictureError:
    return PictureError(f"{name} holds more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller.")


def refuse_huge(size: tuple[int, int], name: str) -> None:
    """Raise PictureError for more than MAX_PIXELS."""
    if size[0] * size[1] > MAX_PIXELS:
        raise too_many(name)


def upright_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) after EXIF rotation, from the header. Raises PictureError."""
    prepare_plugin(data, name)
    header = plugins.jxl_header(data)
    if header:
        width, height, turn = header[:3]
    else:
        picture = open_header(data, name)
        width, height = picture.size
        with alone(picture.size):  # Pillow decodes a PNG to look for EXIF data behind the pixels
            turn = orientation_of(picture, name)
    return (width, height) if turn >= 5 else (height, width)


def orientation_of(picture: Any, name: str) -> int:
    """EXIF's number for how a picture is to be turned; 1 where it is upright, or where its EXIF data are broken."""
    if picture.format == plugins.HEIC or (picture.format == plugins.JXL and not getattr(picture, "jpeg", False)):
        return 1  # the decoder has turned it; EXIF does not count in these formats
    try:
        turn = picture.getexif().get(ORIENTATION, 1)
    except Exception as error:
        log.warning("%s: its EXIF data cannot be read (%s), so it is used as stored.", name, first_line(error))
        return 1
    return turn if turn in TURNS else 1


def to_rgb(
    picture: Image.Image, colours: Colours, name: str, low: Image.Image | None = None, background: str = "white"
) -> Image.Image:
    """Any of Pillow's modes as 8-bit RGB in sRGB, transparency on `background`; `name` is for the error.

    `low` holds the low bytes of a 16-bit picture. Transparency comes last, as browsers do it.
    """
    if picture.mode.startswith("I") or picture.mode == "F":
        refuse_32_bits(picture, name)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if picture.mode == "La":  # Pillow makes nothing else of grey multiplied with its alpha
        picture = picture.convert("LA")
    seen = to_srgb(picture, colours, low)
    if not picture.has_transparency_data:
        return seen
    return Image.composite(seen, Image.new("RGB", seen.size, background), opacity(picture))


def is_transparent(data: bytes, name: str) -> bool:
    """Whether an encoded picture may have transparency, from its header alone. Raises PictureError."""
    return open_header(data, name).has_transparency_data


def opacity(picture: Image.Image) -> Image.Image:
    """How opaque each pixel of a picture with transparency is, 255 where it is wholly: an L picture."""
    if picture.mode == "I;16":  # Pillow cannot make RGBA of it
        return Image.fromarray((np.asarray(picture) != picture.info["transparency"]).astype(np.uint8) * 255)
    return picture.convert("RGBA").getchannel("A")


def refuse_32_bits(picture: Image.Image, name: str) -> None:
    """Raise PictureError for grey of more than 16 bits."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise PictureError(f"{name} has {picture.mode} pixels (32 bits a channel): {EIGHT_BITS}.")


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates come from JSON escapes and undecodable file names."""
    if value.isascii():
        return True
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
