"""Colours of pictures that other programs wrote, against what Chromium and LittleCMS's own programs show of them.

`tests/data/pictures/` holds the files, what made them, and for each the right colours and who says so.
"""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageCms

from sdxl_nb.data.colour import conversion, statements
from sdxl_nb.data.decoding import PictureError, decode

PICTURES = Path(__file__).parent.parent / "pictures"
REFERENCE = json.loads((PICTURES / "reference.json").read_text())
PLUGINS = (".heic", ".jxl")
LEVELS = 2
PROGRAMS = ("gimp", "convert", "chromium", "exiftool", "avifenc", "heif-enc", "cjxl", "tificc")


def names(suffixes=None):
    return sorted(name for name in REFERENCE if (Path(name).suffix in PLUGINS) == bool(suffixes))


def squares(path, side=16):
    """The colour in the middle of each square of a picture."""
    return np.asarray(decode(path.read_bytes(), path.name), dtype=int)[side // 2, side // 2 :: side]


def off_by(folder, name, reference):
    """How many levels the farthest square is from the reference; None where the picture is refused and must be."""
    if reference["squares"] is None:
        with pytest.raises(PictureError, match=r"is an HDR picture \((PQ|HLG)\), whose brightness sRGB cannot hold"):
            decode((folder / name).read_bytes(), name)
        return None
    return np.abs(squares(folder / name) - reference["squares"]).max()


@pytest.mark.parametrize("name", [*names(), *names(PLUGINS)])
def test_a_picture_has_the_colours_that_a_viewer_shows(name):
    assert off_by(PICTURES, name, REFERENCE[name]) in (None, *range(LEVELS + 1))


def test_every_file_has_a_reference_and_is_small():
    files = {path.name: path.stat().st_size for path in PICTURES.iterdir() if path.suffix not in (".py", ".json")}
    assert set(files) == set(REFERENCE)
    assert max(files.values()) < 20_000 and sum(files.values()) < 600_000


# The faults of former versions, put back: each must be seen in these very pictures.


def wrong(monkeypatch=None):
    return {name for name in names() if (off_by(PICTURES, name, REFERENCE[name]) or 0) > LEVELS}


def test_a_profile_taken_for_srgb_by_its_name_is_seen(monkeypatch):
    real = conversion.to_srgb_by

    def by_name(profile, kind):
        moved = real(profile, kind)
        described = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return moved._replace(idle=moved.idle or "sRGB" in described)

    monkeypatch.setattr(statements, "to_srgb_by", by_name)
    seen = wrong()
    assert {"chromium-p3.png", "chromium-p3.jpg", "chromium-p3.webp", "gimp-linear.png", "gimp-linear-16.tif"} <= seen
    assert all(name.startswith(("chromium-p3", "gimp-linear")) for name in seen)


def test_chunks_passed_over_are_seen(monkeypatch):
    monkeypatch.setattr(statements, "colour_chunks", lambda data: {})
    assert {"magick-gamma.png", "magick-linear.png", "magick-linear-16.png", "chromium-p3.png"} <= wrong()


def test_cicp_passed_over_is_seen(monkeypatch):
    monkeypatch.setattr(statements, "_refuse_hdr", lambda transfer: None)
    monkeypatch.setattr(statements, "PRIMARIES", {})
    monkeypatch.setattr(statements, "CURVES", {})
    for name in ("avifenc-pq.avif", "avifenc-hlg.avif"):
        assert squares(PICTURES / name)[0].tolist() == pytest.approx([200, 100, 50], abs=LEVELS)
    monkeypatch.undo()
    monkeypatch.setattr(statements, "PRIMARIES", {})
    monkeypatch.setattr(statements, "CURVES", {})
    assert wrong() == {"avifenc-2020.avif", "avifenc-p3.avif", "avifenc-linear.avif"}


def test_grey_profiles_passed_over_are_seen(monkeypatch):
    monkeypatch.setattr(statements, "GREY_MODES", ())
    monkeypatch.setattr(statements, "_kind", lambda picture, data, boxes: "RGB")
    assert {"magick-grey.png", "magick-grey.jpg", "avifenc-grey.avif", "gimp-grey-linear-16.png"} <= wrong()


def test_sixteen_bits_cut_to_eight_are_seen(monkeypatch):
    monkeypatch.setattr("sdxl_nb.data.decoding.low_bytes", lambda picture: None)
    assert {"gimp-linear-16.png", "gimp-linear-16.tif", "magick-linear-16.png", "gimp-prophoto-16.png"} <= wrong()


# Made again.


def maker():
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        pytest.skip(f"the pictures are made by programs that are not here: {', '.join(absent)}; see {PICTURES}/make.py")
    spec = importlib.util.spec_from_file_location("make", PICTURES / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(folder, *options):
    maker()
    words = [sys.executable, str(PICTURES / "make.py"), *options, str(folder)]
    subprocess.run(words, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=1800)
    return json.loads((folder / "reference.json").read_text())


@pytest.mark.soak
def test_the_small_set_made_again_says_the_same(tmp_path):
    again = made(tmp_path)
    assert set(again) == set(REFERENCE)
    for name, reference in again.items():
        assert (reference["squares"] is None) == (REFERENCE[name]["squares"] is None)
        if reference["squares"]:
            assert np.abs(np.subtract(reference["squares"], REFERENCE[name]["squares"])).max() <= 1, name


@pytest.mark.soak
def test_two_hundred_pictures_are_within_two_levels(tmp_path):
    """None is farther off outside the named exception, and none raises anything but a PictureError.

    The exception: Chromium fits the table of an L* curve by a formula, and is up to 4 levels off LittleCMS, as we are.
    """
    references = made(tmp_path, "--many")
    opened = {name: one for name, one in references.items() if Path(name).suffix not in PLUGINS}
    assert len(opened) > 200
    far = {name: off for name, one in opened.items() if (off := off_by(tmp_path, name, one) or 0) > LEVELS}
    assert {name: off for name, off in far.items() if "lstar" not in name.lower() or off > 4} == {}
