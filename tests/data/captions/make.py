"""Makes the pictures here with the programs that people use: python make.py FOLDER (needs exiftool and ImageMagick).

VERSIONS says which wrote those that are kept. Each carries one caption, SAID, in the place that it is named for.
"""

import subprocess
import sys
from pathlib import Path

SAID = "A black cat – “Mia” – sleeps on a café chair."
PARAMETERS = "a lighthouse at night, (stars:1.2)\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Size: 512x512"
EXIFTOOL = {
    "xmp.jpg": ["-XMP-dc:Description=" + SAID],
    "xmp.png": ["-XMP-dc:Description=" + SAID],
    "xmp.webp": ["-XMP-dc:Description=" + SAID],
    "xmp.tif": ["-XMP-dc:Description=" + SAID],
    "languages.jpg": ["-XMP-dc:Description-de=Eine Katze", "-XMP-dc:Description=" + SAID],
    "keywords.jpg": ["-XMP-dc:Subject=cat", "-XMP-dc:Subject=black fur"],
    "iptc.jpg": ["-IPTC:CodedCharacterSet=UTF8", "-IPTC:Caption-Abstract=" + SAID],
    "iptc.tif": ["-IPTC:CodedCharacterSet=UTF8", "-IPTC:Caption-Abstract=" + SAID],
    "latin.jpg": ["-IPTC:Caption-Abstract=" + SAID],
    "exif.jpg": ["-EXIF:ImageDescription=" + SAID],
    "exif.png": ["-EXIF:ImageDescription=" + SAID],
    "exif.webp": ["-EXIF:ImageDescription=" + SAID],
    "usercomment.jpg": ["-EXIF:UserComment=" + SAID],
    "usercomment-motorola.jpg": ["-ExifByteOrder=MM", "-EXIF:UserComment=" + SAID],
    "windows.jpg": ["-EXIF:XPComment=" + SAID],
    "comment.jpg": ["-Comment=" + SAID],
    "description.png": ["-PNG:Description=" + SAID],
    "everything.jpg": ["-XMP-dc:Description=" + SAID, "-IPTC:Caption-Abstract=another", "-EXIF:ImageDescription=third"],
    "camera.jpg": ["-EXIF:ImageDescription=OLYMPUS DIGITAL CAMERA         ", "-Comment=Created with GIMP"],
}
MAGICK = {
    "parameters.png": ["-set", "parameters", PARAMETERS],
    "packed.png": ["-set", "Description", SAID * 40],  # long enough to be compressed
    "comment.png": ["-set", "comment", SAID],
}


def make(folder: Path) -> None:
    for name in (*MAGICK, *EXIFTOOL):
        plain = ["convert", "-size", "16x12", "gradient:red-blue", "+set", "date:create", "+set", "date:modify"]
        plain += ["-define", "png:exclude-chunks=date,tIME"]
        subprocess.run([*plain, *MAGICK.get(name, ()), str(folder / name)], check=True)
    for name, flags in EXIFTOOL.items():
        command = ["exiftool", "-q", "-overwrite_original", "-charset", "utf8", *flags, str(folder / name)]
        subprocess.run(command, check=True)
    for source, name in (("iptc.jpg", "from-iptc.png"), ("xmp.jpg", "from-xmp.png"), ("exif.jpg", "from-exif.png")):
        subprocess.run(["convert", str(folder / source), str(folder / name)], check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
