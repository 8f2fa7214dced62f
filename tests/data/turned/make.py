"""Makes the pictures beside it: `python tests/data/turned/make.py FOLDER`, with Debian's libjxl-tools 0.7.0 and
libheif-examples 1.15.1 and Pillow 13.0.0.

Each is 48 x 32 as it is stored, blue with a red corner at the top left, and says that it is to be turned by 90 degrees
clockwise: the red corner is seen at the top right. One moves instead: red, then blue.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

TURNED = 6  # EXIF's number


def main(goal: Path) -> None:
    goal.mkdir(parents=True, exist_ok=True)
    picture, exif = Image.new("RGB", (48, 32), "blue"), Image.Exif()
    picture.paste("red", (0, 0, 16, 16))
    exif[0x0112] = TURNED
    with tempfile.TemporaryDirectory() as folder:
        png, jpg, gif = (Path(folder, f"a.{end}") for end in ("png", "jpg", "gif"))
        picture.save(png, exif=exif)
        picture.save(jpg, exif=exif, quality=95)
        Image.new("RGB", (48, 32), "red").save(gif, save_all=True, append_images=[picture], duration=50)
        for source, name in ((png, "cjxl-png.jxl"), (jpg, "cjxl-jpeg.jxl"), (gif, "cjxl-moving.jxl")):
            subprocess.run(["cjxl", source, goal / name], check=True)  # a JPEG is kept whole inside
        subprocess.run(["heif-enc", "-q", "95", jpg, "-o", goal / "heif-enc-exif-alone.heic"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
