"""Tables: columns of addresses and base64 text, lists of captions, and pictures in zip archives on the hub."""

import base64
import json
import shutil
import subprocess
import sys

import datasets
import pytest
from hub import Hub
from test_archives import MADE, said
from test_dataset import COLOURS, png

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.system.errors import DataError

CAPTIONS = [f"a {colour} card" for colour in COLOURS]
ADDRESSES = [f"https://example.org/{colour}.png" for colour in COLOURS]


@pytest.fixture
def opened(tmp_path):
    def of(table, **settings):
        datasets.Dataset.from_dict(table).to_parquet(tmp_path / "in" / "a.parquet")
        return open_dataset(
            TrainConfig(train_data_dir=str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"), **settings)
        )

    return of


@pytest.mark.parametrize("column", ["image", "url"])
def test_addresses_are_said_for_what_they_are(column, opened, tmp_path):
    with pytest.raises(DataError) as caught:
        opened({column: ADDRESSES, "caption": CAPTIONS})
    assert str(caught.value) == (
        f"{tmp_path}/in holds addresses of pictures (column '{column}'), not pictures, and nothing is fetched from "
        "addresses: download them first, for example with img2dataset, and give that folder with --train_data_dir."
    )


def test_base64_text_is_decoded_and_said(opened):
    texts = [base64.b64encode(png(colour)).decode() for colour in COLOURS]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    texts[2] = base64.urlsafe_b64encode(png("blue")).decode().rstrip("=")
    pictures = opened({"image": texts, "text": CAPTIONS})
    assert list(said(pictures).values()) == CAPTIONS and not pictures.check()
    (note,) = pictures.notes
    assert note.endswith("holds pictures as base64 text, which is decoded")
    assert len({pictures.stamp(index) for index in range(4)}) == 4


def test_base64_bytes_and_damaged_text(opened):
    cells = [base64.b64encode(png(colour)) for colour in COLOURS]
    cells[3] = cells[3][:-30]
    faults = opened({"image": cells, "text": CAPTIONS}).check()
    assert faults.names == ["row 3"]


def test_lists_of_captions_are_kept(opened):
    lists = [["one", "two", "three"], ["four"], [" ", "five", None], []]
    pictures = opened({"image": [png(colour) for colour in COLOURS], "text": lists})
    assert [pictures.alternatives(index) for index in range(3)] == [["one", "two", "three"], ["four"], ["five"]]
    assert pictures.faults.names == ["row 3"]
    assert pictures.notes == [
        "1 of 4 pictures have several captions (5 in all): one is drawn anew each time; --caption_choice first keeps "
        "to the first."
    ]


def test_a_cell_without_text_is_refused(opened):
    with pytest.raises(DataError, match="holds List, not text: name another with --caption_column"):
        opened({"image": [png("red")], "text": [[1, 2]]})


SCRIPT = """
import json, sys
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
for name in sys.argv[1:]:
    found = open_dataset(TrainConfig(dataset_name=name))
    colours = [found[index].picture.getpixel((0, 0)) for index in range(len(found))]
    further = found.further and found.further.to_pylist()
    print(json.dumps([found.captions[:], colours, found.stamp(0) is not None, further]))
"""


def test_the_hubs_zipped_pictures_and_tars(tmp_path):
    """datasets names them zip://cards/blue.png::/.../train.zip; texts beside pictures it takes for pictures."""
    made = {"me/texts": "around.zip", "me/metadata": "metadata.zip", "me/mixed": "webdataset/00000.tar"}
    for number, (name, file) in enumerate({**made, "me/tar": "img2dataset/webdataset/00000.tar"}.items()):
        (tmp_path / str(number)).mkdir()
        shutil.copy(MADE / file, tmp_path / str(number) / f"train{file[-4:]}")
        made[name] = tmp_path / str(number)
    with Hub(datasets=made) as hub:
        command = [sys.executable, "-c", SCRIPT, *made]
        done = subprocess.run(command, env=hub.environment(tmp_path / "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    red, lime, blue, yellow = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]
    assert list(map(json.loads, done.stdout.splitlines())) == [
        [[f"a {c} card" for c in ("blue", "lime", "red", "yellow")], [blue, lime, red, yellow], True, None],
        [CAPTIONS, [red, lime, blue, yellow], True, [["red"], ["lime"], ["blue"], ["yellow"]]],
        [CAPTIONS[:2], [red, lime], True, [[], ["lime"]]],
        [["a red card", "a lime card", "a yellow card"], [red, lime, yellow], True, None],
    ]
