"""Captions corrected and pictures added, in each kind of folder; whole or not at all."""

import io
import json

import pyarrow.parquet
import pytest
from PIL import Image

from sdxl_nb import TrainConfig, open_dataset
from sdxl_nb.data.editing import add_picture, csv_bytes, free_name, parquet_bytes, save_caption
from sdxl_nb.system.errors import DataError

ROWS = [{"file_name": "a.png", "text": "one", "mark": "7"}, {"file_name": "b.png", "text": "two, three", "mark": ""}]
TABLES = {
    "metadata.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "metadata.csv": csv_bytes(ROWS),
    "metadata.parquet": parquet_bytes(ROWS),
}


def png(colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    return tmp_path


def config(folder, **changes):
    return TrainConfig(train_data_dir=str(folder), **changes)


def captions(folder, **changes):
    pictures = open_dataset(config(folder, **changes))
    return dict(zip(pictures.names, pictures.captions, strict=True))


@pytest.mark.parametrize("table", TABLES)
def test_a_row_is_changed_and_a_row_is_added(folder, table):
    (folder / table).write_bytes(TABLES[table])
    assert save_caption(config(folder), "b.png", 'four,\n"five" <b>') == folder / table
    assert captions(folder) == {"a.png": "one", "b.png": 'four, "five" <b>'}
    assert add_picture(config(folder), "c.png", png("blue"), "new") == "c.png"
    assert captions(folder) == {"a.png": "one", "b.png": 'four, "five" <b>', "c.png": "new"}
    assert add_picture(config(folder), "d.png", png("green")) == "d.png"  # left out until it has one
    assert "d.png" not in captions(folder) and "d.png" in open_dataset(config(folder)).faults.names
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_other_columns_stay(folder):
    (folder / "metadata.parquet").write_bytes(TABLES["metadata.parquet"])
    save_caption(config(folder), "a.png", "new")
    assert pyarrow.parquet.read_table(folder / "metadata.parquet").to_pylist()[0] == ROWS[0] | {"text": "new"}


def test_text_beside_the_picture(folder):
    (folder / "a.caption").write_text("old")
    assert save_caption(config(folder), "a.png", " new\nline ") == folder / "a.caption"
    assert save_caption(config(folder), "b.png", "first") == folder / "b.txt"
    assert captions(folder) == {"a.png": "new line", "b.png": "first"}


def test_another_column_of_captions(folder):
    rows = [{"file_name": "a.png", "words": "x"}, {"file_name": "b.png", "words": "y"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_caption(config(folder, caption_column="words"), "a.png", "z")
    assert captions(folder, caption_column="words") == {"a.png": "z", "b.png": "y"}


def test_an_added_picture_gets_a_free_name_and_must_be_a_picture(folder):
    assert add_picture(config(folder), "..\\..\\a.PNG", png(), "again") == "a-2.PNG"
    assert (folder / "a-2.txt").read_text() == "again\n" and (folder / "a.png").read_bytes() == png()
    assert free_name(folder, "a.jpg") == "a-3.jpg"  # it would share a.txt
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match=r"torn\.png is not a picture that can be read"):
        add_picture(config(folder), "torn.png", b"nothing")
    with pytest.raises(DataError, match=r"page.html does not end like a picture"):
        add_picture(config(folder), "page.html", png())
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_caption_is_refused_where_it_would_teach_no_word(folder, empty):
    (folder / "a.txt").write_text("old")
    with pytest.raises(DataError, match=r"The empty caption of a\.png is not saved: training would learn the picture"):
        save_caption(config(folder), "a.png", empty)
    assert (folder / "a.txt").read_text() == "old"
    save_caption(config(folder, trigger_word="mirel"), "a.png", empty)
    assert (folder / "a.txt").read_text() == "\n"
    assert captions(folder, trigger_word="mirel")["a.png"] == "mirel"


@pytest.mark.parametrize("name", ["gone.png", "../a.png"])
def test_only_pictures_of_the_folder_are_captioned(folder, name):
    with pytest.raises(DataError, match=r"There is no picture gone.png in|leads out of"):
        save_caption(config(folder), name, "x")


@pytest.mark.parametrize("place", [{"dataset_name": "embedded:emblem"}, {"train_data_dir": "s3://bucket/prefix"}])
def test_what_is_not_in_a_local_folder_cannot_be_changed(place):
    with pytest.raises(DataError, match=r"are in no local folder and cannot be changed here: copy them\."):
        save_caption(TrainConfig(**place), "0.png", "x")
