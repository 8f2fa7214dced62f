"""Wrong files and folders, each with the exact sentence that the user gets before any model is loaded."""

import io
import json
import os
import subprocess
import sys

import datasets
import pytest
from hub import Hub
from PIL import Image

from sdxl_nb.config import TrainConfig
from sdxl_nb.data import DataError, open_dataset


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, "PNG")


def metadata(root, *rows, name="metadata.jsonl"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")


def named(root, file_name, **columns):
    picture(root / "a.png")
    metadata(root, {"file_name": file_name} | (columns or {"text": "a card"}))


def linked(root):
    picture(root.parent / "outside.png")
    root.mkdir()
    os.symlink(root.parent / "outside.png", root / "link.png")
    (root / "link.txt").write_text("a card")


def linked_folder(root):
    picture(root.parent / "outside" / "b.png")
    picture(root / "a.png")
    os.symlink(root.parent / "outside", root / "more")


def both_metadata(root):
    named(root, "a.png")
    metadata(root, "file_name,text", "a.png,a card", name="metadata.csv")


def one_picture_table(**columns):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    row = {"image": {"bytes": file.getvalue(), "path": None}, "text": "a card"} | columns
    return datasets.Dataset.from_list([row])


def table(root, **columns):
    one_picture_table(**columns).save_to_disk(root)


def other_splits(root):
    datasets.DatasetDict({"test": one_picture_table(), "dev": one_picture_table()}).save_to_disk(root)


def only_test_parquet(root):
    one_picture_table().to_parquet(root / "test-00000.parquet")


def broken_parquet(root):
    root.mkdir()
    (root / "train.parquet").write_bytes(b"PAR1 and then nothing")


def text_file(root, name, content=b"hello"):
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


SUFFIXES = ".jpg, .jpeg, .jfif, .png, .webp, .gif, .bmp, .tif, .tiff, .avif"
# what is wrong -> (how it is made in ROOT, the sentence)
FOLDERS = {
    "missing": (lambda root: None, "There is no folder ROOT: check --train_data_dir."),
    "empty": (lambda root: root.mkdir(), "The folder ROOT is empty: check --train_data_dir."),
    "a file": (
        lambda root: root.write_text("x"),
        "ROOT is a file, not a folder: give the folder that holds it with --train_data_dir.",
    ),
    "no pictures": (
        lambda root: text_file(root, "notes.txt"),
        f"ROOT holds no pictures ({SUFFIXES}): check --train_data_dir.",
    ),
    "no captions": (
        lambda root: picture(root / "a.png"),
        "ROOT has no captions at all (no metadata.jsonl, no metadata.csv and no .txt beside the pictures): add them, "
        "or give a --trigger_word to train on alone.",
    ),
    "null captions": (
        lambda root: named(root, "a.png", text=None),
        "ROOT has no captions at all: add them, or give a --trigger_word to train on alone.",
    ),
    "no file_name": (
        lambda root: [picture(root / "a.png"), metadata(root, {"name": "a.png", "text": "a"})],
        "metadata.jsonl has no column 'file_name' (its columns: name, text): add it.",
    ),
    "no caption column": (
        lambda root: named(root, "a.png", caption="a", style="b"),
        "metadata.jsonl has no column 'text' (its columns: file_name, caption, style): name the right one with "
        "--caption_column.",
    ),
    "a row without file_name": (
        lambda root: named(root, None),
        "row 1 of metadata.jsonl has no file_name: add it or remove the row.",
    ),
    "a name without a file": (
        lambda root: named(root, "b.png"),
        "metadata.jsonl names 'b.png', but there is no such file in ROOT: correct the name.",
    ),
    "a name that climbs out": (
        lambda root: [picture(root.parent / "b.png"), named(root, "../b.png")],
        "metadata.jsonl names '../b.png', which leads out of ROOT: copy the file into the folder.",
    ),
    "an absolute name": (
        lambda root: named(root, "/etc/hosts"),
        "metadata.jsonl names '/etc/hosts', which leads out of ROOT: copy the file into the folder.",
    ),
    "a link out": (linked, "the folder names 'link.png', which leads out of ROOT: copy the file into the folder."),
    "a linked folder": (
        linked_folder,
        "the folder names 'more', which leads out of ROOT: copy the file into the folder.",
    ),
    "the same name twice": (
        lambda root: [picture(root / "a.png"), metadata(root, *[{"file_name": "a.png", "text": "a"}] * 2)],
        "metadata.jsonl names 'a.png' more than once: keep one line per picture.",
    ),
    "two metadata files": (both_metadata, "ROOT has both metadata.jsonl and metadata.csv: keep the one that is right."),
    "not JSON": (
        lambda root: [picture(root / "a.png"), metadata(root, {"file_name": "a.png", "text": "a"}, "{file")],
        "line 2 of metadata.jsonl is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 "
        "(char 1)): correct it.",
    ),
    "not an object": (
        lambda root: [picture(root / "a.png"), metadata(root, "[1]")],
        'line 1 of metadata.jsonl is not an object like {"file_name": ..., "text": ...}.',
    ),
    "empty metadata": (
        lambda root: [picture(root / "a.png"), metadata(root)],
        "ROOT/metadata.jsonl is empty: it needs one line per picture with file_name and text.",
    ),
    "metadata in another encoding": (
        lambda root: [picture(root / "a.png"), text_file(root, "metadata.csv", "é,ü".encode("latin-1"))],
        "metadata.csv is not UTF-8 text: save it as UTF-8.",
    ),
    "saved without train": (
        other_splits,
        "ROOT has no split 'train' (it has: test, dev): point to one of its folders.",
    ),
    "saved, broken": (
        lambda root: text_file(root, "state.json", b"{}"),
        "ROOT cannot be read as a saved data set (Directory ROOT is neither a `Dataset` directory nor a "
        "`DatasetDict` directory): save it again.",
    ),
    "saved, numbers for pictures": (
        lambda root: table(root, image=3),
        "column 'image' of ROOT holds int64, not pictures: name another, --image_column.",
    ),
    "saved, numbers for captions": (
        lambda root: table(root, text=3),
        "column 'text' of ROOT holds int64, not text: name another with --caption_column.",
    ),
    "parquet of another split": (
        only_test_parquet,
        "ROOT has no split 'train' (it has: test-00000.parquet): add its parquet files.",
    ),
    "parquet, broken": (
        broken_parquet,
        "The parquet files in ROOT cannot be read (Parquet magic bytes not found in footer. Either the file is "
        "corrupted or this is not a parquet file): save them again.",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(case, tmp_path):
    make, sentence = FOLDERS[case]
    root = tmp_path / "pictures"
    make(root)
    with pytest.raises(DataError) as caught:
        open_dataset(TrainConfig(train_data_dir=str(root), cache_dir=str(tmp_path / "cache")))
    assert str(caught.value) == sentence.replace("ROOT", str(root))


def test_no_usable_picture(tmp_path):
    text_file(tmp_path, "a.png", b"")
    text_file(tmp_path, "a.txt")
    pictures = open_dataset(TrainConfig(train_data_dir=str(tmp_path)))
    with pytest.raises(DataError) as caught:
        pictures.check()
    first = "a.png is empty (0 bytes): replace or remove it."
    assert str(caught.value) == f"None of the 1 pictures of {tmp_path} can be used; the first: {first}"


FETCH = """
import json, sys, time
time.sleep = lambda seconds: None  # the client's retries
from sdxl_nb.config import TrainConfig
from sdxl_nb.data import DataError, open_dataset
for name in sys.argv[1:]:
    try:
        print("opened", open_dataset(TrainConfig(dataset_name=name)))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def fetch(environment, *names):
    command = [sys.executable, "-c", FETCH, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub_names(tmp_path):
    one_picture_table().rename_column("text", "says").to_parquet(tmp_path / "columns" / "train.parquet")
    one_picture_table().to_parquet(tmp_path / "splits" / "data" / "test-00000-of-00001.parquet")
    text_file(tmp_path / "script", "script.py", b"raise SystemExit('this data set ran its code')")
    sources = {f"o/{name}": tmp_path / name for name in ("columns", "splits", "script")}
    with Hub(datasets=sources) as hub:
        names = ("o/none", "o/columns", "o/splits", "o/script", "not a name")
        sentences = fetch(hub.environment(tmp_path / "home"), *names)
    assert sentences == [
        f"There is no data set o/none at {hub.url}: check --dataset_name, or set HF_TOKEN if it is private.",
        "the data set o/columns has no column 'text' (its columns: image, says): name the right one with "
        "--caption_column.",
        "The data set o/splits has no split 'train' (Unknown split \"train\". Should be one of ['test']).",
        "The data set o/script needs code of its own to load, which is never run: use a version saved as parquet.",
        "'not a name' is not the name of a data set on the hub (owner/name): check --dataset_name.",
    ]


def test_hub_that_cannot_be_reached(tmp_path):
    with Hub() as hub:
        environment = hub.environment(tmp_path / "home")
    assert fetch(environment, "o/cards") == [
        f"The data set o/cards cannot be fetched, because the hub at {hub.url} cannot be reached: check the network or "
        "HF_ENDPOINT, set HF_HUB_OFFLINE=1 to use the cache, or give a folder with --train_data_dir."
    ]
    assert fetch(environment | {"HF_HUB_OFFLINE": "1"}, "o/cards") == [
        "The data set o/cards is not in the cache, and HF_HUB_OFFLINE=1 forbids to fetch it: unset it once."
    ]
