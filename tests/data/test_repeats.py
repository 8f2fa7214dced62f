"""What the names of subfolders say: repeats, captions and loss weights, as kohya's folders do."""

import json

import numpy as np
import pytest
from PIL import Image

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sampling import Stream
from sdxl_nb.system.errors import ConfigError, DataError


def write(root, *names, captions=True):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(path, "PNG")
        if captions:
            path.with_suffix(".txt").write_text(f"a card, {path.stem}")


def opened(root, **settings):
    return open_dataset(TrainConfig(train_data_dir=str(root), **settings))


def test_repeats(tmp_path):
    write(tmp_path, "3_sks dog/a.png", "3_sks dog/deeper/b.png", "1_style/c.png")
    pictures = opened(tmp_path)
    assert pictures.names == ["1_style/c.png", "3_sks dog/a.png", "3_sks dog/deeper/b.png"]
    assert pictures.repeats.tolist() == [1, 3, 3] and len(pictures) == 3
    assert pictures.notes == [
        "An epoch sees the pictures of '1_style' once, '3_sks dog' 3 times; --no_folder_repeats sees each once."
    ]
    assert pictures.select([2, 0]).repeats.tolist() == [3, 1] and pictures.without(["1_style/c.png"]).repeats.min() == 3
    assert opened(tmp_path, folder_repeats=False).repeats is None


def test_an_epoch_sees_each_so_often():
    stream = Stream(3, 2, 0, repeats=np.array([1, 3, 5]), groups=np.array([0, 1, 0]))
    assert (stream.count, stream.steps_per_epoch) == (9, 5)
    for epoch in range(2):
        seen = [p for step in range(epoch * 5, epoch * 5 + 5) for p in stream.pictures(stream.positions(step))]
        assert np.bincount(seen).tolist() == [1, 3, 5]


@pytest.mark.parametrize("names", [["a/x.png"], ["0_a/x.png"], ["10.png", "a/x.png"]])
def test_other_folders_are_only_folders(tmp_path, names):
    write(tmp_path, *names)
    pictures = opened(tmp_path)
    assert pictures.repeats is None and pictures.notes == []


def test_a_year_is_no_repeat(tmp_path):
    write(tmp_path, "2023_summer/a.png", "2024_holiday/b.png")
    pictures = opened(tmp_path)
    assert pictures.repeats is None
    assert pictures.notes == ["Folder 2024_holiday is not read as 2024 repeats, which is more than 500."]


def test_a_missing_caption_is_the_words_of_the_folder(tmp_path):
    write(tmp_path, "2_sks_dog/a.png", "2_a cat/b.png", captions=False)
    (tmp_path / "2_a cat/b.txt").write_text("a black cat")
    pictures = opened(tmp_path)
    assert pictures.captions == ["a black cat", "sks dog"]
    assert pictures.notes[0] == "1 of 2 pictures have no caption and take the words of their folder, as 'sks dog'."
    (tmp_path / "2_a cat/b.txt").unlink()
    assert opened(tmp_path).captions == ["a cat", "sks dog"]
    assert opened(tmp_path, trigger_word="zwx").captions == ["zwx, a cat", "zwx, sks dog"]
    with pytest.raises(DataError, match="has no captions at all"):
        opened(tmp_path, folder_repeats=False)


def test_the_words_of_a_folder_beside_several_captions(tmp_path):
    write(tmp_path, "2_sks_dog/a.png", "2_a cat/b.png", captions=False)
    (tmp_path / "2_a cat/b.txt").write_text("one cat\nanother cat")
    pictures = opened(tmp_path, caption_lines="captions")
    assert pictures.captions == ["one cat", "sks dog"] and pictures.further.to_pylist() == [["another cat"], []]


def test_with_metadata_too(tmp_path):
    write(tmp_path, "4_a/x.png", captions=False)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "4_a/x.png", "text": "hello"}))
    assert opened(tmp_path).repeats.tolist() == [4]


def test_weights(tmp_path):
    write(tmp_path, "style/a.png", "dog/b.png", "c.png")
    pictures = opened(tmp_path, folder_weights={"style": 0.5})
    assert dict(zip(pictures.names, pictures.weights.tolist(), strict=True)) == {
        "c.png": 1.0,
        "dog/b.png": 1.0,
        "style/a.png": 0.5,
    }
    with pytest.raises(DataError) as caught:
        opened(tmp_path, folder_weights='{"styles": 2}')
    assert str(caught.value) == (
        "folder_weights names 'styles', but there is no such subfolder (there are: dog, style)."
    )


def test_weights_of_an_embedded_set():
    pictures = open_dataset(TrainConfig(dataset_name="embedded:blueprint", folder_weights={"plain": 0.25}))
    named = zip(pictures.names, pictures.weights.tolist(), strict=True)
    assert {(name.split("/")[0], weight) for name, weight in named} == {("blueprint", 1.0), ("plain", 0.25)}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", "folder_weights must be JSON such as"),
        ({"a": -1}, "folder_weights must be at least 0, not -1"),
        ({"a": True}, "folder_weights must be a number, not true"),
    ],
)
def test_weights_that_are_none(value, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TrainConfig(folder_weights=value)
