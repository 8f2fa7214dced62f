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

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.system.errors import DataError

pytestmark = pytest.mark.slow


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


def dangling(root, name):
    picture(root / "p0.png")
    os.symlink("nowhere", root / name)


def broken_metadata_parquet(root):
    picture(root / "a.png")
    (root / "metadata.parquet").write_bytes(b"PAR1 and then nothing")


def damaged_caption(root):
    table(root)
    (file,) = root.glob("*.arrow")
    file.write_bytes(file.read_bytes().replace(b"a card", b"a \xffard"))


def not_utf8(root):
    picture(root / "a.png")
    os.rename(root / "a.png", os.fsencode(root) + b"/p\xff.png")
    text_file(root, "a.txt")


def loop(root, name):
    picture(root / "p0.png")
    os.symlink(name, root / name)


def csv_lines(root, *lines):
    picture(root / "a.png")
    metadata(root, "file_name,text", *lines, name="metadata.csv")


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
    "a name with NUL": (
        lambda root: named(root, "a\0.png"),
        r"metadata.jsonl names 'a\x00.png', but there is no such file in ROOT: correct the name.",
    ),
    "a name with half a character": (
        lambda root: named(root, "\ud83d.png"),
        r"metadata.jsonl names '\ud83d.png', but there is no such file in ROOT: correct the name.",
    ),
    "a name of 304 characters": (
        lambda root: named(root, "a" * 300 + ".png"),
        f"metadata.jsonl names '{'a' * 56}..., but there is no such file in ROOT: correct the name.",
    ),
    "half a character in the only caption": (
        lambda root: named(root, "a.png", text="\ud83d"),
        "None of the pictures of ROOT can be used; the first: a.png has a caption with half a character in it "
        "(a lone surrogate): correct it.",
    ),
    "a cell that is too long": (
        lambda root: csv_lines(root, f"a.png,{'a' * 131_073}"),
        "the row that starts at line 2 of metadata.csv is not CSV (field larger than field limit (131072)): close each "
        "quote and double those inside.",
    ),
    "an unclosed quote": (
        lambda root: csv_lines(root, "b.png,a card", 'a.png,"a card', "c.png,a card"),
        "the row that starts at line 3 of metadata.csv is not CSV (unexpected end of data): close each quote and "
        "double those inside.",
    ),
    "an unclosed quote before a quoted row": (
        lambda root: csv_lines(root, 'a.png,"a card', 'b.png,"a card"'),
        "the row that starts at line 2 of metadata.csv is not CSV (',' expected after '\"'): close each quote and "
        "double those inside.",
    ),
    "nested too deeply": (
        lambda root: [picture(root / "a.png"), metadata(root, "[" * 100_000)],
        "line 1 of metadata.jsonl is not JSON (nested too deeply): correct it.",
    ),
    "metadata.parquet, broken": (
        broken_metadata_parquet,
        "metadata.parquet cannot be read (Could not open Parquet input source 'ROOT/metadata.parquet': Parquet "
        "magic bytes not found in footer. Either the file is corrupted or this is not a parquet file): save it again.",
    ),
    "metadata that is a link to nowhere": (
        lambda root: dangling(root, "metadata.jsonl"),
        "metadata.jsonl cannot be read (No such file or directory): correct or remove it.",
    ),
    "metadata that is a link to itself": (
        lambda root: loop(root, "metadata.jsonl"),
        "metadata.jsonl cannot be read (Too many levels of symbolic links): correct or remove it.",
    ),
    "a caption file that is a link to nowhere": (
        lambda root: dangling(root, "p0.txt"),
        "None of the pictures of ROOT can be used; the first: p0.png: its caption file p0.txt cannot be read (No such "
        "file or directory): correct or remove it.",
    ),
    "a folder that is a link to itself": (
        lambda root: os.symlink(root, root),
        "There is no folder ROOT: check --train_data_dir.",
    ),
    "a picture whose name is not UTF-8": (
        not_utf8,
        r"None of the pictures in ROOT can be used; the first: p\xff.png has a name that is not UTF-8: rename it.",
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
    "saved, a damaged caption": (
        damaged_caption,
        "column 'text' of ROOT cannot be read ('utf-8' codec can't decode byte 0xff in position 2: invalid start "
        "byte): save it again.",
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


# what is wrong with one of two pictures -> (how it is made, the Fault's sentence, at once or in check)
ONE = {
    "half a character": (
        lambda root: named(root, "a.png", text="\ud83d"),
        "a.png has a caption with half a character in it (a lone surrogate): correct it.",
    ),
    "a caption file to nowhere": (
        lambda root: dangling(root, "p0.txt"),
        "p0.png: its caption file p0.txt cannot be read (No such file or directory): correct or remove it.",
    ),
    "a name that is not UTF-8": (not_utf8, r"p\xff.png has a name that is not UTF-8: rename it."),
    "a picture that is a link to itself": (
        lambda root: [root.mkdir(), os.symlink("p0.png", root / "p0.png"), text_file(root, "p0.txt")],
        "p0.png cannot be opened (Too many levels of symbolic links): check the file.",
    ),
}


@pytest.mark.parametrize("case", ONE)
def test_one_picture_is_left_out(case, tmp_path):
    make, sentence = ONE[case]
    root = tmp_path / "pictures"
    make(root)
    picture(root / "good.png")
    text_file(root, "good.txt")
    if (root / "metadata.jsonl").exists():
        with open(root / "metadata.jsonl", "a", encoding="utf-8") as file:
            file.write('\n{"file_name": "good.png", "text": "a card"}')
    pictures = open_dataset(TrainConfig(train_data_dir=str(root)))
    faults = pictures.check()
    assert [fault.sentence for fault in faults] == [sentence]
    assert str(faults).encode().decode() == f"1 picture left out: {sentence}"
    assert pictures.without(faults.names).names == ["good.png"]


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
time.sleep = lambda seconds: print("slept", file=sys.stderr)  # as the client does before it asks again
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import DataError, open_dataset
for name in sys.argv[1:]:
    try:
        print("opened", open_dataset(TrainConfig(dataset_name=name)))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def fetch(environment, *names):
    command = [sys.executable, "-c", FETCH, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "slept" not in done.stderr and "Retrying" not in done.stderr, done.stderr
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
