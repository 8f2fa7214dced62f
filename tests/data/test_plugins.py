"""HEIC and JPEG XL, as other programs write them: which way up, how large, and what is said without the plugins.

`tests/data/turned/` holds real files and what made them; those of `tests/data/pictures/` are judged by their colours.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data import decoding, plugins
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.decoding import MissingPlugin, PictureError, decode, upright_size
from sdxl_nb.data.file_facts import Memo, examine
from sdxl_nb.data.plugins import HEIC, JXL, jxl_header, plugin_of, registered

DATA = Path(__file__).parent
TURNED = DATA / "turned"


def corner_of(picture):
    """Where the red corner of a blue picture is seen."""
    right, bottom = picture.width - 5, picture.height - 5
    places = {"tl": (4, 4), "tr": (right, 4), "bl": (4, bottom), "br": (right, bottom)}
    (seen,) = (name for name, place in places.items() if picture.getpixel(place)[0] > 150)
    return seen


def cornered():
    picture = Image.new("RGB", (48, 32), "blue")
    picture.paste("red", (0, 0, 16, 16))
    return picture


def encoded(picture, kind, **options):
    assert registered(kind)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(orientation):
    """libheif turns it by irot and imir; the EXIF data beside them say the same, and must not count again."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(cornered(), HEIC, exif=exif.tobytes(), quality=95)
    assert b"Exif" in data and (orientation == 1) != (b"irot" in data or b"imir" in data)
    seen = decode(data, "phone.heic")
    assert corner_of(seen) == {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert (seen.height, seen.width) == upright_size(data, "phone.heic") == ((32, 48) if orientation < 5 else (48, 32))


@pytest.mark.parametrize(
    "name, corner, size",
    [
        ("cjxl-png.jxl", "tr", (48, 32)),
        ("cjxl-jpeg.jxl", "tr", (48, 32)),
        ("heif-enc-exif-alone.heic", "tl", (32, 48)),  # HEIF's own turns count alone, and this has none
    ],
)
def test_a_picture_of_another_program_is_turned_once(name, corner, size):
    data = (TURNED / name).read_bytes()
    seen = decode(data, name)
    assert (corner_of(seen), (seen.height, seen.width), upright_size(data, name)) == (corner, size, size)


def test_a_jpeg_xl_that_moves_is_refused_because_its_plugin_gives_the_last_frame():
    data = (TURNED / "cjxl-moving.jxl").read_bytes()
    with pytest.raises(PictureError, match=r"^a\.jxl is a moving JPEG XL, in a format that cannot be read: save"):
        decode(data, "a.jxl")
    plugin = Image.open(io.BytesIO(data))
    assert corner_of(plugin.convert("RGB")) == "tl"  # of the second frame: the first is red all over


@pytest.mark.parametrize(
    "width, height", [(1, 1), (8, 8), (256, 128), (160, 90), (30, 20), (7, 300), (1000, 9), (9000, 2)]
)
@pytest.mark.parametrize("container", [False, True])
def test_the_header_of_a_jpeg_xl_says_its_size(width, height, container):
    data = encoded(Image.new("L", (width, height)), JXL, effort=1, use_container=container)
    assert data.startswith(plugins.JXL_BOX if container else plugins.JXL_START)
    assert jxl_header(data) == (width, height, 1, False)
    assert upright_size(data, "x") == (height, width)


def test_a_jpeg_xl_of_a_giant_header_never_reaches_its_plugin(monkeypatch):
    registered(JXL)
    monkeypatch.setitem(Image.OPEN, JXL, (lambda *_: pytest.fail("the plugin was asked"), None))
    size = 2 << 1 | (60_000 - 1) << 3 | 1 << 21  # not in eights; 18 bits, less one; square
    data = plugins.JXL_START + size.to_bytes(16, "little")
    for look in (decode, upright_size):
        with pytest.raises(PictureError, match=r"^bomb holds more than 200 million pixels: make it smaller\.$"):
            look(data, "bomb")


def test_an_avif_needs_no_plugin():
    kinds = {path.name: plugin_of(path.read_bytes()) for path in (DATA / "pictures").iterdir()}
    assert {name: kind for name, kind in kinds.items() if kind} == {
        "heif-adobe.heic": HEIC,
        "cjxl-adobe.jxl": JXL,
        "cjxl-p3.jxl": JXL,
        "cjxl-pq.jxl": JXL,
    }


@pytest.mark.parametrize("path", [TURNED / "cjxl-jpeg.jxl", TURNED / "cjxl-png.jxl", DATA / "pictures/heif-adobe.heic"])
def test_damage_never_escapes_as_another_error(path):
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    for attempt in range(40):
        data = bytearray(whole[: draw.integers(1, len(whole))] if attempt % 2 else whole)
        data[draw.integers(len(data))] ^= 0xFF
        try:
            assert decode(bytes(data), "x").mode == "RGB"
        except PictureError as error:
            assert str(error).startswith("x ")


def absent(monkeypatch, kind):
    """As where the extra was not installed: the import itself fails."""
    monkeypatch.delitem(Image.OPEN, kind, raising=False)
    monkeypatch.setitem(sys.modules, plugins.MODULES[kind], None)


@pytest.mark.parametrize(
    "kind, name, said", [(HEIC, "heif-enc-exif-alone.heic", "HEIC"), (JXL, "cjxl-png.jxl", "JPEG XL")]
)
def test_without_its_plugin_the_extra_is_named(monkeypatch, kind, name, said):
    data = (TURNED / name).read_bytes()
    absent(monkeypatch, kind)
    sentence = f"{name} is a {said} picture: pip install 'sdxl_nb[formats]' reads it, or save it as JPEG."
    for look in (decode, upright_size, decoding.open_header):
        with pytest.raises(MissingPlugin) as error:
            look(data, name)
        assert str(error.value) == sentence


def test_what_was_left_out_is_read_once_the_plugin_is_there(tmp_path, monkeypatch):
    folder = tmp_path / "phone"
    folder.mkdir()
    for name in ("cjxl-png.jxl", "heif-enc-exif-alone.heic"):
        (folder / name).write_bytes((TURNED / name).read_bytes())
        (folder / name).with_suffix(".txt").write_text("a corner")
    memo, config = Memo(tmp_path / "cache"), TrainConfig(train_data_dir=str(folder))
    with monkeypatch.context() as patched:
        absent(patched, HEIC)
        assert examine(open_dataset(config), memo).names == ["heif-enc-exif-alone.heic"]
    assert examine(open_dataset(config), memo).names == []
    memo.close()


def test_the_plugins_are_imported_when_a_file_needs_them():
    script = (
        "import sys; from pathlib import Path; from sdxl_nb.data.decoding import decode\n"
        "there = lambda: [name for name in ('pillow_heif', 'pillow_jxl') if name in sys.modules]\n"
        "print(there()); [decode(Path(name).read_bytes(), name) for name in sys.argv[1:]]; print(there())"
    )
    names = [str(TURNED / name) for name in ("cjxl-png.jxl", "heif-enc-exif-alone.heic")]
    printed = subprocess.run([sys.executable, "-c", script, *names], check=True, capture_output=True, text=True).stdout
    assert printed == "[]\n['pillow_heif', 'pillow_jxl']\n"
