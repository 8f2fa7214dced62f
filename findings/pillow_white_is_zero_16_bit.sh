#!/usr/bin/env bash
# Pillow opens a 16-bit grey TIFF whose 0 is white as its negative; the same picture of 8 bits it opens as it is.
#
# pillow 13.0.0, files by tifffile 2026.3.3. PhotometricInterpretation 0 (WhiteIsZero, TIFF 6.0) with the stored values
# 0, a half and the largest: white, grey and black. Pillow gives 255, 127, 0 of 8 bits, and 0, 32768, 65535 of 16.
# Nothing is raised or warned of. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3
"$folder/venv/bin/python" - <<'PYTHON'
import io
import warnings

import numpy as np
import PIL
import tifffile
from PIL import Image

warnings.simplefilter("error")


def opened(values):
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="miniswhite")
    with Image.open(file) as picture:
        assert picture.tag_v2[262] == 0
        return picture.mode, np.asarray(picture)[0].tolist()


eight, sixteen = opened(np.array([[0, 128, 255]], np.uint8)), opened(np.array([[0, 32768, 65535]], np.uint16))
print(f"pillow {PIL.__version__}, tifffile {tifffile.__version__}\n 8 bits: {eight}\n16 bits: {sixteen}")
assert eight == ("L", [255, 127, 0])
assert sixteen == ("I;16", [0, 32768, 65535])
print("as described: white at 8 bits is black at 16")
PYTHON
