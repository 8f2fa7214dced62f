"""What lies in the corners of a folder: what cannot be read, suffixes of every kind, folders with repeats."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image
from test_meant import opened, write

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.buckets import plan
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sources import tree
from sdxl_nb.system.errors import DataError


def notes(pictures, *kinds):
    return [str(note) for note in pictures.notes if getattr(note, "kind", "") in kinds]


# What cannot be listed.


def test_a_corner_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    """The tests may run as root, whom no permission stops; so listing is made to fail as the system would."""
    write(tmp_path, "a.png", "a.txt=A", "lost+found/x", "dogs/b.png")
    scandir = os.scandir

    def refusing(path):
        if os.path.basename(os.fspath(path).rstrip("/")) in ("lost+found", "dogs"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    pictures = opened(tmp_path)
    assert pictures.captions == ["A"]
    assert notes(pictures, "cannot_be_listed") == [
        "dogs cannot be listed (Permission denied), lost+found cannot be listed (Permission denied): what is in there "
        "is left out; check the permissions."
    ]
    with pytest.raises(DataError, match=r"dogs cannot be listed \(Permission denied\): check its permissions"):
        list(tree.scan(tmp_path / "dogs"))


AS_NOBODY = """
import os, sys
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
config = TrainConfig(train_data_dir=sys.argv[1])
open_dataset(config)  # imports what it needs: nobody may not read root's Python
if os.getuid() == 0:
    os.setuid(65534)
