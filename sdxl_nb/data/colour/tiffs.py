"""TIFFs that Pillow opens otherwise than they are meant: which page, how wide a sample, which value is white.

In: an opened picture. Out: the same one, set to its main page, with tiles that Pillow decodes rightly; the value of
white in grey of more than 8 bits. What cannot be set right raises OddSamples, a few words for a sentence.
"""

from typing import Any

from PIL import Image

PAGES = 16  # looked through for the main one
NEW_SUBFILE, OLD_SUBFILE, BITS, SAMPLE_FORMAT, PLANES = 254, 255, 258, 339, 284
REDUCED, SMALL, MASK = 1, 2, 4  # a small copy by the new tag, by the old one; a mask of another page
SIGNED = 2
APART = 2  # PlanarConfiguration: one colour after the other
WHITE = 65535


class OddSamples(ValueError):
    """Numbers in a TIFF whose black and white nobody can tell."""


def as_meant(picture: Any) -> Image.Image:
    """An opened picture whose pixels are still encoded; other formats come back as they are. Raises OddSamples."""
    if picture.format != "TIFF":
        return picture  # type: ignore[no-any-return]
    _to_main_page(picture)
    tags = picture.tag_v2
    bits = tags.get(BITS, (1,))
    if SIGNED in _several(tags.get(SAMPLE_FORMAT, 1)):
        raise OddSamples("signed numbers")
    if picture.mode == "I" and max(bits) > 16:
        raise OddSamples(f"{max(bits)} bits a channel")
    if tags.get(PLANES) == APART and set(bits) == {16}:
        order = "B" if tags.prefix == b"MM" else "L"
        picture.tile = [_of_16_bits(tile, order) for tile in picture.tile]
    return picture  # type: ignore[no-any-return]


def white_of(picture: Any) -> int:
    """The value of white in 16-bit grey: of 12 bits in a TIFF Pillow leaves the numbers as they are."""
    if picture.format == "TIFF" and picture.mode == "I;16":
        return int(2 ** max(picture.tag_v2.get(BITS, (16,))) - 1)
    return WHITE


def _to_main_page(picture: Any) -> None:
    """Scanners and Photoshop may put a small copy first; the first page that is none is the picture."""
    for page in range(PAGES if _is_aside(picture.tag_v2) else 0):
        try:
            picture.seek(page)
        except EOFError:
            break
        if not _is_aside(picture.tag_v2):
            return
    else:
        return
    picture.seek(0)


def _is_aside(tags: Any) -> bool:
    return bool(tags.get(NEW_SUBFILE, 0) & (REDUCED | MASK)) or tags.get(OLD_SUBFILE) == SMALL


def _of_16_bits(tile: Any, order: str) -> Any:
    """Pillow takes an unpacked plane of 16 bits for one of 8, and each pixel for two."""
    if tile.codec_name != "raw" or len(tile.args[0]) != 1:
        return tile
    return tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:]))


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
