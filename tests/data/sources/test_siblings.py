"""More of each kind than the cases that were mended first: what lies in a folder is read, or named with its reason."""

import base64
import json
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_choice import MADE, ROWS, noted
from test_dataset import png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.words.syntax import prompt_syntax
from sdxl_nb.system.errors import DataError


@pytest.fixture
def opened(tmp_path):
    return lambda place, **settings: open_dataset(
        TrainConfig(train_data_dir=str(place), cache_dir=str(tmp_path / "cache"), **settings)
    )


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def fill(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


ONE = {"file_name": "a.png", "text": "a red card"}
TABLES = {
    "Metadata.jsonl": json.dumps(ONE),
    "METADATA.CSV": "file_name,text\na.png,a red card\n",
    "metadata.tsv": "file_name\ttext\na.png\ta red card\n",
    "metadata.ndjson": json.dumps(ONE),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_metadata_file_however_it_is_spelled(name, root, opened):
    fill(root, {"a.png": png("red"), name: TABLES[name]})
    pictures = opened(root)
    assert pictures.captions == ["a red card"] and not any("not read" in note for note in pictures.notes)


APART, WHOLE = "o\u0308", "\u00f6"  # as macOS keeps it, and as others do


@pytest.mark.parametrize(("picture", "other"), [(APART, WHOLE), (WHOLE, APART)])
@pytest.mark.parametrize("way", ["text", "text of the whole name", "capitals", "metadata", "zip"])
def test_marks_above_letters_apart_or_not(way, picture, other, root, opened):
    caption = {"text": f"{other}.txt", "capitals": f"{other.upper()}.TXT"}.get(way, f"{other}.png.txt")
    files = {f"{picture}.png": png("red"), caption: "a red card"}
    if way == "metadata":
        files = {f"{picture}.png": png("red"), "metadata.csv": f"file_name,text\n{other}.png,a red card\n"}
    if way == "zip":
        with zipfile.ZipFile(root / "all.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        fill(root, files)
    pictures = opened(root)
    assert (pictures.captions, pictures.names, pictures.notes) == (["a red card"], [f"{picture}.png"], [])


def test_files_of_other_splits_are_named(root, opened):
    for name in ("data/train-0.parquet", "data/test-0.parquet"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(MADE / "datasets.parquet", root / name)
    left = "data/test-0.parquet is not read: the split train is."
    pictures = opened(root)
    assert pictures.captions == ROWS and noted(pictures) == [left]
    fill(root, {"logo.png": png("white")})
    told = "data/train-0.parquet is read; 1 picture beside it, as logo.png, is not."
    assert noted(opened(root, trigger_word="zwx")) == [left, told]


def test_archives_of_other_splits_are_named(root, opened):
    for name in ("train.zip", "val.zip"):
        shutil.copy(MADE / "around.zip", root / name)
    assert noted(opened(root)) == ["val.zip is not read: the split train is."]


def test_a_saved_data_set_in_a_folder_is_not_hidden_by_a_picture(root, opened):
    from datasets import Dataset

    pictures = Dataset.from_parquet(str(MADE / "datasets.parquet"), cache_dir=str(root.parent / "cache"))
    pictures.save_to_disk(str(root / "saved"))
    fill(root, {"logo.png": png("white")})
    found = opened(root, trigger_word="card")
    assert found.captions == ROWS
    assert noted(found) == ["saved/ is read; 1 picture beside it, as logo.png, is not."]


@pytest.mark.parametrize("logo", [True, False])
def test_base64_in_a_table_of_text_is_called_that(logo, root, opened):
    row = {"image": base64.b64encode(png("red") * 9).decode(), "text": "a red card"}
    fill(root, {"train.jsonl": json.dumps(row), **({"logo.png": png("white")} if logo else {})})
    with pytest.raises(DataError) as caught:
        opened(root, trigger_word="zwx")
    assert str(caught.value) == (
        "train.jsonl holds pictures as base64 text (column 'image'), which is read from parquet alone: save the table "
        "as parquet, or the pictures as files."
    )


def test_captions_in_an_archive_of_their_own_are_named(root, opened):
    for name, files in {"images.zip": {"a.png": png("red")}, "captions.zip": {"a.txt": "a red card"}}.items():
        with zipfile.ZipFile(root / name, "w") as archive:
            for inside, content in files.items():
                archive.writestr(inside, content)
    told = "1 caption file without a picture of that name (captions.zip/a.txt)"
    assert opened(root, trigger_word="zwx").notes[0] == f"{told}."
    with pytest.raises(DataError, match=r"has no captions at all \(no metadata.*; 1 caption file without a picture"):
        opened(root)


def test_companions_of_other_programs_need_their_picture(root, opened):
    """What SAM, controlnet_aux and others write beside a picture; nothing of the name is left out alone."""
    pair = ("a_depth.png", "a-canny.png", "a_seg.png", "a_masks.png", "controlnet/a.png", "sam_masks/a.png")
    own = ("wolf_depth.png", "10_masks of venice/b.png", "party masks/c.png")
    fill(root, {"a.png": png("red"), "a.txt": "a red card", **dict.fromkeys((*pair, *own), png("lime"))})
    pictures = opened(root, trigger_word="zwx")
    assert set(pictures.names) == {"a.png", *own}
    assert pictures.notes[0].startswith("6 pictures in the folder not trained on: ")


@pytest.mark.parametrize("text", ["a car, Negative prompt: blurry", "a dog\nSteps: 20, Sampler: Euler a, Seed: 1"])
def test_parameters_that_a1111_writes_beside_pictures_are_a_finding(text):
    assert prompt_syntax(text)
    assert not prompt_syntax("steps: 20 of them, a sampler of yarn, a negative prompt on a screen")


WRONG = [({"en": "a card"}, "an object"), (5, "a number"), (False, "true or false"), ([["a card"]], "a list")]


@pytest.mark.parametrize(("said", "kind"), WRONG)
@pytest.mark.parametrize("table", ["metadata.jsonl", "captions.jsonl", "set.zip"])
def test_a_caption_that_is_no_text_is_not_taken_for_none(table, said, kind, root, opened):
    """With a trigger word such a picture would be trained on it alone."""
    lines = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in (("a.png", "x"), ("b.png", said)))
    files = {"a.png": png("red"), "b.png": png("blue")}
    if table == "set.zip":
        with zipfile.ZipFile(root / table, "w") as archive:
            for name, content in {**files, "metadata.jsonl": lines}.items():
                archive.writestr(name, content)
    else:
        fill(root, {**files, table: lines})
    pictures = opened(root, trigger_word="sks")
    if table == "captions.jsonl":  # one of several ways to caption a folder: it is passed over, with its reason
        assert any(f"row 2 of {table} has a caption that is no text but {kind}" in note for note in pictures.notes)
        return
    assert pictures.captions == ["sks, x"]
    assert [fault.sentence for fault in pictures.faults] == [
        f"b.png has a caption in metadata.jsonl that is no text but {kind}: write it as text."
    ]


def test_a_column_of_objects_is_no_column_of_captions(root, opened):
    pq.write_table(pa.table({"image": [png("red")], "text": [{"short": "x", "long": "y"}]}), root / "a.parquet")
    with pytest.raises(DataError, match=r"column 'text' of .* holds dict, not text: name another with --caption_"):
        opened(root, trigger_word="sks")
