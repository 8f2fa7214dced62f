"""Masks of pictures in archives, and masks that metadata files and tables name."""

import csv
import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_archives import MADE
from test_dataset import png
from test_masks import encoded, half

from sdxl_nb.audit.inspection import audit_dataset
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.masks import GIVEN, NONE, Masks
from sdxl_nb.system.errors import DataError

MASK = encoded(half((12, 8)))
RED = png("red")


def archive(path, files):
    """A zip or tar of these files; texts are captions."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for name, data in files.items():
                made.writestr(name, data)
        return path
    with tarfile.open(path, "w") as made:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            about = tarfile.TarInfo(name)
            about.size = len(data)
            made.addfile(about, io.BytesIO(data))
    return path


def unpacked(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def opened(place, masked=True, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(place), masked_loss=masked, **settings))


def kinds(pictures):
    """Where the mask of each picture comes from, after each was seen to be white on the left."""
    masks = Masks(pictures)
    for index in masks.indices():
        assert np.asarray(masks.read(index))[0, [0, 11]].tolist() == [255, 0]
    masks.refuse_unusable()
    return dict(zip(pictures.names, masks.kinds.tolist(), strict=True))


CARDS = {"a.png": RED, "a.txt": "a red card", "b.png": RED, "b.txt": "a red card", "c.png": RED, "c.txt": "a red card"}
BESIDE = {
    "labels": {"a-masklabel.png": MASK, "b-masklabel.png": MASK},
    "a folder": {"masks/a.png": MASK, "masks/b.png": MASK},
    "a folder, names with suffix": {"mask/a.png.png": MASK, "mask/b.png.png": MASK},
    "beside": {"a_mask.png": MASK, "b-mask.png": MASK},
}


@pytest.mark.parametrize("word", [None, "zwx"])
@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("around", ["", "set/"])
def test_masks_in_an_archive_belong_to_their_pictures(tmp_path, case, suffix, around, word):
    files = {around + name: data for name, data in {**CARDS, **BESIDE[case]}.items()}
    pictures = opened(archive(tmp_path / f"set{suffix}", files), trigger_word=word)
    assert kinds(pictures) == {"a.png": GIVEN, "b.png": GIVEN, "c.png": NONE} and not pictures.faults
    assert str(Masks(pictures)) == "2 of 3 pictures have a mask; the others are trained wholly."
    (note,) = pictures.notes
    assert note.startswith("2 pictures in the archive not trained on: masks 2 (")


def test_masks_of_webdataset_have_their_pictures_key(tmp_path):
    pictures = opened(shutil.copytree(MADE / "webdataset", tmp_path / "shards"))
    assert len(pictures) == 4 and Masks(pictures).kinds.tolist() == [GIVEN] * 4
    assert pictures.mask_bytes(0) == png("white")


def test_an_archive_of_masks_beside_one_of_pictures(tmp_path):
    archive(tmp_path / "images.zip", CARDS)
    archive(tmp_path / "masks.zip", {"a.png": MASK, "c.png": MASK})
    found = kinds(opened(tmp_path, trigger_word="zwx"))
    assert found == {"images.zip/a.png": GIVEN, "images.zip/b.png": NONE, "images.zip/c.png": GIVEN}


def test_other_strangers_in_an_archive_are_never_trained_on(tmp_path):
    """As in a folder: a trigger word makes no training pictures of them."""
    others = "@eaDir/a.png thumbs/a.png validation/step-5/00-1.png canny/a.png a_thumb.png samples/x.png"
    files = {**CARDS, **dict.fromkeys(others.split(), RED)}
    pictures = opened(archive(tmp_path / "set.zip", files), masked=False, trigger_word="zwx")
    assert list(pictures.names) == ["a.png", "b.png", "c.png"]
    assert pictures.notes[0].startswith("6 pictures in the archive not trained on: ")
    alone = archive(tmp_path / "alone.zip", {"masks/a.png": RED, "masks/b_mask.png": RED})
    assert len(opened(alone, masked=False, trigger_word="zwx")) == 2  # nothing else would be left
    own = {**CARDS, "samples/x.png": RED, "samples/x.txt": "a red card"}
    assert len(opened(archive(tmp_path / "own.zip", own), masked=False)) == 4  # a caption of its own


ROWS = [
    {"file_name": "a.png", "text": "a red card", "mask_file_name": "where/one.png"},
    {"file_name": "b.png", "text": "a red card", "mask_file_name": None},
]
NAMED = {"a.png": RED, "b.png": RED, "where/one.png": MASK}


def table(kind, rows=ROWS):
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("place", ["folder", "below", ".zip", ".tar"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_column_of_metadata_names_masks(tmp_path, place, kind, masked):
    below = "data/" if place == "below" else ""
    files = {below + name: data for name, data in {**NAMED, f"metadata.{kind}": table(kind)}.items()}
    made = archive(tmp_path / f"set{place}", files) if "." in place else unpacked(tmp_path, files)
    pictures = opened(made, masked=masked)
    assert [name.rpartition("/")[2] for name in pictures.names] == ["a.png", "b.png"] and not pictures.faults
    if masked:
        assert list(kinds(pictures).values()) == [GIVEN, NONE]


def test_the_column_may_be_named(tmp_path):
    rows = [{"file_name": "a.png", "text": "a red card", "where_file_name": "where/one.png"}]
    unpacked(tmp_path, {**NAMED, "metadata.jsonl": table("jsonl", rows)})
    (tmp_path / "b.png").unlink()
    for column in ("where", "where_file_name"):
        assert kinds(opened(tmp_path, mask_column=column)) == {"a.png": GIVEN}
    with pytest.raises(DataError, match=r"^metadata.jsonl has no column 'elsewhere' .*: name the right one"):
        opened(tmp_path, mask_column="elsewhere")
    with pytest.raises(DataError, match="None of the 1 pictures has a mask"):
        Masks(opened(tmp_path)).refuse_unusable()


def test_a_table_beside_pictures_names_masks(tmp_path):
    unpacked(tmp_path, {**NAMED, "list.csv": "image,caption,mask\na.png,a red card,where/one.png\nb.png,a red card,\n"})
    assert kinds(opened(tmp_path)) == {"a.png": GIVEN, "b.png": NONE}
    assert opened(tmp_path, masked=False).listing.masks is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("../secret.png", r"^metadata.jsonl names '../secret.png', which leads out of .*: copy the file"),
        ("link.png", r"^metadata.jsonl names 'link.png', which leads out of "),
        ("gone.png", r"^metadata.jsonl names 'gone.png', but there is no such file in .*: correct the name"),
        (5, r"^row 1 of metadata.jsonl names no file in column 'mask_file_name': correct or remove it"),
    ],
)
def test_masks_are_confined_to_the_folder(tmp_path, name, sentence):
    folder = unpacked(tmp_path / "set", {"a.png": RED})
    (tmp_path / "secret.png").write_bytes(MASK)
    row = {"file_name": "a.png", "text": "a red card", "mask_file_name": name}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    if name == "link.png":
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        sentence = r"^the folder names 'link.png', which leads out of "
    with pytest.raises(DataError, match=sentence):
        opened(folder)
    if name != "link.png":
        assert len(opened(folder, masked=False)) == 1  # nobody asks for it


def test_masks_are_confined_to_the_archive(tmp_path):
    rows = [{**ROWS[0], "mask_file_name": "../secret.png"}]
    made = archive(tmp_path / "set.zip", {"a.png": RED, "metadata.jsonl": table("jsonl", rows)})
    with pytest.raises(DataError, match=r"^metadata.jsonl names '../secret.png', but there is no such mask"):
        opened(made)


def test_a_mask_of_another_shape_in_an_archive_is_refused_and_audited(tmp_path):
    wrong = archive(tmp_path / "set.zip", {**CARDS, "masks/a.png": encoded(half((9, 9)))})
    with pytest.raises(DataError, match=r"^the mask of a.png is 9x9, another shape than its picture a.png of 12x8"):
        Masks(opened(wrong)).refuse_unusable()
    report = audit_dataset(TrainConfig.preset("tiny", train_data_dir=str(wrong), masked_loss=True), progress=False)
    assert report.files("unusable_mask") == {"a.png"}


def test_masks_follow_a_selection_and_other_pictures(tmp_path):
    packed = opened(archive(tmp_path / "set.zip", {**CARDS, **BESIDE["labels"]}))
    plain = opened(unpacked(tmp_path / "plain", {**NAMED, "metadata.jsonl": table("jsonl")}))
    both = packed.select([2, 0]).with_class(plain)
    assert [both.mask_bytes(index) is not None for index in range(4)] == [False, True, True, False]
    assert Image.open(io.BytesIO(both.mask_bytes(1))).size == (12, 8)
