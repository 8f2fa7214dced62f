"""The search space: what it takes, what it refuses, and what it draws; and the budget of a sweep."""

import math

import pytest

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.sweeps.budget import seconds
from sdxl_nb.sweeps.space import Choices, Range, Space
from sdxl_nb.system.errors import ConfigError

CONFIG = TrainConfig(train_data_dir="pictures", seed=1)


def space(**parameters):
    return Space.of(CONFIG, parameters)


def test_lists_are_choices_and_mappings_ranges():
    made = space(rank=[8, 16], learning_rate={"min": 1e-5, "max": 1e-3, "log": True}, lora_dropout=Range(0, 0.5))
    assert made.parameters["rank"] == Choices((8, 16)) and not made.is_finite
    assert made.parameters["learning_rate"] == Range(1e-5, 1e-3, log=True)
    assert space(rank={"min": 4, "max": 64}).parameters["rank"] == Range(4, 64, whole=True)
    assert Space.of(CONFIG, made).parameters == made.parameters == Space.of(CONFIG, made.as_json()).parameters
    assert space(rank=range(4, 7)).grid() == [{"rank": 4}, {"rank": 5}, {"rank": 6}]


def test_a_grid_has_every_combination_the_last_changing_fastest():
    made = space(rank=[8, 16], target_modules=["attention", ["to_q", "to_k"]])
    assert made.grid() == [
        {"rank": 8, "target_modules": "attention"},
        {"rank": 8, "target_modules": ["to_q", "to_k"]},
        {"rank": 16, "target_modules": "attention"},
        {"rank": 16, "target_modules": ["to_q", "to_k"]},
    ]


@pytest.mark.parametrize(
    ("one", "shares", "expected"),
    [
        (Range(0, 1), (0, 0.25, 0.999999), [0, 0.25, 1.0]),
        (Range(1e-5, 1e-3, log=True), (0, 0.5), [1e-5, 1e-4]),
        (Range(4, 7, whole=True), (0, 0.26, 0.5, 0.999), [4, 5, 6, 7]),
        (Range(1, 3, log=True, whole=True), (0, 0.49, 0.51, 0.999), [1, 1, 2, 3]),
        (Choices(("a", "b", "c")), (0, 0.34, 0.999), ["a", "b", "c"]),
    ],
)
def test_a_share_of_a_range_is_a_number_of_it(one, shares, expected):
    assert [one.at(share) for share in shares] == pytest.approx(expected)


def test_a_random_trial_is_a_function_of_seed_and_number():
    made = space(rank={"min": 1, "max": 64, "log": True}, learning_rate={"min": 1e-6, "max": 1e-2, "log": True})
    drawn = [made.random(3, number) for number in range(200)]
    assert made.random(3, 150) == drawn[150] != made.random(4, 150)
    assert {type(values["rank"]) for values in drawn} == {int}
    below = sum(values["learning_rate"] < 1e-4 for values in drawn)
    assert 70 < below < 130  # half of the orders of magnitude


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rnk": [1]}, "unknown setting rnk in the search space: did you mean rank"),
        ({"output_dir": ["a"]}, "holds output_dir, which changes nothing that is learnt"),
        ({"rank": []}, "the values of rank in the search space must be different ones"),
        ({"rank": [8, 8]}, "must be different ones"),
        ({"rank": 8}, "rank must be a list of values or a range such as"),
        ({"optimizer": "adamw"}, "optimizer must be a list of values"),
        ({"rank": [0]}, "cannot have rank = 0: rank must be at least 1, not 0"),
        ({"learning_rate": {"min": 1e-5, "max": 100}}, "learning_rate = 100: learning_rate must be at most 10"),
        ({"learning_rate": {"min": 0, "max": 1, "log": True}}, "must begin above 0"),
        ({"learning_rate": {"min": 1, "max": 0.1}}, "must rise: 1 is not below 0.1"),
        ({"learning_rate": {"min": 0.1, "mux": 1}}, "unknown mux: did you mean max"),
        ({"learning_rate": {"min": 0.1}}, "the range of learning_rate must be such as"),
        ({"learning_rate": {"min": "1", "max": 2}}, "must lie between finite numbers, not at '1'"),
        ({"rank": {"min": 1.5, "max": 2}}, r"must lie between whole numbers, not at 1\.5"),
        ({"optimizer": {"min": 1, "max": 2}}, "optimizer takes no range, for it is no number"),
        ({}, "must map settings to values"),
    ],
)  # fmt: skip
def test_what_the_configuration_does_not_take_is_refused(parameters, message):
    with pytest.raises(ConfigError, match=message):
        space(**parameters)


def test_a_grid_of_ranges_or_without_end_is_refused():
    with pytest.raises(ConfigError, match="a grid needs values for rank, not a range"):
        space(rank={"min": 1, "max": 2}).grid()
    with pytest.raises(ConfigError, match="more than 10000 combinations"):
        space(rank=range(1, 1001), seed=range(11)).grid()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("2 h", 7200), ("90 min", 5400), ("1 h 30 min", 5400), ("1.5h", 5400), ("2 hours", 7200), ("45s", 45), (30, 30)],
)
def test_a_budget_is_a_time(budget, expected):
    assert seconds(budget) == expected and seconds(None) == math.inf


@pytest.mark.parametrize("budget", ["2", "two hours", "", "2 parsecs", 0, -1, True, math.inf, "0 h"])
def test_what_is_no_time_is_refused(budget):
    with pytest.raises(ConfigError, match="budget must be a time such as"):
        seconds(budget)
