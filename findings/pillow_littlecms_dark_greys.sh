#!/usr/bin/env bash
# Pillow's ImageCms (LittleCMS) is up to 10 of 255 levels off in dark greys of linear light, unless it is told not to optimise.
#
# pillow 13.0.0 with LittleCMS 2.19. A grey ICC profile of gamma 1 (linear light) and the levels 0 to 8. By IEC 61966-2-1
# level v is 255 * 12.92 * v / 255 in sRGB near black, then 269 * (v / 255) ** (1 / 2.4) - 14: 0 13 22 28 34 38 42 46 50.
# profileToProfile with its default flags gives                                                  0  6 12 19 25 31 37 43 50,
# with Flags.NOOPTIMIZE                                                                        0 13 22 28 34 38 42 46 50.
# The same levels in an RGB profile of gamma 1 are right by default. Fails when any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import PIL
from PIL import Image, ImageCms, features

XYZ = struct.pack(">3i", 63190, 65536, 54061)  # D50


def profile(space, tags):
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    kind = struct.pack(">4xI4s4s4s12x4s28x", 0x02400000, b"mntr", space, b"XYZ ", b"acsp") + XYZ
    return io.BytesIO(struct.pack(">I", start + len(body)) + kind.ljust(124, b"\0") + table + body)


def moved(mode, icc, **options):
    ramp = Image.frombytes("L", (9, 1), bytes(range(9))).convert(mode)
    seen = ImageCms.profileToProfile(
        ramp, ImageCms.ImageCmsProfile(icc), ImageCms.createProfile("sRGB"), outputMode="RGB", **options
    )
    return [seen.getpixel((x, 0))[1] for x in range(9)]


line = b"curv" + bytes(8)  # a curve of no points: the identity
white = b"XYZ " + bytes(4) + XYZ
grey = {b"wtpt": white, b"kTRC": line}
primaries = {b"r": (28576, 14578, 912), b"g": (25238, 46984, 6361), b"b": (9376, 3973, 46788)}  # sRGB's under D50
rgb = {b"wtpt": white}
for letter, values in primaries.items():
    rgb |= {letter + b"XYZ": b"XYZ " + bytes(4) + struct.pack(">3i", *values), letter + b"TRC": line}
right = [0] + [round(269.025 * (v / 255) ** (1 / 2.4) - 14.025) for v in range(1, 9)]
default = moved("L", profile(b"GRAY", grey))
exact = moved("L", profile(b"GRAY", grey), flags=ImageCms.Flags.NOOPTIMIZE)
coloured = moved("RGB", profile(b"RGB ", rgb))
print(f"pillow {PIL.__version__}, LittleCMS {features.version('littlecms2')}")
print(f"right            {right}\ngrey, default    {default}\ngrey, NOOPTIMIZE {exact}\nRGB, default     {coloured}")
assert features.version("littlecms2") == "2.19"
assert exact == right == [0, 13, 22, 28, 34, 38, 42, 46, 50] == coloured
assert default == [0, 6, 12, 19, 25, 31, 37, 43, 50]
print("as described: grey in linear light is up to 10 levels too dark by default")
PYTHON
