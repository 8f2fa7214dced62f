#!/usr/bin/env bash
# datasets reads every file of a zip archive as a picture, its text files too; of a folder it reads the pictures alone.
#
# datasets 5.2.0, pillow 13.0.0, archive by Python's zipfile. One picture and the caption beside it: imagefolder gives
# one row of the folder and two of the same files zipped; the second is zip://a.txt::..., typed Image, and raises when
# it is decoded, at the first look and not when the data set is loaded. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
export HF_HOME="$folder/home" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import zipfile
from pathlib import Path

import datasets
import PIL
from PIL import Image

place = Path(sys.argv[1])
(place / "cards").mkdir()
Image.new("RGB", (8, 8), "red").save(place / "cards" / "a.png")
(place / "cards" / "a.txt").write_text("a red card")
with zipfile.ZipFile(place / "cards.zip", "w") as archive:
    for path in sorted((place / "cards").iterdir()):
        archive.write(path, path.name)


def paths(**source):
    table = datasets.load_dataset("imagefolder", split="train", **source)
    assert isinstance(table.features["image"], datasets.Image)
    rows = table.cast_column("image", datasets.Image(decode=False))
    return table, [row["image"]["path"].split("::")[0].rsplit("/", 1)[-1] for row in rows]


_, of_folder = paths(data_dir=str(place / "cards"))
table, of_zip = paths(data_files=str(place / "cards.zip"))
print(f"datasets {datasets.__version__}, pillow {PIL.__version__}\nof the folder: {of_folder}\nof the zip:    {of_zip}")
assert of_folder == ["a.png"] and sorted(of_zip) == ["a.png", "a.txt"]
try:
    table[of_zip.index("a.txt")]
except PIL.UnidentifiedImageError as error:
    print(f"row {of_zip.index('a.txt')}: {type(error).__name__}")
else:
    raise AssertionError("the text was read as a picture")
print("as described: the text file is a row of pictures")
PYTHON
