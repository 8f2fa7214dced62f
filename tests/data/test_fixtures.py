"""The files of other programs that tests read are what their scripts make: made again, and compared by what they hold.

Times and the order of packing differ each time; names, texts, pixels and rows must not.
"""

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from sdxl_nb.data.decoding import PictureError, decode
from sdxl_nb.data.words.carried import carried

HERE = Path(__file__).parent
PROGRAMS = {
    "archives": ("zip", "tar"),
    "captions": ("convert", "exiftool"),
    "turned": ("cjxl", "heif-enc"),
}
NOT_MADE = {"make.py", "VERSIONS"}


def made_again(kind, work):
    """The folder that the script of these files fills anew, with the libraries of the same versions."""
    absent = [program for program in PROGRAMS[kind] if shutil.which(program) is None]
    if absent:
        pytest.skip(f"made by programs that are not here: {', '.join(absent)}; see tests/data/{kind}/make.py")
    goal, libraries = work / "made", work / "libraries"
    goal.mkdir()
    if kind == "archives":
        versions = dict(line.split(" ", 1) for line in (HERE / kind / "VERSIONS").read_text().splitlines())
        wanted = [f"{name}=={versions[name]}" for name in ("webdataset", "polars")]
        wanted += [f"polars-runtime-32=={versions['polars']}", "braceexpand"]  # and numpy, which is here
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(libraries)]
        subprocess.run([*pip, *wanted], check=True, timeout=900)
    paths = os.pathsep.join(filter(None, (str(libraries), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, str(HERE / kind / "make.py"), str(goal)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": paths}, timeout=900)
    return goal


def held(data, name):
    """What a file holds: by name what an archive does, rows of a table, else its pixels and captions, or its bytes."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {one.filename: one for one in archive.infolist()}
            plain = {n for n, one in found.items() if not (one.flag_bits & 1 or stat.S_ISLNK(one.external_attr >> 16))}
            return {n: held(archive.read(n), n) if n in plain else (one.CRC, one.flag_bits) for n, one in found.items()}
    if name.endswith((".tar", ".tar.gz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            every = {one.name: one for one in archive}
            files = {n: archive.extractfile(one).read() for n, one in every.items() if one.isfile()}
            return {n: held(files[n], n) if n in files else (one.type, one.linkname) for n, one in every.items()}
    if name.endswith(".parquet"):
        return pq.read_table(io.BytesIO(data)).to_pylist()
    if name.endswith((".png", ".jpg", ".webp", ".tif", ".jxl", ".heic", ".bmp")):
        try:
            return np.asarray(decode(data, name)).tolist(), carried(data, name)
        except PictureError as error:
            return data, str(error)
    return data


@pytest.mark.soak
@pytest.mark.parametrize("kind", PROGRAMS)
def test_files_made_again_hold_the_same(kind, tmp_path):
    goal = made_again(kind, tmp_path)
    names = {path.relative_to(goal).as_posix() for path in goal.rglob("*") if path.is_file()}
    kept = {path.relative_to(HERE / kind).as_posix() for path in (HERE / kind).rglob("*") if path.is_file()}
    assert names - NOT_MADE == {name for name in kept - NOT_MADE if "__pycache__" not in name}
    for name in sorted(names - NOT_MADE):
        assert held((goal / name).read_bytes(), name) == held((HERE / kind / name).read_bytes(), name), name


def test_what_a_file_holds_tells_others_apart():
    """So that the comparison above can fail."""
    archives, captions = HERE / "archives", HERE / "captions"
    first, second = (held((archives / name).read_bytes(), name) for name in ("around.zip", "stored.zip"))
    assert first != second and set(first) == {f"cards/{name}" for name in second if name} | {"cards/"}
    assert held((archives / "nested.zip").read_bytes(), "nested.zip")["stored.zip"] == second
    said = [held((captions / name).read_bytes(), name)[1] for name in ("xmp.png", "languages.jpg", "keywords.jpg")]
    assert said[0] != said[2] and all(said)
