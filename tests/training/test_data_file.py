"""A run over a data file: what each folder has for itself reaches the steps, the caches and the held-out loss."""

import json
import shutil

import pytest
from PIL import Image
from small_runs import assert_same, home, small, train

from sdxl_nb.data.dataset import open_dataset
from sdxl_nb.models.architectures import of
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.disk import needed
from sdxl_nb.training.epochs import count_pictures
from sdxl_nb.training.setup import Studio
from sdxl_nb.training.state.fingerprint import fingerprint

pytestmark = pytest.mark.slow

PARTS = {"style": (0, 1, 2), "portraits": (3, 4), "unseen": (5, 6)}
UNSEEN = {"path": "unseen", "held_out": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The seven small pictures, in three folders."""
    root = tmp_path_factory.mktemp("data")
    for part, numbers in PARTS.items():
        (root / part).mkdir()
        for number in numbers:
            for suffix in ("png", "txt"):
                shutil.copy(home()[0] / "pictures" / f"{number}.{suffix}", root / part)
            (root / part / f"{number}.txt").write_text(f"card {number}, red, blue, green")
    return root


def file(root, *folders, name="data.json"):
    (root / name).write_text(json.dumps({"folders": folders}))
    return str(root / name)


def seen(monkeypatch):
    """Of every picture of every batch: its name, its latents' sides, the crop it was told, and its caption."""
    found, batch, caption = [], Studio.batch, Studio.caption
    captions = []

    def noted_caption(studio, index, choices):
        captions.append(caption(studio, index, choices))
        return captions[-1]

    def noted(studio, indices, choices):
        captions.clear()
        made = batch(studio, indices, choices)
        for index, text, ids in zip(indices, captions, made.time_ids.tolist(), strict=True):
            found.append((studio.everything.names[index], tuple(made.latents.shape[2:]), tuple(ids[4:]), text))
        return made

    monkeypatch.setattr(Studio, "batch", noted)
    monkeypatch.setattr(Studio, "caption", noted_caption)
    return found


def test_what_a_folder_says_reaches_the_steps(root, tmp_path, monkeypatch):
    style = {"path": "style", "random_flip": True, "keep_tokens": 1, "shuffle_caption": True, "repeats": 2}
    portraits = {"path": "portraits", "loss_weight": 0.5, "resolution": 64, "caption_prefix": "a portrait of"}
    data, events = file(root, style, portraits, UNSEEN), []
    config = small(tmp_path / "run", train_data_dir=data, max_train_steps=4, debug_loss=True, heldout_steps=2)
    assert count_pictures(config) == (7, 2, 8, 7)
    found = seen(monkeypatch)
    train(config, events.append)
    (start,) = [event for event in events if event["event"] == "start"]
    assert (start["pictures"], start["heldout"]) == (5, 2)
    told = "3 folders: style 3 × 2, portraits 2 (loss weight 0.5, 64 px), held out unseen 2."
    assert any(told in str(event.get("message")) for event in events)
    trained = [row for row in found if not row[0].startswith("unseen")]
    assert sorted(row[0] for row in trained) == sorted(
        [f"style/{n}.png" for n in (0, 1, 2)] * 2 + [f"portraits/{n}.png" for n in (3, 4)]
    )  # one epoch
    sides = {row[0].split("/")[0]: (row[1], row[2]) for row in found}
    scale = 32 // sides["style"][0][0]
    assert sides == {
        "style": ((32 // scale,) * 2, (32, 32)),
        "portraits": ((64 // scale,) * 2, (64, 64)),
        "unseen": ((32 // scale,) * 2, (32, 32)),
    }
    words = {row[3] for row in found if row[0].startswith("style")}
    assert all(text.startswith("card ") and sorted(text.split(", ")[1:]) == ["blue", "green", "red"] for text in words)
    assert len(words) > 3  # shuffled
    assert {row[3] for row in found if row[0] == "portraits/3.png"} == {"a portrait of card 3, red, blue, green"}
    assert {row[3] for row in found if row[0] == "unseen/5.png"} == {"card 5, red, blue, green"}
    measured = [event for event in events if event["event"] == "heldout"]
    assert [event["step"] for event in measured] == [0, 2, 4] and {event["pictures"] for event in measured} == {2}
    losses = [event["losses"] for event in events if event["event"] == "debug"]
    again = []
    data = file(root, style, {**portraits, "loss_weight": 1.0}, UNSEEN)
    train(small(tmp_path / "plain", train_data_dir=data, max_train_steps=4, debug_loss=True), again.append)
    first = next(event["losses"] for event in again if event["event"] == "debug")
    half = {name: loss * (0.5 if name.startswith("portraits") else 1.0) for name, loss in first.items()}
    assert losses[0] == half


def test_a_file_that_says_nothing_trains_as_its_folder_does(root, tmp_path):
    """One folder, weight 1: the same LoRA bit for bit."""
    alone = small(tmp_path / "alone", train_data_dir=str(root / "style"), max_train_steps=3)
    data = file(root, {"path": "style", "loss_weight": 1, "repeats": 1})
    listed = alone.replace(output_dir=str(tmp_path / "listed"), train_data_dir=data)
    assert_same(train(alone).folder, train(listed).folder)


def test_masks_flips_and_class_pictures_beside(root, tmp_path):
    """Masks of mirrored and other folders, held-out ones, and the pictures of a class, in one run; live ones agree."""
    for number in (0, 3):
        place = root / ("style" if number == 0 else "portraits")
        with Image.open(place / f"{number}.png") as picture:
            mask = Image.linear_gradient("L").resize(picture.size)
        mask.save(place / f"{number}-masklabel.png")
    (tmp_path / "class").mkdir()
    for number in (5, 6):
        shutil.copy(home()[0] / "pictures" / f"{number}.png", tmp_path / "class")
    prior = {"with_prior_preservation": True, "class_data_dir": str(tmp_path / "class"), "class_prompt": "a card"}
    folders = {"path": "style", "random_flip": True, "repeats": 2}, {"path": "portraits", "loss_weight": 0.5}
    data = file(root, *folders, UNSEEN)
    config = small(tmp_path, train_data_dir=data, masked_loss=True, max_train_steps=2, num_class_images=2, **prior)
    losses = []
    for folder, cached in (("cached", True), ("live", False)):
        events = []
        train(config.replace(output_dir=str(tmp_path / folder), cache_latents=cached, debug_loss=True), events.append)
        losses.append([event["losses"] for event in events if event["event"] == "debug"])
    assert len(losses[0]) == 4  # two of its own, and two of the class
    for ours, theirs in zip(*losses, strict=True):
        assert ours.keys() == theirs.keys() and list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-3)


def test_a_resumed_run_has_the_same_settings_of_folders(root, tmp_path):
    data = file(root, {"path": "style"}, {"path": "portraits", "keep_tokens": 0})
    run = small(tmp_path / "run", train_data_dir=data, max_train_steps=3)
    train(run)
    again = run.replace(resume_from_checkpoint="checkpoint-2")
    for changed in ({"random_flip": True}, {"held_out": True}):
        file(root, {"path": "style"}, {"path": "portraits", "keep_tokens": 0, **changed})
        with pytest.raises(ConfigError, match="checkpoint-2 was trained on other pictures, captions or settings of"):
            train(again)
    file(root, {"path": "style", "name": "renamed"}, {"path": "portraits", "keep_tokens": 0})
    train(again)


def test_fingerprints_and_estimates(root, tmp_path):
    plain = small(tmp_path, train_data_dir=str(root / "style"))
    other = plain.replace(train_data_dir=file(root, "style"))
    told = fingerprint(open_dataset(other))
    file(root, {"path": "style", "name": "another"})
    assert told == fingerprint(open_dataset(other))
    file(root, {"path": "style", "keep_tokens": 1})
    assert told != fingerprint(open_dataset(other))
    folders = {"path": "style", "resolution": 64, "random_flip": True}, {"path": "portraits", "shuffle_caption": True}
    config = plain.replace(train_data_dir=file(root, *folders))
    need, _ = needed(config, of(config))
    most = need.costliest
    assert (most.resolution, most.random_flip, most.shuffle_caption) == (64, True, True)
    assert need.embeddings == 0 and need.entries == 5
    one, _ = needed(plain, of(plain))
    assert need.latents == one.latents // 3 * 5 * 2 * 4
