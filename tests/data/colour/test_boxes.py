"""The boxes of AVIF and HEIF, real ones, cut ones and damaged ones."""

import random
from pathlib import Path

import pytest

from sdxl_nb.data.colour.boxes import ColourBoxes, colour_boxes
from sdxl_nb.data.decoding import PictureError, decode

# Pillow warns about the damage that these files have on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
PICTURES = Path(__file__).parent.parent / "pictures"


@pytest.mark.parametrize(
    "name, cicp, profile, grey",
    [
        ("avifenc-p3.avif", (12, 13), None, False),
        ("avifenc-pq.avif", (9, 16), None, False),
        ("avifenc-icc.avif", (12, 16), 580, False),
        ("avifenc-grey.avif", None, 420, True),
        ("heif-adobe.avif", None, 580, False),
        ("heif-adobe.heic", None, 580, False),
        ("source.png", None, None, False),
    ],
)
def test_what_real_files_say(name, cicp, profile, grey):
    found = colour_boxes((PICTURES / name).read_bytes())
    assert (found.profile and len(found.profile), found.grey) == (profile, grey)
    assert cicp is None or found.cicp == cicp


def box(name, content):
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_other_ways_to_store_a_box():
    """A track's colours, JPEG 2000's profile, a 64-bit size and a box that reaches to the end."""
    nclx = box(b"colr", b"nclx" + bytes([0, 12, 0, 13, 0, 0, 128]))
    track = box(b"stsd", bytes(8) + box(b"av01", bytes(78) + nclx))
    for name in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        track = box(name, track)
    assert colour_boxes(box(b"ftyp", b"avis") + track).cicp == (12, 13)
    wide = b"\0\0\0\1jp2h" + (16 + 8 + 7).to_bytes(8, "big") + box(b"colr", b"\2\0\0icc!")
    assert colour_boxes(wide) == ColourBoxes(profile=b"icc!")
    assert colour_boxes(b"\0\0\0\0jp2h" + box(b"colr", b"\3\0\0icc!")).profile == b"icc!"


@pytest.mark.parametrize("name", ["avifenc-p3.avif", "avifenc-grey.avif", "heif-adobe.heic"])
def test_cut_and_damaged_boxes_say_nothing_worse_than_nothing(name):
    data, draw = (PICTURES / name).read_bytes(), random.Random(0)
    for length in range(len(data)):
        colour_boxes(data[:length])
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[draw.randrange(min(len(data), 700))] = draw.randrange(256)
        colour_boxes(bytes(damaged))


@pytest.mark.parametrize("name", ["avifenc-icc.avif", "gimp-linear-16.png", "gimp-linear-16.tif", "magick-linear.bmp"])
def test_a_damaged_picture_is_a_picture_or_a_picture_error(name):
    data, draw = (PICTURES / name).read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[draw.randrange(min(len(data), 900))] ^= 0xFF
        try:
            assert decode(bytes(damaged), "x").mode == "RGB"
        except PictureError as error:
            assert str(error).startswith("x ")
