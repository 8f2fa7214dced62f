"""Links inside a folder are followed, and those of the hub's cache; what leads elsewhere is refused."""

import io
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from hub import Hub
from PIL import Image
from test_corners import notes
from test_meant import opened, write

from sdxl_nb.data.sources.tree import hub_blobs
from sdxl_nb.system.errors import DataError


def snapshot(root: Path, **files: bytes) -> Path:
    """A folder as the hub's client lays it out: every file a link to a blob."""
    home = root / "datasets--o--cards"
    folder = home / "snapshots" / "0123abcd"
    (home / "blobs").mkdir(parents=True)
    for number, (name, data) in enumerate(files.items()):
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        (home / "blobs" / str(number)).write_bytes(data)
        path.symlink_to(os.path.relpath(home / "blobs" / str(number), path.parent))
    return folder


def png():
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("inner", ["", "data"])
def test_the_folder_that_the_hubs_client_downloads(inner, tmp_path):
    folder = snapshot(tmp_path, README_md=b"#", data__a_png=png(), data__a_txt=b"an apple")
    pictures = opened(folder / inner)
    assert pictures.captions == ["an apple"] and not pictures.check()
    (folder / "data" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a pear"}')
    assert opened(folder / inner).captions == ["a pear"]


def test_a_snapshot_of_parquet(tmp_path):
    table = datasets.Dataset.from_list([{"image": {"bytes": png(), "path": None}, "text": "a card"}])
    table.to_parquet(tmp_path / "t.parquet")
    folder = snapshot(tmp_path, train_parquet=(tmp_path / "t.parquet").read_bytes())
    assert opened(folder, cache_dir=str(tmp_path / "cache")).captions == ["a card"]


@pytest.mark.parametrize("target", ["secret.png", "datasets--o--cards/refs/main.png", "datasets--o--x/blobs/0"])
def test_links_of_a_snapshot_that_lead_elsewhere_are_refused(target, tmp_path):
    folder = snapshot(tmp_path, a_png=png())
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / target).write_bytes(png())
    (folder / "b.png").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"the folder names 'b\.png', which leads out of"):
        opened(folder, trigger_word="sks")


def test_a_folder_that_only_looks_like_a_snapshot(tmp_path):
    assert hub_blobs(Path("/a/snapshots/b")) is None
    write(tmp_path / "blobs", "a.png")
    (tmp_path / "snapshots" / "x").mkdir(parents=True)
    (tmp_path / "snapshots" / "x" / "a.png").symlink_to("../../blobs/a.png")
    with pytest.raises(DataError, match="leads out of"):
        opened(tmp_path / "snapshots" / "x", trigger_word="sks")


def test_links_inside_one_tree(tmp_path):
    write(tmp_path, "all/a.png", "all/a.txt=A", ".store/h.png", ".store/h.txt=H", "z.png", "z.txt=Z")
    (tmp_path / "first.png").symlink_to("all/a.png")
    (tmp_path / "first.txt").symlink_to("all/a.txt")
    (tmp_path / "again").symlink_to("all")
    (tmp_path / "whole").symlink_to(".")
    (tmp_path / "shown").symlink_to(".store")
    (tmp_path / ".store" / "round").symlink_to("../shown")
    pictures = opened(tmp_path)
    assert sorted(zip(pictures.names, pictures.captions, strict=True)) == [
        ("all/a.png", "A"),
        ("first.png", "A"),
        ("shown/h.png", "H"),
        ("z.png", "Z"),
    ]
    assert notes(pictures, "not_training_pictures") == []
    assert notes(pictures, "link") == [
        "Links to folders that are read already are not followed (again, whole, shown/round)."
    ]


FETCH = """
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
pictures = open_dataset(TrainConfig(dataset_name="o/cards"))
print(pictures, pictures.captions, len(pictures.check()), pictures.repeats)
"""


def test_a_repository_of_pictures_and_texts(tmp_path):
    root = tmp_path / "cards"
    write(
        root, "2_a/x.png", "2_a/x.txt=X", "2_a/y[1].PNG", "2_a/y[1].TXT=Y", "README.md", "model.bin", ".gitattributes"
    )
    Image.new("RGB", (8, 8), "blue").save(root / "2_a/y[1].PNG")
    command = [sys.executable, "-c", FETCH]
    with Hub(datasets={"o/cards": root}) as hub:
        environment = hub.environment(tmp_path / "home")
        first = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert first.returncode == 0, first.stderr
        assert sorted(hub.downloads("o/cards")) == ["2_a/x.png", "2_a/x.txt", "2_a/y[1].PNG", "2_a/y[1].TXT"]
    again = subprocess.run(command, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert first.stdout == again.stdout == "CaptionedPictures: 2 pictures from o/cards ['X', 'Y'] 0 [2 2]\n", (
        again.stderr
    )