pictures = open_dataset(config)
print(pictures.captions, pictures.notes)
"""


def test_a_corner_without_permission():
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        os.chmod(place, 0o755)
        write(Path(place), "a.png", "a.txt=A", "lost+found/x")
        os.chmod(f"{place}/lost+found", 0)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, place], capture_output=True, text=True)
        os.chmod(f"{place}/lost+found", 0o700)
    assert done.returncode == 0, done.stderr
    said = "lost+found cannot be listed (Permission denied): what is in there is left out; check the permissions."
    assert done.stdout == f"['A'] [{said!r}]\n"


# Suffixes.

KINDS = {
    "a.jpe": "JPEG", "a.JPG": "JPEG", "a.jps": "JPEG", "a.jp2": "JPEG2000", "a.j2k": "JPEG2000", "a.tga": "TGA",
    "a.ppm": "PPM", "a.pgm": "PPM", "a.apng": "PNG", "a.mpo": "MPO", "a.dib": "BMP",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_suffixes_that_pillow_reads_are_used(name, tmp_path):
    Image.new("L" if name == "a.pgm" else "RGB", (32, 24), 120).save(tmp_path / name, KINDS[name])
    (tmp_path / "a.txt").write_text("A")
    pictures = opened(tmp_path)
    assert pictures.names == [name] and not pictures.check() and pictures.notes == []
    assert pictures[0].original_size == (24, 32)


def test_only_a_tga_by_name_is_read_as_one(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png", "TGA")
    write(tmp_path, "a.txt=A", "b.png", "b.txt=B")
    assert opened(tmp_path).check().names == ["a.png"]


UNREAD = "is in a format that cannot be read: save it as JPEG, PNG or WebP."
# a file that somebody may take for a picture of the set -> what is said of it
NAMED = {
    "a.svg": f"a.svg {UNREAD}",
    "a.PSD": f"a.PSD {UNREAD}",
    "a.xcf": f"a.xcf {UNREAD}",
    "a.exr": f"a.exr {UNREAD}",
    "a.ico": f"a.ico {UNREAD}",
    "a.CR3": "a.CR3 is a camera's raw file, in a format that cannot be read: develop it to JPEG, PNG or TIFF.",
    "a.orf": "a.orf is a camera's raw file, in a format that cannot be read: develop it to JPEG, PNG or TIFF.",
    "a.mp4": "a.mp4 is a video, in a format that cannot be read: save frames of it as JPEG, PNG or WebP.",
    "a.jpg_large": "a.jpg_large holds a PNG picture, which its name does not say: let it end with .png.",
    "photo": "photo holds a PNG picture, which its name does not say: let it end with .png.",
}


@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_used_is_named(name, tmp_path):
    write(tmp_path, "z.png", "z.txt=Z")
    (tmp_path / name).write_bytes((tmp_path / "z.png").read_bytes())
    pictures = opened(tmp_path)
    assert pictures.names == ["z.png"] and [tuple(fault) for fault in pictures.faults] == [(name, NAMED[name])]
    (tmp_path / "z.png").unlink()
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert str(caught.value) == f"None of the pictures in {tmp_path} can be used; the first: {NAMED[name]}"


def test_what_is_no_picture_is_one_note(tmp_path):
    write(
        tmp_path, "z.png", "z.txt=Z", "z.psd", "z.npz", "README.md", "LICENSE", "x/data.json", "Thumbs.db", "mine.toml"
    )
    pictures = opened(tmp_path)
    assert pictures.faults == []
    assert pictures.notes == ["7 other files not read (LICENSE, README.md, Thumbs.db, ...)."]


# Repeats.


def test_repeats_survive_strays(tmp_path):
    write(tmp_path, *(f"10_sks dog/{n}.png" for n in range(4)), "2_cat/a.png", "cover.png", "more/b.png", "0_off/c.png")
    pictures = opened(tmp_path, trigger_word="sks")
    often = dict(zip(pictures.names, pictures.repeats.tolist(), strict=True))
    assert {name: count for name, count in often.items() if count != 10} == {
        "2_cat/a.png": 2, "cover.png": 1, "more/b.png": 1, "0_off/c.png": 1,
    }  # fmt: skip
    assert (
        "An epoch sees the pictures of '10_sks dog' 10 times, '2_cat' 2 times; --no_folder_repeats sees each once."
        in (pictures.notes)
    )
    assert (
        "3 of 8 pictures lie in no folder with a number of repeats, and are seen once: cover.png, 0_off/, more/."
        in (pictures.notes)
    )
    assert dict(zip(pictures.names, pictures.written, strict=True))["10_sks dog/0.png"] == "sks dog"
    assert notes(pictures, "trigger_word_alone") == [
        "3 of 8 pictures have no caption but the trigger word 'sks': describe what is seen, unless that is meant."
    ]


def test_a_year_beside_repeats(tmp_path):
    write(tmp_path, "10_dog/a.png", "2024_holiday/b.png")
    pictures = opened(tmp_path, trigger_word="sks")
    assert pictures.repeats.tolist() == [10, 1]
    assert "Folder 2024_holiday is not read as 2024 repeats, which is more than 500." in pictures.notes


def test_a_number_in_one_name_of_many_is_no_repeat(tmp_path):
    write(tmp_path, "10_downing_street/a.png", "beach/b.png", "wood/c.png", "town/d.png")
    pictures = opened(tmp_path, trigger_word="sks")
    assert pictures.repeats is None and any("10_downing_street: not read as repeats" in note for note in pictures.notes)


def test_kohyas_project_keeps_its_repeats(tmp_path):
    write(tmp_path, "img/10_sks dog/a.png", "img/x.png", "reg/1_dog/r.png", "log/l", "model/m.safetensors", "notes.md")
    pictures = opened(tmp_path, trigger_word="sks")
    assert dict(zip(pictures.names, pictures.repeats.tolist(), strict=True)) == {"10_sks dog/a.png": 10, "x.png": 1}


# The sentence about sizes.


def test_the_picture_that_loses_most_is_named():
    sizes = [(1000, 1000)] * 19 + [(1200, 1500)]
    names = [f"{number}.png" for number in range(19)] + ["odd.png"]
    assert plan(sizes, 1024).counts() == [20]
    assert "1.0 % of their area is cropped away, of odd.png 20.0 %, 19 are enlarged" in plan(sizes, 1024).summary(
        names=names
    )
    assert "of one picture 20.0 %" in plan(sizes, 1024).summary()
    assert "1.5 % of their area is cropped away." in plan([(1100, 1083)] * 5, 1024).summary(names=list("abcde"))


def test_opened_as_the_library_lists_it():
    """The embedded sets, which everybody trains on first, raise no remark."""
    for name in ("embedded:blueprint", "embedded:emblem"):
        assert open_dataset(TrainConfig(dataset_name=name)).notes == []
