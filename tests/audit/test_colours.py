"""Findings about colours: what cannot be honoured is named with its remedy; what can be raises no alarm."""

import shutil
from pathlib import Path

import pytest

from sdxl_nb import TrainConfig, audit_dataset
from sdxl_nb.audit.picture_faults import COLOURS, HIGH_RANGE

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
