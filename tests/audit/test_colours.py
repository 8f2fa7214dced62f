"""Findings about colours: what cannot be honoured is named with its remedy; what can be raises no alarm."""

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdxl_nb import TrainConfig, audit_dataset
from sdxl_nb.audit.picture_faults import COLOURS, HIGH_RANGE, MISSING_PLUGIN
from sdxl_nb.data.plugins import MODULES

PICTURES = Path(__file__).parent.parent / "data" / "pictures"
DOUBTFUL = {
    "pillow-broken.png": "its colour profile cannot be used",
    "pillow-cut.png": "its colour profile cannot be used",
    "pillow-wrong-count.png": "its colour profile is for GRAY, its pixels are RGB; taken as sRGB",
    "exiftool-r03.jpg": "EXIF alone says Adobe RGB; taken as sRGB, as browsers do",
    "magick-linear.gif": "its colour profile is passed over, as browsers do in a GIF",
}
HONOURED = (
    "source.png",
    "chromium-p3.png",
    "gimp-linear-16.tif",
    "magick-grey.jpg",
    "magick-cmyk.jpg",
    "magick-gamma.png",
)
HDR = {"avifenc-pq.avif", "avifenc-hlg.avif"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    goal = tmp_path_factory.mktemp("data")
    for name in {*DOUBTFUL, *HDR, *HONOURED}:
        shutil.copy(PICTURES / name, goal)
        (goal / name).with_suffix(".txt").write_text(f"a row of squares called {name}")
    return goal


@pytest.mark.parametrize("quick", [False, True])
def test_colours_that_cannot_be_honoured_are_named(folder, quick):
    report = audit_dataset(TrainConfig.preset("tiny", train_data_dir=str(folder)), quick=quick, progress=False)
    assert report.files(COLOURS) == set(DOUBTFUL) and report.files(HIGH_RANGE) == HDR
    found = {finding.kind: finding for finding in report.findings}
    assert found[COLOURS].advice == "Look at them, and save them in sRGB with a picture editor."
    assert all(found[COLOURS].remarks[name].startswith(said) for name, said in DOUBTFUL.items())
    assert all("export it as SDR, in sRGB." in found[HIGH_RANGE].remarks[name] for name in HDR)
    assert "Export them as SDR, in sRGB" in found[HIGH_RANGE].advice


def test_pictures_that_lack_their_plugin_are_named_with_the_extra(tmp_path, monkeypatch):
    for name in ("heif-adobe.heic", "cjxl-p3.jxl", "source.png"):
        shutil.copy(PICTURES / name, tmp_path)
        (tmp_path / name).with_suffix(".txt").write_text(f"a row of squares called {name}")
    for kind, module in MODULES.items():
        monkeypatch.delitem(Image.OPEN, kind, raising=False)
        monkeypatch.setitem(sys.modules, module, None)
    report = audit_dataset(TrainConfig.preset("tiny", train_data_dir=str(tmp_path)), quick=True, progress=False)
    (finding,) = (finding for finding in report.findings if finding.kind == MISSING_PLUGIN)
    assert sorted(finding.remarks.values()) == [
        "cjxl-p3.jxl is a JPEG XL picture: pip install 'sdxl_nb[formats]' reads it, or save it as JPEG.",
        "heif-adobe.heic is a HEIC picture: pip install 'sdxl_nb[formats]' reads it, or save it as JPEG.",
    ]
    assert finding.advice == "Read them with pip install 'sdxl_nb[formats]', or save them as JPEG."
