"""Very large pictures: read at half their sides, one at a time, in bounded memory, with their true size kept.

The limit is lowered for small pictures; in soak real ones of 200 megapixels are made, and what they take is measured.
"""

import io
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, _webp

from sdxl_nb.audit.measures import measure
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data import decoding
from sdxl_nb.data.crops import half, plan_crop
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.decoding import PictureError, decode, decoded, upright_size
from sdxl_nb.data.plugins import HEIC, JXL, registered

WIDTH, HEIGHT = 51, 37


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(decoding, "WHOLE", 1000)
    monkeypatch.setattr(decoding, "TILE", 16)


def smooth(mode="RGB"):
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))
    return picture.convert(mode)


def encoded(picture, kind, **options):
    assert kind not in (HEIC, JXL) or registered(kind)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


EXACT = [
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "L", {}),
    ("PNG", "1", {}),
    ("TIFF", "CMYK", {}),
    ("TIFF", "LAB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}),
    ("AVIF", "RGB", {}),
    (HEIC, "RGB", {}),
    (JXL, "RGB", {"lossless": True}),
]


def as_stored(kind, mode, options):
    return encoded(smooth().convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else _of(mode), kind, **options)


def _of(mode):
    if mode == "LAB":
        way = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return way.apply(smooth())
    return smooth(mode)


@pytest.mark.parametrize("kind, mode, options", EXACT)
def test_a_large_picture_is_half_of_what_it_would_be(request, kind, mode, options):
    """Tile by tile the same as all of it, whatever its colours."""
    data = as_stored(kind, mode, options)
    whole = decode(data, "x")
    request.getfixturevalue("small_limit")
    picture, size = decoded(data, "x")
    assert size == upright_size(data, "x") == (HEIGHT, WIDTH) and whole.size == (WIDTH, HEIGHT)
    assert picture.size == half((WIDTH, HEIGHT)) == (26, 19)
    assert (np.asarray(picture) == np.asarray(whole.reduce(2))).all()


def test_a_large_deep_picture_keeps_its_low_bytes(request):
    values = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    whole = decode(data, "x")
    request.getfixturevalue("small_limit")
    assert (np.asarray(decode(data, "x")) == np.asarray(whole.reduce(2))).all()


