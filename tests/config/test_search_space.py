"""What a search may change: ranges and lists held against the fields of TrainConfig."""

import pytest

from sdxl_nb.config.search_space import Range, SearchSpace
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

CONFIG = TrainConfig(seed=1)


def test_numbers_get_the_kind_of_their_field():
    space = SearchSpace(
        {"rank": Range(2.0, 16), "learning_rate": Range(1e-5, 1, "log"), "use_dora": [True, False]}, CONFIG
    )
    rank, rate = space.fields["rank"], space.fields["learning_rate"]
    assert (rank.low, rank.high, rank.whole) == (2, 16, True) and isinstance(rank.low, int)
    assert (rate.low, rate.high, rate.whole) == (1e-5, 1.0, False) and isinstance(rate.high, float)
    assert space.ends("use_dora") == [True, False]


def test_a_grid_is_every_combination_the_last_field_first():
    space = SearchSpace({"rank": [4, 8], "learning_rate": [1e-4, 1e-3]}, CONFIG)
    assert [tuple(values.values()) for values in space.grid()] == [(4, 1e-4), (4, 1e-3), (8, 1e-4), (8, 1e-3)]
    with pytest.raises(
        ConfigError, match=r"^a grid takes lists of values, and rank is a range: give some of it, as \[4, 8\]"
    ):
        list(SearchSpace({"rank": Range(4, 8)}, CONFIG).grid())


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({}, "the search space is empty"),
        ({"lerning_rate": [1e-4]}, "unknown field lerning_rate in the search space: did you mean learning_rate?"),
        ({"output_dir": ["a", "b"]}, "output_dir makes no LoRA better"),
        ({"rank": [4, 4]}, "rank has 4 twice in the search space"),
        ({"rank": [0, 4]}, "rank cannot be 0 in this search: rank must be at least 1"),
        ({"rank": "4"}, "rank must have a Range or a list of values to search over, not '4'"),
        ({"rank": []}, "rank must have a Range or a list of values to search over, not []"),
        ({"rank": Range(1.5, 4)}, "rank is a whole number: its range must go from one to another"),
        ({"learning_rate": Range(-1, 1)}, "learning_rate cannot be -1.0 in this search: learning_rate must be"),
        ({"lr_scheduler": Range(1, 2)}, "lr_scheduler is no number, so that it has no range"),
        ({"lr_scheduler": ["cosine", "cosin"]}, "lr_scheduler cannot be 'cosin' in this search: "),
    ],
)
def test_what_no_search_takes(space, sentence):
    with pytest.raises(ConfigError) as refused:
        SearchSpace(space, CONFIG)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("low", "high", "scale", "sentence"),
    [
        (2, 1, "linear", "a range must begin below its end, not go from 2 to 1"),
        (1, 1, "linear", "a range must begin below its end, not go from 1 to 1"),
        (0, 1, "log", "a range on a log scale must begin above 0, not at 0"),
        (1, 2, "lin", "the scale of a range must be linear or log, not 'lin'"),
        (float("nan"), 2, "linear", "a range goes from one number to another, not from nan to 2"),
        (True, 2, "linear", "a range goes from one number to another, not from True to 2"),
        ("1", 2, "linear", "a range goes from one number to another, not from '1' to 2"),
    ],
)
def test_what_is_no_range(low, high, scale, sentence):
    with pytest.raises(ConfigError) as refused:
        Range(low, high, scale)
    assert str(refused.value) == sentence
