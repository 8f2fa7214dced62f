"""Decoding: every mode and fault that real picture files have, and real photographs."""

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn.datasets
from PIL import Image, ImageCms

from sdxl_nb.data import decoding
from sdxl_nb.data.decoding import PictureError, decode

# Pillow warns about the damage that these files have on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixel(data, at=(0, 0)):
    picture = decode(data, "x")
    assert picture.mode == "RGB"
    return picture.getpixel(at)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientations(orientation, kind):
    """A red top-left block is where EXIF says it is to be seen."""
    stored = Image.new("RGB", (48, 32), "blue")
    stored.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(encoded(stored, kind, exif=exif), "x")
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert seen.size == ((48, 32) if orientation < 5 else (32, 48))
    x, y = (4 if "l" in corner else seen.width - 5), (4 if "t" in corner else seen.height - 5)
    red, _, blue = seen.getpixel((x, y))
    assert red > 200 and blue < 60


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photograph_to_be_looked_at_is_read_no_larger_than_that(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(skimage.data.astronaut()[:384])
    turn = 1 if orientation == 1 else -1
    for kind, side, expected in (("JPEG", 100, (256, 192)), ("JPEG", 300, (512, 384)), ("PNG", 100, (512, 384))):
        data = encoded(stored, kind, exif=exif)
        seen, size = decoding.decoded(data, "x", side=side)
        assert (seen.size, size) == (expected[::turn], (384, 512)[::turn])
        whole = decode(data, "x").resize(seen.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(seen, float) - np.asarray(whole, float)).mean() < 2


def test_transparency_lands_on_white():
    layers = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    layers.putpixel((0, 0), (255, 0, 0, 255))
    layers.putpixel((1, 0), (0, 0, 0, 128))
    data = encoded(layers)
    assert [pixel(data, (x, 0)) for x in range(3)] == [(255, 0, 0), (127, 127, 127), (255, 255, 255)]
    assert pixel(encoded(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)


def test_palette_with_and_without_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert pixel(encoded(palette), (1, 0)) == (0, 255, 0)
    see_through = encoded(palette, transparency=1)
    assert pixel(see_through, (0, 0)) == (255, 0, 0) and pixel(see_through, (1, 0)) == (255, 255, 255)


def test_transparent_colour_of_an_rgb_png():
    assert pixel(encoded(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_scale(kind):
    values = np.array([[0, 32768, 65535, 257]], np.uint16)
    seen = decode(encoded(Image.fromarray(values), kind), "x")
    assert np.asarray(seen)[0, :, 0].tolist() == [0, 128, 255, 1]


def test_grey_bilevel_and_cmyk():
    assert pixel(encoded(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(encoded(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    assert pixel(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)


def test_adobe_inverted_cmyk_jpeg():
    """Pillow writes the Adobe marker and inverted ink, as Photoshop does; red must come back red."""
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert b"Adobe" in data[:200]
    red, green, blue = pixel(data, (8, 8))
    assert red > 245 and green < 10 and blue < 10


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    red, green, blue = pixel(encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))
    assert red > 240 and green < 15 and blue < 15


def test_another_colour_space_is_moved_to_srgb():
    """A profile with a gamma of 1: half the light, 128, is 188 in sRGB."""
    profile = linear_profile()
    plain = pixel(encoded(Image.new("RGB", (2, 2), (128, 128, 128))))
    moved = pixel(encoded(Image.new("RGB", (2, 2), (128, 128, 128)), icc_profile=profile))
    assert plain == (128, 128, 128) and all(abs(value - 188) <= 2 for value in moved)


def linear_profile():
    """sRGB's primaries with a gamma of 1, made from Pillow's sRGB profile by replacing its tone curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * index
        offset = int.from_bytes(data[entry + 4 : entry + 8], "big")
        if data[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            data[offset : offset + 12] = b"curv" + bytes(8)  # a curve of no points is the identity
        if data[entry : entry + 4] == b"desc":
            data[offset:] = bytes(data[offset:]).replace(b"s\0R\0G\0B", b"l\0i\0n\0r").replace(b"sRGB", b"linr")
    return bytes(data)


def test_a_broken_profile_keeps_the_pixels_and_says_so(caplog):
    data = encoded(Image.new("RGB", (2, 2), (10, 20, 30)), icc_profile=b"not a profile at all" * 20)
    assert pixel(data) == (10, 20, 30)
    assert "x: its colour profile cannot be used" in caplog.text


def test_broken_exif_keeps_the_picture():
    data = encoded(Image.new("RGB", (6, 4), "red"), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data, "x").size == (6, 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_short_is_an_error_and_not_grey(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(PictureError, match=r"^cut is damaged or cut short|^cut is not a picture|^cut has a damaged"):
        decode(data[: len(data) // 2], "cut")


def test_a_decompression_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    with pytest.raises(PictureError, match=r"^bomb holds more than 0 million pixels: make it smaller\.$"):
        decoding.open_header(BOMB_OF_1024, "bomb")


BOMB_OF_1024 = encoded(Image.new("1", (32, 32)))


def test_a_real_bomb_of_a_few_bytes():
    header = encoded(Image.new("1", (8, 8)))
    width = (60_000).to_bytes(4, "big")
    chunk = b"IHDR" + width + width + header[24:29]
    bomb = header[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + header[33:]
    with pytest.raises(PictureError, match="holds more than 200 million pixels"):
        decode(bomb, "bomb.png")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_no_picture(data):
    with pytest.raises(PictureError, match=r"^odd\.bin (is|has) "):
        decode(data, "odd.bin")


@pytest.mark.parametrize("byte", range(0, 400, 7))
def test_a_flipped_byte_never_escapes_as_another_error(byte):
    """Any damage either still gives an RGB picture or a PictureError."""
    for kind in ("JPEG", "PNG", "GIF", "TIFF"):
        data = bytearray(encoded(Image.radial_gradient("L").resize((24, 24)).convert("RGB"), kind))
        data[byte % len(data)] ^= 0xFF
        try:
            assert decode(bytes(data), "x").mode == "RGB"
        except PictureError as error:
            assert str(error).startswith("x ")


PHOTOGRAPHS = {
    "astronaut.png": (512, 512),
    "coffee.png": (600, 400),
    "chelsea.png": (451, 300),
    "rocket.jpg": (640, 427),
    "hubble_deep_field.jpg": (1000, 872),
    "no_time_for_that_tiny.gif": (14, 25),
    "china.jpg": (640, 427),
    "flower.jpg": (640, 427),
}


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs(name):
    folder = Path(skimage.__file__).parent / "data"
    path = next(
        path for path in (folder / name, Path(sklearn.datasets.__file__).parent / "images" / name) if path.exists()
    )
    picture = decode(path.read_bytes(), name)
    assert (picture.mode, picture.size) == ("RGB", PHOTOGRAPHS[name])


def test_the_astronaut_wears_orange():
    data = (Path(skimage.__file__).parent / "data" / "astronaut.png").read_bytes()
    red, green, blue = np.asarray(decode(data, "astronaut")).reshape(-1, 3).mean(axis=0)
    assert red > green > 0 and red > blue
