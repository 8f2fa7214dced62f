"""Steps and pictures as they are foretold, beside those that a run then takes and draws."""

import math
import shutil

import pytest
from small_runs import home, small, train

from sdxl_nb.config import presets
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.disk import needed
from sdxl_nb.training.epochs import (
    count_pictures,
    drawing_share,
    looked_at_every,
    looks_in,
    measured_every,
    most_measurements,
    passes,
    steps_per_epoch,
    validation_pictures,
)

pytestmark = pytest.mark.slow

DRAWN = {"validation_prompt": ["a", "b"], "num_validation_images": 1, "validation_inference_steps": 1}


@pytest.fixture
def folders(tmp_path):
    """The seven pictures twice, seen three times and once an epoch, with captions of their own."""
    for name in ("3_card", "1_more"):
        shutil.copytree(home()[0] / "pictures", tmp_path / "pictures" / name)
    for path in (tmp_path / "pictures" / "1_more").glob("*.png"):
        path.write_bytes(path.read_bytes() + b" ")  # no copies: those are held out together
    return {"train_data_dir": str(tmp_path / "pictures")}


COUNTED = {
    "all": ({}, (7, 0, 7, 7)),
    "a third held out": ({"validation_split": 0.3}, (7, 2, 5, 7)),
    "one held out": ({"validation_split": 0.01}, (7, 1, 6, 7)),
    "folders": ({"folders": True}, (14, 0, 28, 7)),
    "half of folders": ({"folders": True, "folder_repeats": False, "validation_split": 0.5}, (14, 7, 7, 7)),
}
CORNERS = ("a third held out", "half of folders")
INNER = [pytest.param(name, marks=pytest.mark.soak) for name in COUNTED if name not in CORNERS]


def counted(name, folders, tmp_path):
    """A run of three epochs, and how many pictures of each sort it is to have."""
    changes, counts = COUNTED[name]
    data = folders if changes.get("folders") else {}
    often = {"max_train_steps": None, "num_train_epochs": 3, "validation_epochs": 2, "checkpointing_steps": 1000}
    settings = {field: value for field, value in changes.items() if field != "folders"}
    return small(tmp_path / "run", **data, **settings, **DRAWN, **often), counts


@pytest.mark.parametrize("name", COUNTED)
def test_pictures_are_counted_without_training(name, folders, tmp_path):
    config, counts = counted(name, folders, tmp_path)
    assert count_pictures(config) == counts


@pytest.mark.parametrize("name", [*CORNERS, *INNER])
def test_a_run_takes_the_steps_and_draws_the_pictures_that_were_counted(name, folders, tmp_path):
    config, counts = counted(name, folders, tmp_path)
    an_epoch = steps_per_epoch(config, counts[2])
    run = train(config)
    assert run.steps == 3 * an_epoch
    assert sum(map(len, run.pictures().values())) == validation_pictures(config, 3 * an_epoch, an_epoch) == 6


def test_of_different_repeats_the_held_out_share_is_the_mean(folders, tmp_path):
    config = small(tmp_path / "run", **folders, validation_split=0.5)
    assert count_pictures(config) == (14, 7, 14, 7)


def test_the_disk_is_reckoned_with_the_same_counts(folders, tmp_path):
    from sdxl_nb.models.architectures import of

    config = small(tmp_path / "run", **folders, validation_split=0.5)
    assert needed(config, of(config))[0].entries == count_pictures(config).entries


def test_without_epochs_pictures_held_out_losses_and_checkpoints_are_of_the_same_steps(tmp_path):
    config = small(tmp_path / "run", **DRAWN, validation_epochs=None, validation_split=0.2, max_train_steps=5)
    run = train(config)
    assert list(run.pictures()) == [0, 2, 4, 5] and run.heldout()[0] == [0, 2, 4, 5]
    assert [path.name for path in sorted(run.folder.glob("checkpoint-*"))] == [f"checkpoint-{n}" for n in (2, 4, 5)]
    assert looked_at_every(config, 5, 3) == 2 and validation_pictures(config, 5, 3) == 8
    (said,) = (event["message"] for event in run.events("warning") if "of this run's work" in event["message"])
    assert said.startswith("8 validation pictures are about 35% of this run's work")  # 16 passes, of 16 + 5 * 2 * 3


