#!/usr/bin/env bash
# Pillow opens pictures that say their colours by CICP numbers (PNG's cICP, AVIF's nclx) and hands on none of them.
#
# pillow 13.0.0. A PNG of Display P3 by its cICP chunk (12/13, PNG's third edition, which it outranks even a profile in)
# and an AVIF of Display P3 by its nclx box have the pixels, `info` and attributes of the same pictures in sRGB, so that no
# program that reads through Pillow can tell that (200, 100, 50) is to be shown as (215, 93, 31); Chromium 156 shows that.
# An ICC profile in the same files is in `info`. Nothing is warned of. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import warnings

import PIL
from PIL import Image, PngImagePlugin

warnings.simplefilter("error")


def written(kind, **options):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(file, kind, **options)
    return file.getvalue()


def all_that_pillow_says(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        known = {name: value for name, value in vars(picture).items() if not name.startswith("_")}
        known = {name: value for name, value in known.items() if isinstance(value, (str, int, float, tuple, dict, list))}
        return picture.mode, picture.tobytes(), known, dict(picture.info)


chunk = PngImagePlugin.PngInfo()
chunk.add(b"cICP", bytes([12, 13, 0, 1]))
plain_png, p3_png = written("PNG"), written("PNG", pnginfo=chunk)
plain_avif = written("AVIF", quality=100, subsampling="4:4:4")
numbers = plain_avif.index(b"nclx") + 4
assert plain_avif[numbers : numbers + 4] == bytes([0, 1, 0, 13])  # BT.709's primaries, sRGB's curve
p3_avif = plain_avif[: numbers + 1] + bytes([12]) + plain_avif[numbers + 2 :]
print(f"pillow {PIL.__version__}")
for name, plain, p3 in (("PNG", plain_png, p3_png), ("AVIF", plain_avif, p3_avif)):
    assert plain != p3
    assert all_that_pillow_says(plain) == all_that_pillow_says(p3)
    print(f"{name}: sRGB and Display P3 are the same to Pillow: {sorted(all_that_pillow_says(p3)[3]) or 'no info at all'}")
PYTHON
