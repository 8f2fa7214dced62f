"""Folders that hold several kinds of data at once: what the person meant, and what is said of the rest."""

import json
import shutil
import zipfile

import pytest
from test_archives import CARDS, MADE, said
from test_dataset import COLOURS, png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sources import choice
from sdxl_nb.system.errors import DataError

ROWS = [f"a {colour} card" for colour in COLOURS]


def noted(pictures):
    """The notes but for the one about files that are no pictures, such as README.md."""
    return [note for note in pictures.notes if getattr(note, "kind", "") != "other_files"]


@pytest.fixture
def opened(tmp_path):
    return lambda place, **settings: open_dataset(
        TrainConfig(train_data_dir=str(place), cache_dir=str(tmp_path / "cache"), **settings)
    )


@pytest.fixture
def clone(tmp_path):
    """What git or the hub's client make of a data set: its parquet files, a card and a thumbnail."""
    folder = tmp_path / "clone"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# cards")
    (folder / "thumbnail.png").write_bytes(png("white"))
    shutil.copy(MADE / "datasets.parquet", folder / "data" / "train-0.parquet")
    return folder


def test_a_thumbnail_does_not_hide_the_parquet(clone, opened):
    """Case 14: with a trigger word the thumbnail alone was trained on."""
    for settings in ({}, {"trigger_word": "zwx"}):
        pictures = opened(clone, **settings)
        assert [caption.removeprefix("zwx, ") for caption in pictures.captions] == ROWS and not pictures.check()
        assert noted(pictures) == ["data/train-0.parquet is read; 1 picture beside it, as thumbnail.png, is not."]


def test_hidden_copies_double_no_rows(clone, opened):
    for hidden in (".ipynb_checkpoints/train-0-checkpoint.parquet", "data/.cache/train-0.parquet", "._train.parquet"):
        (clone / hidden).parent.mkdir(exist_ok=True)
        shutil.copy(MADE / "datasets.parquet", clone / hidden)
    assert opened(clone).captions == ROWS
    (clone / "thumbnail.png").unlink()
    assert opened(clone).captions == ROWS


@pytest.mark.parametrize("case", ["a thumbnail", "a damaged parquet", "a zip"])
def test_pictures_that_hide_all_else_are_seen(case, clone, opened, monkeypatch, tmp_path):
    """The fault of case 14 put back: one picture in the folder, and nothing else is looked at."""
    monkeypatch.setattr(choice, "_best", lambda ways: ways["the pictures"]())
    with pytest.raises((AssertionError, DataError, IndexError, pytest.fail.Exception)):
        if case == "a thumbnail":
            test_a_thumbnail_does_not_hide_the_parquet(clone, lambda *a, **s: opened(*a, **s | {"trigger_word": "zwx"}))
        elif case == "a damaged parquet":
            test_a_damaged_parquet_is_not_hidden_by_a_thumbnail(clone, opened)
        else:
            test_a_zip_beside_a_thumbnail_and_beside_its_own_pictures(tmp_path, opened)


def test_hidden_copies_that_count_are_seen(clone, opened, monkeypatch):
    """And its other half: Jupyter's copies of the parquet files are read too."""

    def every(folder):
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*train-0*.parquet"))
        return choice.Found(parquet=names)

    monkeypatch.setattr(choice, "look", every)
    with pytest.raises(AssertionError):
        test_hidden_copies_double_no_rows(clone, opened)


def test_captioned_pictures_are_meant_not_a_strange_parquet(clone, opened):
    for number in range(5):
        (clone / f"{number}.png").write_bytes(png("red"))
        (clone / f"{number}.txt").write_text("a red card")
    pictures = opened(clone)
    assert pictures.captions == ["a red card"] * 5
    assert noted(pictures) == ["data/train-0.parquet (4 pictures) is not read, but the pictures."]
    for name in ("bytes.parquet", "names.csv"):  # of something else
        shutil.copy(MADE / "polars" / name, clone / "data")
    shutil.rmtree(clone / "data")
    (clone / "prices.csv").write_text("day,price\n1,2\n")
    assert noted(opened(clone)) == [
        "prices.csv is not read (prices.csv has no column 'image' (its columns: day, price): name the right one with "
        "--image_column)."
    ]


def test_a_damaged_parquet_is_not_hidden_by_a_thumbnail(clone, opened):
    (clone / "data" / "train-0.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="The parquet files in "):
        opened(clone, trigger_word="zwx")


def test_a_zip_beside_a_thumbnail_and_beside_its_own_pictures(tmp_path, opened):
    root = tmp_path / "set"
    root.mkdir()
    (root / "thumbnail.png").write_bytes(png("white"))
    shutil.copy(MADE / "around.zip", root / "cards.zip")
    pictures = opened(root, trigger_word="card")
    assert said(pictures) == CARDS
    assert noted(pictures) == ["cards.zip is read; 1 picture beside it, as thumbnail.png, is not."]
    zipfile.ZipFile(MADE / "around.zip").extractall(root)
    pictures = opened(root)
    assert pictures.names[0] == "cards/blue.png" and len(pictures) == 4
    assert noted(pictures) == ["cards.zip (4 pictures) is not read, but the pictures."]


def test_metadata_beside_says_what_is_meant(clone, opened):
    (clone / "metadata.jsonl").write_text(json.dumps({"file_name": "thumbnail.png", "text": "a white card"}))
    pictures = opened(clone)
    assert said(pictures) == {"thumbnail.png": "a white card"}
    assert noted(pictures) == ["data/train-0.parquet is not read: metadata.jsonl says what the pictures are."]


@pytest.mark.parametrize("name", ["names.csv", "names.jsonl", "names.parquet"])
def test_a_table_that_names_the_files_beside_it(name, tmp_path, opened):
    root = tmp_path / "set"
    root.mkdir()
    zipfile.ZipFile(MADE / "stored.zip").extractall(root)
    for text in root.glob("*.txt"):
        text.unlink()
    (root / "more.png").write_bytes(png("white"))
    shutil.copy(MADE / "polars" / name, root)
    pictures = opened(root)
    assert list(said(pictures).values()) == ROWS
    assert f"{name} is read; 1 picture beside it, as more.png, is not." in pictures.notes
    several = [["x"]] * 4 if name == "names.jsonl" else None
    assert (pictures.further and pictures.further.to_pylist()) == several


def test_a_table_that_names_a_file_outside(tmp_path, opened):
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").write_bytes(png("red"))
    (tmp_path / "secret.png").write_bytes(png("lime"))
    (root / "names.csv").write_text("image,text\n../secret.png,a lime card\n")
    pictures = opened(root, trigger_word="red")
    assert pictures.names == ["a.png"] and any("leads out of" in note for note in pictures.notes)


def test_a_folder_of_addresses_says_so(tmp_path, opened):
    root = tmp_path / "set"
    root.mkdir()
    (root / "laion.csv").write_text("URL,TEXT\nhttps://example.org/a.png,a card\n")
    sentence = (
        "laion.csv holds addresses of pictures (column 'URL'), not pictures, and nothing is fetched from addresses: "
        "download them first, for example with img2dataset, and give that folder with --train_data_dir."
    )
    for settings in ({}, {"trigger_word": "zwx"}):
        with pytest.raises(DataError) as caught:
            opened(root, **settings)
        assert str(caught.value) == sentence
        (root / "logo.png").write_bytes(png("red"))