def test_pictures_come_by_steps_and_by_shares_of_the_run(tmp_path):
    run = train(small(tmp_path / "steps", **DRAWN, validation_steps=3, max_train_steps=7))
    assert list(run.pictures()) == [0, 3, 6, 7] and not run.config.validation_share
    config = small(tmp_path / "share", **DRAWN, validation_share=0.5, max_train_steps=7, validation_split=0.2)
    run = train(config)
    assert list(run.pictures()) == run.heldout()[0] == [0, 4, 7] and validation_pictures(config, 7, 3) == 6


def test_a_share_is_never_drawn_more_often_than_it_says():
    shares = (0.001, 0.07, 0.1, 0.15, 0.3, 0.35, 0.5, 0.99, 1.0)
    for share in shares:
        config = TrainConfig(seed=0, validation_share=share, validation_prompt="a")
        for steps in (1, 2, 3, 4, 10, 30, 100, 450, 2400):
            assert looks_in(config, steps, 9) - 1 <= math.ceil(1 / share)
    assert looked_at_every(TrainConfig(seed=0, validation_share=0.07), 100, 9) == 7  # 0.07 x 100 is a little more
    with pytest.raises(ConfigError, match="validation_steps and validation_share both say when to draw: keep one"):
        TrainConfig(validation_share=0.5, validation_steps=2)


def test_held_out_losses_are_as_many_as_is_said_before_the_pictures_are_known():
    for changes in ({"heldout_steps": 7, "max_train_steps": 30}, {"validation_steps": 4, "max_train_steps": 30},
                    {"validation_share": 0.3}, {"validation_share": 0.1, "max_train_steps": 30},
                    {"validation_epochs": 2, "num_train_epochs": 5},
                    {"validation_epochs": None, "checkpointing_steps": 8, "max_train_steps": 30}):  # fmt: skip
        config = TrainConfig(seed=0, validation_split=0.1, **changes)
        for an_epoch in (1, 3, 100):
            steps = config.max_train_steps or config.num_train_epochs * an_epoch
            every = measured_every(config, steps, an_epoch)
            measured = len({0, steps, *range(0, steps, every)})
            exact = "validation_share" not in changes
            assert measured == most_measurements(config) if exact else measured <= most_measurements(config)
    for changes in ({"heldout_steps": 7}, {"validation_steps": 4}, {"max_train_steps": 9}):
        assert most_measurements(TrainConfig(seed=0, validation_split=0.1, **changes)) is None


def test_the_share_of_drawing_goes_by_the_size_of_each_picture():
    config = TrainConfig(seed=0, resolution=512, train_batch_size=1, validation_steps=10)
    lines = ["a --w 1024 --h 512 --s 10 --l 1", "b --s 5"]  # 10 passes of two squares, 5 of one and with guidance
    assert drawing_share(config.replace(sample_prompts=lines), 10, 99) == 2 * 30 / (2 * 30 + 10 * 3)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, 3),
        ({"gradient_checkpointing": True}, 4),
        ({"prior_without_pictures": True}, 3 + 1 + 3),
        ({"slider_positive": "a"}, 3 + 3),
        ({"slider_negative_dir": "n"}, 2 * 3),
        ({"slider_negative_dir": "n", "prior_without_pictures": True, "gradient_checkpointing": True}, 2 * (4 + 1 + 4)),
    ],
)
def test_passes_are_those_that_a_step_takes(changes, wanted):
    assert passes(TrainConfig(seed=0, **changes)) == wanted


def test_the_presets_draw_as_often_as_they_save_and_less_than_a_fifth_of_the_work():
    for name in presets.names():
        config = TrainConfig.preset(name, validation_prompt=["a", "b"])
        assert config.validation_epochs is None  # one rhythm, that of the checkpoints
        limit, saved = config.checkpoints_total_limit, -(-config.max_train_steps // config.checkpointing_steps)
        assert limit is None or limit >= saved
        assert drawing_share(config, config.max_train_steps, 3) < 0.2, name