def test_a_large_jpeg_is_halved_by_its_decoder(request, monkeypatch):
    data = encoded(smooth(), "JPEG", quality=95)
    whole = decode(data, "x")
    request.getfixturevalue("small_limit")
    monkeypatch.setattr(decoding, "in_tiles", lambda *_: pytest.fail("it was decoded whole"))
    picture, size = decoded(data, "x")
    assert size == (HEIGHT, WIDTH)
    assert np.abs(np.asarray(picture, dtype=int) - np.asarray(whole.reduce(2))).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_picture_is_turned_after_it_was_halved(small_limit, orientation, kind):
    stored = Image.new("RGB", (48, 32), "blue")
    stored.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, kind, exif=exif)
    picture, size = decoded(data, "x")
    assert size == upright_size(data, "x") == ((32, 48) if orientation < 5 else (48, 32))
    assert picture.size == (size[1] // 2, size[0] // 2)
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    x, y = (2 if "l" in corner else picture.width - 3), (2 if "t" in corner else picture.height - 3)
    red, _, blue = picture.getpixel((x, y))
    assert red > 200 and blue < 60


def test_a_sample_says_the_true_size_and_its_crop_is_where_it_would_be(tmp_path, request):
    ramp = Image.linear_gradient("L")
    ramps = [one.resize((52, 38)) for one in (ramp, ramp.transpose(Image.Transpose.ROTATE_90))]
    Image.merge("RGB", [*ramps, ramps[0]]).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ramps")
    pictures = open_dataset(TrainConfig(train_data_dir=str(tmp_path)))
    crop = plan_crop((38, 52), (8, 8), u=0.5, v=0.9, flip=True)
    whole = pictures[0]
    request.getfixturevalue("small_limit")
    halved = pictures[0]
    assert halved.picture.size == (26, 19)
    assert halved.original_size == whole.original_size == pictures.size(0) == (38, 52)
    assert crop.left == 3 and np.abs(crop.apply(halved.picture) - crop.apply(whole.picture)).max() < 0.03
    with pytest.raises(ValueError, match=r"planned for \(38, 52\), got a picture of \(18, 26\)"):
        crop.picture(halved.picture.crop((0, 0, 26, 18)))


def test_the_audit_measures_a_large_picture(small_limit):
    told = measure(encoded(smooth("RGBA"), "PNG"), "x", 16)
    assert told.header.size == (HEIGHT, WIDTH) and told.transparent
    assert not measure(encoded(smooth().convert("RGBA"), "PNG"), "x", 16).transparent


def test_large_pictures_are_decoded_one_at_a_time(small_limit):
    assert decoding.alone((100, 11)) is decoding._one_large
    assert decoding.alone((100, 10)) is not decoding._one_large


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", "JPEG", "MPO"])
def test_a_limit_of_pillow_changes_nothing(monkeypatch, kind):
    """TIFF, WebP and GIF look at it when they are opened or read, and it is one for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    data = encoded(smooth().convert("P") if kind == "GIF" else smooth(), kind)
    with ThreadPoolExecutor(4) as pool:
        assert {picture.size for picture in pool.map(decode, [data] * 40, ["x"] * 40)} == {(WIDTH, HEIGHT)}
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_webp_beyond_the_limit_is_refused_before_it_takes_memory(monkeypatch):
    data = bytearray(encoded(smooth(), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9  # 14 bits of each side less one
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") | (1 << 28) - 1).to_bytes(4, "little")
    monkeypatch.setattr(_webp, "WebPAnimDecoder", lambda *_: pytest.fail("its canvas was made"))
    with pytest.raises(PictureError, match=r"^x holds more than 200 million pixels: make it smaller\.$"):
        decode(bytes(data), "x")


def declared(width, height, rows):
    """A PNG of so many pixels, of which it holds some rows of black."""

    def chunk(name, content):
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    sides = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    pixels = zlib.compress(bytes(3 * width + 1) * rows)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sides + b"\x08\x02\0\0\0")
    return start + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("sides", [(14_142, 14_142), (199_000_000, 1)])
def test_a_picture_that_declares_more_than_it_holds_is_damaged(sides):
    with pytest.raises(PictureError, match=r"^x is damaged or cut short"):
        decode(declared(*sides, 0), "x")


MEASURED = """
import sys
from pathlib import Path
from sdxl_nb.data.decoding import decoded
def most():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
data = Path(sys.argv[1]).read_bytes()
before = most()
picture, size = decoded(data, "x")
print(size[0], size[1], picture.height, picture.width, most() - before)
"""
LARGE = {  # MiB above what was there, the file included: half the picture is 191, all of it in Pillow's 4 bytes 763
    "baseline.jpg": ({"quality": 90}, 450),
    "progressive.jpg": ({"quality": 90, "progressive": True}, 1400),
    "large.png": ({"compress_level": 1}, 1100),
    "raw.tif": ({}, 1100),
    "large.tif": ({"compression": "tiff_lzw"}, 1100),
    "jpeg.tif": ({"compression": "jpeg"}, 1100),
    "large.gif": ({}, 600),
    "large.jxl": ({"effort": 1, "quality": 90}, 1750),  # its plugin keeps a copy of its own
    "large.avif": ({"speed": 10, "quality": 50}, 1900),  # and so does AVIF's decoder
    "large.webp": ({"lossless": True, "method": 0, "quality": 0}, 3300),  # two canvases of an animation
}


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGE)
def test_two_hundred_megapixels_take_bounded_memory(tmp_path, monkeypatch, name):
    options, most = LARGE[name]
    assert not name.endswith(".jxl") or registered(JXL)
    few = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    few.resize((16_320, 12_240), Image.BICUBIC).save(tmp_path / name, **options)
    words = [sys.executable, "-c", MEASURED, str(tmp_path / name)]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    *sizes, taken = map(int, printed.split())
    assert sizes == [12_240, 16_320, 6_120, 8_160]
    assert taken < most
