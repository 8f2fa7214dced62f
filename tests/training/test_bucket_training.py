"""Training on buckets, repeats, varied captions and class pictures: exact on resume, and each picture as it is."""

import shutil

import pytest
from PIL import Image
from small_runs import ONCE, SIZES, assert_same, home, small, train

from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.training import class_pictures
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.state.fingerprint import fingerprint

pytestmark = pytest.mark.slow

BUCKETS = {"center_crop": False, "bucket_reso_steps": 8}


def kohya_folder(root):
    """The small runs' pictures as 1_plain and 3_often, tags as captions."""
    for number in range(len(SIZES)):
        folder = root / ("3_often" if number < 2 else "1_plain")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(home()[0] / "pictures" / f"{number}.png", folder)
        (folder / f"{number}.txt").write_text(f"card, {number}, red, large")
    return str(root)


def recording(monkeypatch):
    """What every micro-batch of later runs holds: indices, latents, time ids."""
    seen, batch = [], Studio.batch

    def recorded(self, indices, choices):
        made = batch(self, indices, choices)
        seen.append((list(indices), tuple(made.latents.shape[2:]), made.time_ids.tolist()))
        return made

    monkeypatch.setattr(Studio, "batch", recorded)
    return seen


def test_pictures_are_trained_at_their_own_shape(tmp_path, monkeypatch):
    seen, events = recording(monkeypatch), []
    run = train(small(tmp_path, max_train_steps=4, **BUCKETS, **ONCE), events.append)
    assert run.status == "completed" and events[0]["pictures"] == 7
    assert sorted(index for indices, _, _ in seen for index in indices) == list(range(7))
    shapes = set()
    for indices, shape, time_ids in seen:
        for index, (height, width, top, left, *target) in zip(indices, time_ids, strict=True):
            assert (width, height) == SIZES[index] and target == [4 * side for side in shape]
            assert 0 <= top <= 8 and 0 <= left <= 8
        shapes.add(shape)
    assert {(8, 8), (6, 10), (10, 6)} <= shapes
    assert "Pictures by size (width x height): " in (tmp_path / "log.txt").read_text()


def test_live_latents_have_the_same_shapes_and_move(tmp_path, monkeypatch):
    seen = recording(monkeypatch)
    train(small(tmp_path, max_train_steps=8, cache_latents=False, **BUCKETS, **ONCE))
    places = {}
    for indices, _, time_ids in seen:
        for index, ids in zip(indices, time_ids, strict=True):
            places.setdefault(index, []).append(ids)
    assert all(len(ids) == 2 and ids[0][4:] == ids[1][4:] for ids in places.values())
    assert any(ids[0] != ids[1] for ids in places.values())


def test_resume_is_exact_with_buckets_repeats_weights_and_varied_captions(tmp_path):
    changes = {
        "train_data_dir": kohya_folder(tmp_path / "data"),
        "folder_weights": {"1_plain": 0.5},
        "shuffle_caption": True,
        "caption_tag_dropout_rate": 0.3,
        "random_flip": True,
        **BUCKETS,
        **ONCE,
    }
    train(small(tmp_path / "whole", **changes))
    events = []
    train(
        small(tmp_path / "parts", **changes), lambda event: event.get("step") == 3 and (tmp_path / "parts/stop").touch()
    )
    train(small(tmp_path / "parts", resume_from_checkpoint="latest", **changes), events.append)
    assert events[0]["resumed_from"] in (3, 4) and events[0]["steps"] == 6
    assert_same(tmp_path / "whole", tmp_path / "parts")
    log = (tmp_path / "whole" / "log.txt").read_text()
    assert "An epoch sees the pictures of '1_plain' once, '3_often' 3 times; --no_folder_repeats sees each once." in log
    assert "Captions change from step to step, so the text encoders stay in memory and run at every step" in log


@pytest.mark.parametrize("sizes", [[(60, 36)] * 6, [(16, 16)]], ids=["a shape more", "other numbers"])
def test_what_is_held_out_changes_no_training(tmp_path, sizes):
    """Neither the shapes that are chosen nor, by their numbers, the order."""
    shutil.copytree(home()[0] / "pictures", tmp_path / "data")
    if len(sizes) > 1:  # without these two, all pictures are trained as squares
        for number in (1, 2):
            (tmp_path / "data" / f"{number}.png").unlink()
    (tmp_path / "held out").mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (40 * number, 0, 0)).save(tmp_path / "held out" / f"{number}.png")
        (tmp_path / "held out" / f"{number}.txt").write_text("a card")
    changes = {**BUCKETS, "bucket_no_upscale": True, "train_data_dir": str(tmp_path / "data"), **ONCE}
    train(small(tmp_path / "plain", **changes))
    train(small(tmp_path / "measured", validation_data_dir=str(tmp_path / "held out"), heldout_steps=6, **changes))
    assert_same(tmp_path / "plain", tmp_path / "measured")


def test_other_repeats_are_other_data(tmp_path):
    kohya_folder(tmp_path)
    before = fingerprint(open_dataset(small(tmp_path, train_data_dir=str(tmp_path))))
    assert before == fingerprint(open_dataset(small(tmp_path, train_data_dir=str(tmp_path))))
    (tmp_path / "3_often").rename(tmp_path / "4_often")
    assert before != fingerprint(open_dataset(small(tmp_path, train_data_dir=str(tmp_path))))


def test_settings_that_are_off_change_nothing(tmp_path):
    train(small(tmp_path / "plain", max_train_steps=2))
    off = {"aspect_ratio_buckets": False, "bucket_reso_steps": 16, "folder_repeats": False, "keep_tokens": 2}
    train(small(tmp_path / "off", max_train_steps=2, **off))
    assert_same(tmp_path / "plain", tmp_path / "off")


def test_prior_preservation(tmp_path, monkeypatch):
    monkeypatch.setattr(class_pictures, "STEPS", 2)
    seen, captions, caption = recording(monkeypatch), {}, Studio.caption

    def noted(self, index, choices):
        captions.setdefault(index, set()).add(caption(self, index, choices))
        return caption(self, index, choices)

    monkeypatch.setattr(Studio, "caption", noted)
    prior = {"with_prior_preservation": True, "class_data_dir": str(tmp_path / "class"), "class_prompt": "any card"}
    settings = prior | {"num_class_images": 3, "prior_loss_weight": 0.5, "max_train_steps": 4, **BUCKETS, **ONCE}
    run = train(small(tmp_path / "run", **settings))
    assert run.status == "completed" and len(list((tmp_path / "class").glob("*.png"))) == 3
    indices = [index for batch, _, _ in seen for index in batch]
    assert sorted(index for index in indices if index < 7) == list(range(7))
    assert sum(index >= 7 for index in indices) == 7
    assert captions == {n: {f"card {n}"} for n in range(7)} | {n: {"any card"} for n in range(7, 10)}
    sizes = {tuple(ids) for batch, _, time_ids in seen for n, ids in zip(batch, time_ids, strict=True) if n >= 7}
    assert sizes == {(32, 32, 0, 0, 32, 32)}


def test_a_folder_of_no_weight_teaches_nothing(tmp_path):
    data = kohya_folder(tmp_path / "data")
    losses = []
    changes = {"train_data_dir": data, "folder_weights": {"3_often": 0.0}, "debug_loss": True, "max_train_steps": 2}
    train(small(tmp_path / "run", **changes), lambda event: losses.append(event.get("losses", {})))
    zero = {name for each in losses for name, loss in each.items() if loss == 0}
    assert zero and zero == {name for each in losses for name in each if name.startswith("3_often/")}
