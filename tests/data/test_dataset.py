"""Captioned pictures from every source: folders, metadata, saved data sets, parquet, the hub, S3, the embedded sets."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import datasets
import matplotlib.figure
import numpy as np
import pytest
import sklearn.datasets
from hub import Hub
from moto.server import ThreadedMotoServer
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data import dataset
from sdxl_nb.data.captions import long_captions
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.decoding import PictureError
from sdxl_nb.data.words.trigger import with_trigger

pytestmark = pytest.mark.slow

COLOURS = ("red", "lime", "blue", "yellow")
NARUTO = "lambdalabs/naruto-blip-captions"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def png(colour, size=(12, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def write_pictures(folder, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        (folder / f"{colour}{suffix}").write_bytes(png(colour))


def write_metadata(folder, rows, kind="jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


ROWS = [{"file_name": f"{colour}.png", "text": f"a {colour} card, plain"} for colour in COLOURS]


def opened(folder, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(folder), **settings))


def assert_cards(pictures, captions=None):
    assert pictures.captions == (captions or [row["text"] for row in ROWS])
    assert len(pictures) == 4 and not pictures.check()
    for sample, colour in zip(pictures, COLOURS, strict=True):
        assert sample.picture.getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        assert (sample.picture.mode, sample.original_size) == ("RGB", (8, 12))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("inner", ["", "train"])
def test_imagefolder(tmp_path, kind, inner):
    write_pictures(tmp_path / inner)
    write_metadata(tmp_path / inner, ROWS, kind)
    (tmp_path / "test").mkdir()
    pictures = opened(tmp_path)
    assert_cards(pictures)
    assert pictures.names == [row["file_name"] for row in ROWS]


def test_metadata_parquet(tmp_path):
    write_pictures(tmp_path)
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "metadata.parquet")
    assert_cards(opened(tmp_path))


def test_another_caption_column(tmp_path):
    write_pictures(tmp_path)
    write_metadata(tmp_path, [{"file_name": row["file_name"], "says": row["text"]} for row in ROWS])
    assert_cards(opened(tmp_path, caption_column="says"))


def test_pictures_that_metadata_does_not_name_are_counted(tmp_path):
    write_pictures(tmp_path)
    write_metadata(tmp_path, [{**ROWS[0]}, {"file_name": "lime.png", "text": None}, ROWS[2]])
    (tmp_path / "camera.DNG").write_bytes(b"...")
    pictures = opened(tmp_path)
    assert pictures.captions == ["a red card, plain", "a blue card, plain"]
    assert [tuple(fault) for fault in pictures.faults] == [
        ("yellow.png", "yellow.png is not named in metadata.jsonl."),
        (
            "camera.DNG",
            "camera.DNG is a camera's raw file, in a format that cannot be read: develop it to JPEG, PNG or TIFF.",
        ),
        ("lime.png", "lime.png has no caption: add one or remove the picture."),
    ]
    assert repr(pictures) == f"CaptionedPictures: 2 pictures from {tmp_path}, 3 left out"


@pytest.mark.parametrize("suffix", [".txt", ".caption"])
def test_caption_files_beside_pictures(tmp_path, suffix):
    for colour in COLOURS:
        folder = tmp_path / ("deeper" if colour in ("red", "lime") else ".") / "cards"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{colour}.png").write_bytes(png(colour))
        (folder / f"{colour}{suffix}").write_text(f"\ufeff a {colour}\tcard \r\n", "utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"")
    pictures = opened(tmp_path)
    assert pictures.names == ["cards/blue.png", "cards/yellow.png", "deeper/cards/lime.png", "deeper/cards/red.png"]
    assert pictures.captions == ["a blue card", "a yellow card", "a lime card", "a red card"]


def test_trigger_word_leads_every_caption_and_replaces_missing_ones(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "blue.txt").write_text("a blue card")
    (tmp_path / "red.txt").write_text("a red zwx card")
    pictures = opened(tmp_path, trigger_word="zwx")
    assert pictures.captions == ["zwx, a blue card", "zwx", "a red zwx card", "zwx"]
    assert pictures.written == ["a blue card", None, "a red zwx card", None]
    assert pictures[1:3].compact().written.to_pylist() == [None, "a red zwx card"]
    assert not pictures.faults
    assert with_trigger("", "zwx") == "zwx" and with_trigger("a", None) == "a"


def as_table():
    rows = [
        {"image": {"bytes": png(colour), "path": None}, "text": row["text"]}
        for colour, row in zip(COLOURS, ROWS, strict=True)
    ]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    return datasets.Dataset.from_list(rows, features=features)


@pytest.mark.parametrize("splits", [False, True])
def test_save_to_disk(tmp_path, splits):
    table = datasets.DatasetDict({"train": as_table(), "test": as_table()}) if splits else as_table()
    table.save_to_disk(tmp_path / "saved")
    assert_cards(opened(tmp_path / "saved"))


def test_parquet_folder(tmp_path):
    as_table().to_parquet(tmp_path / "in" / "data" / "train-00000-of-00001.parquet")
    as_table().to_parquet(tmp_path / "in" / "data" / "test-00000-of-00001.parquet")
    pictures = opened(tmp_path / "in", cache_dir=str(tmp_path / "cache"))
    assert_cards(pictures)
    assert pictures.names == ["row 0", "row 1", "row 2", "row 3"]


def test_bytes_and_lists_of_captions_as_columns(tmp_path):
    table = {"photo": [png(colour) for colour in COLOURS], "says": [[row["text"], "another"] for row in ROWS]}
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "in" / "a.parquet")
    settings = {"image_column": "photo", "caption_column": "says", "cache_dir": str(tmp_path / "cache")}
    pictures = opened(tmp_path / "in", **settings)
    assert_cards(pictures)
    assert [pictures.alternatives(index) for index in range(4)] == [[row["text"], "another"] for row in ROWS]


def test_paths_in_a_saved_table_stay_in_its_folder(tmp_path):
    paths = ["red.png", "../secret.png", str(tmp_path / "secret.png"), "gone.png"]
    (tmp_path / "secret.png").write_bytes(png("lime"))
    datasets.Dataset.from_dict({"image": paths, "text": list("abcd")}).save_to_disk(tmp_path / "in")
    (tmp_path / "in" / "red.png").write_bytes(png("red"))
    faults = opened(tmp_path / "in").check()
    out = "which leads out of the data set's folder: copy the file into it."
    assert [tuple(fault) for fault in faults] == [
        ("row 1", f"row 1 names '../secret.png', {out}"),
        ("row 2", f"row 2 names '{tmp_path}/secret.png', {out}"),
        ("row 3", "row 3 cannot be opened (No such file or directory): check the file."),
    ]


def test_bad_pictures_are_named_counted_and_left_out(tmp_path):
    write_pictures(tmp_path)
    photograph = (Path(sklearn.datasets.__file__).parent / "images" / "china.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(photograph[:50_000])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "zero.png").write_bytes(b"")
    for path in list(tmp_path.iterdir()):
        path.with_suffix(".txt").write_text(f"a {path.stem} card, plain")
    pictures, ticks = opened(tmp_path), []
    faults = pictures.check(lambda done, total: ticks.append((done, total)))
    assert faults.names == ["cut.jpg", "text.png", "zero.png"] and ticks == [(n, 7) for n in range(1, 8)]
    assert str(faults).startswith("3 pictures left out: cut.jpg is damaged or cut short (image file is truncated")
    assert "text.png is not a picture that can be read: save it as JPEG, PNG or WebP. zero.png is empty" in str(faults)
    usable = pictures.without(faults.names)
    assert usable.names == ["blue.png", "lime.png", "red.png", "yellow.png"] and not usable.check()
    with pytest.raises(PictureError, match=r"^zero\.png is empty"):
        pictures[6]


def test_it_is_a_sequence(tmp_path):
    write_pictures(tmp_path)
    write_metadata(tmp_path, ROWS)
    pictures = opened(tmp_path)
    assert pictures[-1].name == "yellow.png" and pictures[1:3].names == ["lime.png", "blue.png"]
    assert pictures.select([3, 0]).captions == ["a yellow card, plain", "a red card, plain"]
    assert pictures.identity(0) == hashlib.sha256(png("red")).hexdigest()
    assert pictures.picture_bytes(2) == png("blue")
    assert opened(tmp_path, max_train_samples=2).names == ["red.png", "lime.png"]
    with pytest.raises(IndexError):
        pictures[4]


def test_opening_decodes_nothing(tmp_path, monkeypatch):
    write_pictures(tmp_path)
    write_metadata(tmp_path, ROWS)
    monkeypatch.setattr(dataset, "decode", lambda *_: pytest.fail("a picture was decoded"))
    assert len(opened(tmp_path)) == 4


def test_shown_in_a_notebook_with_names_and_captions_escaped(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "<b>.png").write_bytes(b"no picture")
    write_metadata(
        tmp_path, [{"file_name": "<b>.png", "text": "$x$"}, {**ROWS[0], "text": "<script>alert(1)</script>"}]
    )
    pictures = opened(tmp_path)
    html = pictures._repr_html_()
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html and "<b>" not in html
    assert html.count("data:image/png;base64,") == 1 and "8 x 12" in html
    figure = pictures.figure()
    assert isinstance(figure, matplotlib.figure.Figure)
    shown = np.asarray(Image.open(io.BytesIO(figure._repr_png_())).convert("RGB"))
    assert (shown == (255, 0, 0)).all(axis=2).mean() > 0.1  # the red card, enlarged


def test_embedded_sets_mix_the_concept_with_plain_pictures(tmp_path, monkeypatch):
    for part in ("blueprint", "plain"):
        write_pictures(tmp_path / part)
        write_metadata(tmp_path / part, ROWS[:2])
    monkeypatch.setattr(dataset, "PICTURES", tmp_path)
    pictures = open_dataset(TrainConfig(dataset_name="embedded:blueprint", trigger_word="zwx"))
    assert pictures.names == ["blueprint/red.png", "blueprint/lime.png", "plain/red.png", "plain/lime.png"]
    captions = ["a red card, plain", "a lime card, plain"]
    assert pictures.captions == [f"zwx, {caption}" for caption in captions] + captions
    assert pictures.written == captions + captions
    assert pictures[2].picture.getpixel((0, 0)) == (255, 0, 0)


class Words:
    """A tokenizer of one token a word, between a start and an end token."""

    def __init__(self, model_max_length):
        self.model_max_length = model_max_length

    def __call__(self, captions, truncation, verbose):
        assert not truncation
        return {"input_ids": [["<s>", *caption.split(), "</s>"] for caption in captions]}

    def decode(self, ids):
        return " ".join(ids)


def test_long_captions_are_reported_with_what_is_cut():
    captions = ["a b c", "a b c d", "a b c d e"]
    assert long_captions(captions, [Words(5)]) == [(1, 6, "d"), (2, 7, "d e")]
    assert long_captions(captions, [Words(6), Words(5)]) == [(1, 6, "d"), (2, 7, "e")]
    assert long_captions(captions, [Words(7)]) == []


HUB_SCRIPT = f"""
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
pictures = open_dataset(TrainConfig(dataset_name={NARUTO!r}))
print(pictures, pictures.captions, [sample.picture.getpixel((0, 0)) for sample in pictures], sep="\\n")
"""


def test_hub_data_set_through_the_real_client(tmp_path):
    as_table().to_parquet(tmp_path / "naruto" / "data" / "train-00000-of-00001.parquet")
    with Hub(datasets={NARUTO: tmp_path / "naruto"}) as hub:
        command, environment = [sys.executable, "-c", HUB_SCRIPT], hub.environment(tmp_path / "home")
        first = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert first.returncode == 0, first.stderr
        assert hub.downloads(NARUTO) == ["data/train-00000-of-00001.parquet"]
    again = subprocess.run(command, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert first.stdout == again.stdout, again.stderr
    assert first.stdout.splitlines() == [
        f"CaptionedPictures: 4 pictures from {NARUTO}",
        str([row["text"] for row in ROWS]),
        "[(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]",
    ]


@pytest.mark.soak
def test_hub_serves_a_pipeline_folder_to_diffusers(tmp_path):
    """snapshot by diffusers' own loader: model_index.json, and only the files that it names."""
    folder = tmp_path / "model"
    (folder / "scheduler").mkdir(parents=True)
    (folder / "model_index.json").write_text(
        json.dumps({"_class_name": "DiffusionPipeline", "scheduler": ["diffusers", "EulerDiscreteScheduler"]})
    )
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "EulerDiscreteScheduler"}')
    (folder / "picture.png").write_bytes(png("red"))
    script = f"from diffusers import DiffusionPipeline as P; print(P.download({SDXL!r}))"
    with Hub(models={SDXL: folder}) as hub:
        environment = hub.environment(tmp_path / "home")
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sorted(hub.downloads(SDXL)) == ["model_index.json", "scheduler/scheduler_config.json"]
    snapshot = Path(done.stdout.strip())
    assert json.loads((snapshot / "scheduler" / "scheduler_config.json").read_text())


