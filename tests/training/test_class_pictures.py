"""Class pictures: drawn where they are missing, the same whatever was drawn before, and paired with every step."""

import json

import numpy as np
import pytest
from PIL import Image
from small_runs import small

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.data.sampling import Stream, loss_weights, share
from sdxl_nb.drawing.generation import generate, load_base
from sdxl_nb.models.objective.base_objective import of_config
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ConfigError, DataError
from sdxl_nb.training import class_pictures
from sdxl_nb.training.class_pictures import open_class_pictures


def config(tmp_path, **changes):
    prior = {"with_prior_preservation": True, "class_data_dir": str(tmp_path / "class"), "class_prompt": "a card"}
    return small(tmp_path / "run", **prior | {"num_class_images": 3} | changes)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(class_pictures, "STEPS", 2)
    monkeypatch.setattr(class_pictures, "BATCH", 2)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"}


def test_what_is_missing_is_drawn_and_only_that(tmp_path, monkeypatch):
    done = []
    pictures = open_class_pictures(config(tmp_path), lambda *numbers: done.append(numbers))
    assert pictures.names == [f"class-00000{n}.png" for n in range(3)] and pictures.captions == ["a card"] * 3
    assert done == [(2, 3), (3, 3)]
    assert {pictures[index].original_size for index in range(3)} == {(32, 32)}
    first = files(tmp_path / "class")
    assert len(set(first.values())) == 3
    (tmp_path / "class" / "class-000001.png").unlink()
    drawn, draw = [], class_pictures.draw_batch
    monkeypatch.setattr(class_pictures, "draw_batch", lambda *given: (drawn.append(given[-1]), draw(*given)))
    again = open_class_pictures(config(tmp_path, num_class_images=4, seed=6))
    assert drawn == [[1, 3]] and len(again) == 4
    assert {name: data for name, data in files(tmp_path / "class").items() if name in first} == first
    assert len(open_class_pictures(config(tmp_path, num_class_images=2))) == 4 and len(drawn) == 1
    assert [path.name for path in (tmp_path / "class").iterdir() if path.name.startswith(".")] == []


def test_pictures_of_ones_own_count(tmp_path):
    (tmp_path / "class" / "mine").mkdir(parents=True)
    Image.new("RGB", (40, 24), "red").save(tmp_path / "class" / "mine" / "a.jpg")
    pictures = open_class_pictures(config(tmp_path, num_class_images=1))
    assert pictures.names == ["mine/a.jpg"] and pictures.sizes().tolist() == [[24, 40]]
    assert not (tmp_path / "class" / "class_pictures.json").exists()


def test_folders_that_cannot_be_used(tmp_path):
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "class_pictures.json").write_text(json.dumps({"class_prompt": "a dog", "base": "x/y"}))
    with pytest.raises(
        DataError, match=r"were drawn for 'a dog', not 'a card': give another class_data_dir, or remove"
    ):
        open_class_pictures(config(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file is a file, not a folder"):
        open_class_pictures(config(tmp_path, class_data_dir=str(tmp_path / "file")))
    with pytest.raises(DataError, match="must be a local folder, not s3://b/c"):
        open_class_pictures(config(tmp_path, class_data_dir="s3://b/c"))
    with pytest.raises(DataError, match="give the class a folder of its own"):
        open_class_pictures(config(tmp_path, class_data_dir=small(tmp_path).train_data_dir))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"with_prior_preservation": True, "class_prompt": "a"},
            "with_prior_preservation needs class_data_dir: give it",
        ),
        (
            {"with_prior_preservation": True, "class_data_dir": "a"},
            "with_prior_preservation needs class_prompt: give it",
        ),
        ({"class_data_dir": "a"}, "class_data_dir needs with_prior_preservation: add it, or drop class_data_dir"),
        ({"class_prompt": "a"}, "class_prompt needs with_prior_preservation: add it, or drop class_prompt"),
        ({"num_class_images": 7}, "num_class_images needs with_prior_preservation: add it, or drop num_class_images"),
    ],
)
def test_settings_that_need_each_other(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TrainConfig(**settings)


def test_the_class_comes_after_the_others_with_its_own_captions_and_sizes(tmp_path):
    both = open_dataset(config(tmp_path)).with_class(open_class_pictures(config(tmp_path)))
    assert (len(both), both.class_pictures) == (10, 3)
    assert both.captions[6:] == ["card 6", *["a card"] * 3] and both.names[7] == "class-000000.png"
    assert both.sizes()[6:].tolist() == [[32, 36], [32, 32], [32, 32], [32, 32]]
    assert both[8].picture.size == (32, 32) and both.identity(8) != both.identity(7)
    kept = both.without(["0.png", "class-000001.png"])
    assert (len(kept), kept.class_pictures) == (8, 2)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_step_has_as_many_of_the_class(processes):
    groups = np.array([0, 1, 0, 1, 0, 0, 1, 2, 0, 2, 0])  # seven pictures, four of the class
    stream = Stream(7, 2, 3, groups=groups, class_pictures=4)
    of_class = []
    for step in range(2 * stream.steps_per_epoch):
        positions = stream.positions(step)
        seen = [p for rank in range(processes) for p in stream.pictures(share(positions, rank, processes))]
        assert seen == stream.pictures(positions)
        half = len(seen) // 2
        assert len(seen) == 2 * half and max(seen[:half]) < 7 <= min(seen[half:])
        kinds = groups[seen[half:]].tolist()
        assert kinds == sorted(kinds)  # equal shapes side by side
        of_class += seen[half:]
    assert stream.steps_per_epoch == 4
    assert sorted(np.bincount(of_class)[7:].tolist()) == [3, 3, 4, 4]
    single = Stream(7, 2, 3, class_pictures=4)
    seen = [p for step in range(4) for p in single.pictures(single.positions(step)) if p < 7]
    assert sorted(seen) == list(range(7))


def test_the_halves_are_means_of_their_own():
    weights = loss_weights(2, 2, None, 0.5)
    losses = np.array([1.0, 3.0, 10.0, 20.0])
    assert (weights * losses).sum() / 4 == pytest.approx(losses[:2].mean() + 0.5 * losses[2:].mean())
    assert loss_weights(3, 0) is None
    assert loss_weights(1, 1, np.array([0.25, 1.0]), 0.5).tolist() == [0.5, 1.0]


def test_they_are_drawn_for_the_objective_that_is_trained(tmp_path):
    """A base that is said to predict v draws its class pictures as one."""
    plain, told = {"num_class_images": 1}, {"num_class_images": 1, "prediction_type": "v_prediction"}
    open_class_pictures(config(tmp_path / "a", **plain))
    given = config(tmp_path / "b", **told)
    open_class_pictures(given)
    (one,), (other,) = (files(tmp_path / name / "class").values() for name in "ab")
    assert one != other
    settings = {"num_inference_steps": 2, "guidance_scale": 5.0, "height": 32, "width": 32, "progress": False}
    drawn = generate(load_base(Source.of(given), of_config(given)), None, "a card", seeds=(0,), **settings).at()
    assert np.array_equal(np.asarray(drawn), np.asarray(Image.open(tmp_path / "b" / "class" / "class-000000.png")))
    for folder, changes in (("a", told), ("b", plain)):
        with pytest.raises(DataError, match="were drawn for"):
            open_class_pictures(config(tmp_path / folder, **changes))
