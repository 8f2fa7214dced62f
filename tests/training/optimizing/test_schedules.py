"""The course of the learning rate: by hand, and as diffusers and transformers compute it."""

import pytest
import torch
from small_runs import assert_goes_on, assert_same, small, train

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.optimizing.schedules import learning_rates, remarks

DIFFUSERS = ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


def config(**changes):
    return TrainConfig(seed=0, **changes)


def rates(steps, upto=None, **changes):
    rate = learning_rates(config(**{"learning_rate": 1.0} | changes), steps, 1)
    return [rate(step) for step in range(upto or steps)]


def an_optimizer(rate=0.5):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)  # polynomial ends at a rate of its own


@pytest.mark.parametrize("name", DIFFUSERS)
@pytest.mark.parametrize("cycles, power", [(1, 1.0), (3, 2.5)])
def test_schedules_are_diffusers(name, cycles, power):
    from diffusers.optimization import get_scheduler

    options = {"num_warmup_steps": 3, "num_training_steps": 11, "num_cycles": cycles, "power": power}
    theirs = get_scheduler(name, an_optimizer(), **options).lr_lambdas[0]
    ours = rates(
        11,
        14,
        lr_scheduler=name,
        lr_warmup_steps=3,
        learning_rate=0.5,
        lr_num_cycles=cycles,
        lr_power=power,
    )
    assert ours == pytest.approx([0.5 * theirs(step) for step in range(14)], abs=1e-12)


def test_the_lowest_rate_and_the_stable_phase_are_transformers():
    from transformers import get_cosine_with_min_lr_schedule_with_warmup, get_wsd_schedule

    theirs = get_cosine_with_min_lr_schedule_with_warmup(an_optimizer(), 3, 11, min_lr_rate=0.25).lr_lambdas[0]
    ours = rates(11, 14, lr_scheduler="cosine", lr_warmup_steps=3, lr_min_ratio=0.25)
    assert ours[:12] == pytest.approx([theirs(step) for step in range(12)], abs=1e-12)

    theirs = get_wsd_schedule(an_optimizer(), 2, 5, num_training_steps=20, min_lr_ratio=0.0).lr_lambdas[0]
    ours = rates(20, 23, lr_scheduler="warmup_stable_decay", lr_warmup_steps=2, lr_decay_ratio=0.25)
    assert ours == pytest.approx([theirs(step) for step in range(23)], abs=1e-12)
    theirs = get_wsd_schedule(an_optimizer(), 0, 5, num_training_steps=20, min_lr_ratio=0.1).lr_lambdas[0]
    lowest = {"lr_warmup_steps": 0, "lr_decay_ratio": 0.25, "lr_min_ratio": 0.1}
    ours = rates(20, 23, lr_scheduler="warmup_stable_decay", **lowest)
    assert ours == pytest.approx([theirs(step) for step in range(23)], abs=1e-12)


def test_rex_and_a_polynomial_to_a_share_by_hand():
    rex = rates(4, 6, lr_scheduler="rex", lr_warmup_steps=0)
    assert rex == pytest.approx([1, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625, 0, 0])  # (1 - p) / (1 - p / 2)
    square = rates(4, 6, lr_scheduler="polynomial", lr_warmup_steps=0, lr_power=2.0, lr_min_ratio=0.2)
    assert square == pytest.approx([1, 0.2 + 0.8 * 0.5625, 0.4, 0.25, 0.2, 0.2])


@pytest.mark.parametrize(
    "schedule, wanted",
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("constant_with_warmup", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, 0.8535534, 0.5, 0.1464466]),
    ],
)
def test_schedules_by_optimizer_step(schedule, wanted):
    assert rates(6, lr_scheduler=schedule, lr_warmup_steps=2) == pytest.approx(wanted)
    share = {"lr_warmup_ratio": 0.3, "lr_warmup_steps": 500}  # 1.8 of 6 steps: 2, as transformers' Trainer counts
    assert rates(6, lr_scheduler=schedule, **share) == pytest.approx(wanted)


def test_scaled_learning_rate():
    scaled = config(scale_lr=True, learning_rate=1e-4, train_batch_size=2, gradient_accumulation_steps=3)
    assert learning_rates(scaled, 10, 4)(0) == pytest.approx(24e-4)


def test_what_makes_no_sense_is_said_and_not_refused():
    assert remarks(config(), 10) == []
    assert remarks(config(lr_scheduler="cosine", lr_warmup_steps=2, lr_min_ratio=0.1), 10) == []
    said = remarks(config(lr_scheduler="cosine", lr_warmup_ratio=0.9999), 10)
    assert [line.split(":")[0] for line in said] == [
        "lr_warmup_ratio 0.9999 is no less than the 10 steps of this run, so the learning rate never reaches "
        "learning_rate"
    ]
    changes = {"lr_num_cycles": 3, "lr_power": 2.0, "lr_min_ratio": 0.1, "lr_decay_ratio": 0.3, "lr_warmup_ratio": 0.1}
    assert [line.split()[0] for line in remarks(config(**changes), 10)] == [
        "lr_num_cycles",
        "lr_power",
        "lr_decay_ratio",
        "lr_min_ratio",
        "lr_warmup_ratio",
    ]
    assert "never restarts" in remarks(config(lr_scheduler="cosine_with_restarts", lr_warmup_steps=0), 10)[0]
    restarts = {"lr_scheduler": "cosine_with_restarts", "lr_warmup_steps": 2, "lr_num_cycles": 4}
    assert remarks(config(**restarts), 10) == []
    assert remarks(config(**restarts), 9) == [
        "lr_num_cycles 4 leaves its cycles no two steps each of the 7 after warm-up, so the learning rate jumps about: "
        "lower it."
    ]
    assert "constant_with_warmup has it" in remarks(config(lr_warmup_steps=100), 200)[0]
    assert remarks(config(lr_warmup_steps=0), 10) == []


def test_wrong_numbers_are_refused():
    for changes, said in (
        ({"lr_num_cycles": 0}, "lr_num_cycles must be at least 1, not 0"),
        ({"lr_power": 0}, "lr_power must be greater than 0, not 0"),
        ({"lr_min_ratio": 1.1}, "lr_min_ratio must be at most 1, not 1.1"),
        ({"lr_warmup_ratio": 1}, "lr_warmup_ratio must be less than 1, not 1"),
        ({"lr_decay_ratio": -0.1}, "lr_decay_ratio must be at least 0, not -0.1"),
        ({"max_grad_norm": -1}, "max_grad_norm must be at least 0, not -1"),
    ):
        with pytest.raises(ConfigError, match=said):
            config(**changes)


def test_clipping_can_be_switched_off(tmp_path):
    """A norm that no gradient reaches never scales one; 0 is the same weights."""
    free = train(small(tmp_path / "free", max_grad_norm=0, max_train_steps=2))
    assert_same(free.folder, train(small(tmp_path / "high", max_grad_norm=1e9, max_train_steps=2)).folder)


def test_a_schedule_goes_on_where_it_was(tmp_path):
    changes = {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 2, "lr_warmup_ratio": 0.2, "lr_min_ratio": 0.1}
    assert_goes_on(tmp_path, **changes)
