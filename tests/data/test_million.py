"""A million pictures: opened without loading them, in little memory. `make soak` takes all, `make test` a part."""

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_dataset import png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset

pytestmark = pytest.mark.slow

SIZES = [20_000, *(pytest.param(count, marks=pytest.mark.soak) for count in (100_000, 1_000_000))]
OPEN = r"""
import json, re, sys, time
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sampling import Stream
settings = json.loads(sys.argv[1])
def peak():  # in MB; ru_maxrss would count what the process that started this one held
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
open_dataset(TrainConfig(**settings | {"train_data_dir": sys.argv[2], "cache_dir": None}))  # imports, caches
before = peak()
begun = time.process_time()
pictures = open_dataset(TrainConfig(**settings))
seconds = time.process_time() - begun
stream = Stream(len(pictures), 16, 0)
last = stream.pictures(stream.positions(stream.steps_per_epoch - 1))[-1]
print(json.dumps({
    "seconds": seconds, "before": before, "peak": peak(),
    "count": len(pictures), "name": pictures.names[last], "caption": pictures.captions[last],
    "size": pictures[last].picture.size, "end": [pictures.names[-1], pictures.captions[-1]],
}))
"""


def opened(tmp_path, **settings):
    """What a process of its own says of opening the data: seconds, megabytes, and a picture of the last step."""
    few = tmp_path / "few"
    few.mkdir()
    (few / "a.png").write_bytes(png("red"))
    (few / "a.txt").write_text("a card")
    command = [sys.executable, "-c", OPEN, json.dumps(settings), str(few)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_light(found, count):
    assert found["count"] == count
    assert found["seconds"] < (20 if count == 1_000_000 else 8)  # alone about 9 s, and 1 s
    assert found["peak"] < 500 and found["peak"] - found["before"] < 40 + 400 * count / 1_000_000


@pytest.mark.parametrize("count", SIZES)
def test_an_index_of_many_pictures(tmp_path, count):
    """metadata.jsonl names every picture; links inside the folder make many names of few files."""
    root, side = tmp_path / "pictures", 1000
    (root / "all").mkdir(parents=True)
    (root / "all" / "0.png").write_bytes(png("red"))
    for number in range(1, side):
        os.link(root / "all" / "0.png", root / "all" / f"{number}.png")
    with (root / "metadata.jsonl").open("w") as file:
        for number in range(count):
            if number % side == 0:
                os.symlink("all", root / f"part{number // side}")
            name, text = f"part{number // side}/{number % side}.png", f"card number {number}, plain, drawn by hand"
            file.write(json.dumps({"file_name": name, "text": text}) + "\n")
    found = opened(tmp_path, train_data_dir=str(root), trigger_word="zwx")
    assert_light(found, count)
    part, number = found["name"].removesuffix(".png").removeprefix("part").split("/")
    assert found["caption"] == f"zwx, card number {int(part) * side + int(number)}, plain, drawn by hand"
    assert found["size"] == [12, 8]
    assert found["end"][0] == f"part{count // side - 1}/999.png"


@pytest.mark.parametrize("count", SIZES)
def test_a_table_of_many_pictures(tmp_path, count):
    """Parquet files, as hub data sets are; the library's own conversion is paid once and not measured."""
    captions = [f"card number {number}, plain, drawn by hand" for number in range(count)]
    pictures = pa.array([{"bytes": png("red"), "path": None}] * count)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": pictures, "text": captions}), tmp_path / "in" / "train.parquet")
    settings = {"train_data_dir": str(tmp_path / "in"), "cache_dir": str(tmp_path / "cache")}
    first = opened(tmp_path, **settings)
    (tmp_path / "few").rename(tmp_path / "few-once")
    found = opened(tmp_path, **settings)
    assert_light(found | {"peak": found["peak"] - found["before"]}, count)
    assert found["caption"] == f"card number {found['name'].removeprefix('row ')}, plain, drawn by hand"
    assert (first["name"], first["size"]) == (found["name"], [12, 8])


def test_memory_does_not_grow_while_pictures_are_read(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text("a card")
    pictures = open_dataset(TrainConfig(train_data_dir=str(root)))
    pictures.check()
    tracemalloc.start()
    pictures.check()
    after_one = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        pictures.check()
    assert tracemalloc.get_traced_memory()[0] < after_one + 100_000  # 200 pictures of 12 kB were decoded
    tracemalloc.stop()
