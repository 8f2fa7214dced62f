#!/usr/bin/env bash
# Pillow reads a 16-bit RGB TIFF with one plane a colour, not compressed, as 8 bits: half of it, twice as wide.
#
# pillow 13.0.0, files by tifffile 2026.3.3. PlanarConfiguration 2 with BitsPerSample 16, which scanners and scientific
# programs write. Each plane is unpacked as bytes of one pixel each, so that every row shows its left half, and high and
# low bytes in turn. The same planes zlib-packed are read rightly. Nothing is raised or warned of. Fails when that changes.
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
picture = np.zeros((2, 4, 3), np.uint8)
picture[:, :2], picture[:, 2:] = (200, 100, 50), (30, 160, 90)
planes = np.moveaxis(picture.astype(np.uint16) * 257 + 3, 2, 0).copy()  # low bytes are three more than high ones


def opened(compression):
    file = io.BytesIO()
    how = {"photometric": "rgb", "planarconfig": "separate", "compression": compression, "byteorder": "<"}
    tifffile.imwrite(file, planes, **how)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(file.getvalue())), planes)
    with Image.open(file) as picture_of_pillow:
        return picture_of_pillow.mode, np.asarray(picture_of_pillow)[0].tolist()


stored, packed = opened(None), opened("zlib")
print(f"pillow {PIL.__version__}, tifffile {tifffile.__version__}\npacked:     {packed}\nnot packed: {stored}")
assert packed == ("RGB", picture[0].tolist())
assert stored == ("RGB", [[203, 103, 53], [200, 100, 50]] * 2)
print("as described: the right half is gone, and low bytes stand between high ones")
PYTHON