@pytest.fixture
def s3(monkeypatch):
    """A client of an emulated S3, with the bucket "cards"."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="cards")
    yield client
    server.stop()


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def test_s3_prefix(s3, tmp_path):
    write_pictures(tmp_path / "up")
    write_metadata(tmp_path / "up", ROWS)
    for path in (tmp_path / "up").iterdir():
        s3.upload_file(str(path), "cards", f"set/{path.name}")
    s3.put_object(Bucket="cards", Key="set-two/other.png", Body=png("red"))
    s3.put_object(Bucket="cards", Key="set/model.safetensors", Body=b"large")
    settings = {"cache_dir": str(tmp_path / "cache")}
    pictures = opened("s3://cards/set", **settings)
    assert_cards(pictures)
    assert repr(pictures) == "CaptionedPictures: 4 pictures from s3://cards/set"
    before = files_below(tmp_path / "cache")
    assert len(before) == 10  # five objects in the store, and their places in the folder; no partial file
    assert_cards(opened("s3://cards/set/", **settings))
    assert files_below(tmp_path / "cache") == before  # nothing was downloaded again
    s3.put_object(Bucket="cards", Key="set/red.png", Body=png("black"))
    assert opened("s3://cards/set", **settings)[0].picture.getpixel((0, 0)) == (0, 0, 0)
    assert sum(path not in before and "objects" in path.parts for path in files_below(tmp_path / "cache")) == 1


def test_s3_says_what_is_wrong(s3, tmp_path, monkeypatch):
    s3.put_object(Bucket="cards", Key="out/../../x.png", Body=png("red"))
    settings = {"cache_dir": str(tmp_path / "cache")}
    sentences = {
        "s3://cards/none": "There are no pictures or captions under s3://cards/none: check --train_data_dir.",
        "s3://nobucket/a": "There is no bucket for s3://nobucket/a: check --train_data_dir.",
        "s3://cards/out": "s3://cards/out/../../x.png would be saved outside its folder: rename the object.",
    }
    for url, sentence in sentences.items():
        with pytest.raises(dataset.DataError) as caught:
            opened(url, **settings)
        assert str(caught.value) == sentence
    assert not (tmp_path / "cache").exists()
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(dataset.DataError, match=r"^Reading s3:// needs boto3: pip install 'sdxl_nb\[sagemaker\]'\.$"):
        opened("s3://cards/set", **settings)


def test_a_folder_that_is_itself_a_link(tmp_path):
    write_pictures(tmp_path / "real")
    write_metadata(tmp_path / "real", ROWS)
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert_cards(opened(tmp_path / "link"))
