"""Steps and pictures as they are foretold, beside those that a run then takes and draws."""

import shutil

import pytest
from small_runs import home, small, train

from sdxl_nb.training.disk import needed
from sdxl_nb.training.epochs import count_pictures, steps_per_epoch, validation_pictures

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


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (7, 0, 7, 7)),
        ({"validation_split": 0.3}, (7, 2, 5, 7)),
        ({"validation_split": 0.01}, (7, 1, 6, 7)),
        ({"folders": True}, (14, 0, 28, 7)),
        ({"folders": True, "folder_repeats": False, "validation_split": 0.5}, (14, 7, 7, 7)),
    ],
)
def test_a_run_takes_the_steps_and_draws_the_pictures_that_were_counted(changes, counts, folders, tmp_path):
    changes = dict(changes)
    data = folders if changes.pop("folders", False) else {}
    often = {"max_train_steps": None, "num_train_epochs": 3, "validation_epochs": 2}
    config = small(tmp_path / "run", **data, **changes, **DRAWN, **often)
    assert count_pictures(config) == counts
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
