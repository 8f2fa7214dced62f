"""The bootstrap by hand: what is certain has no width, and two prompts make the distribution one can count."""

import numpy as np
import pytest

from sdxl_nb.scoring.intervals import Score, number, resampled


def test_a_single_value_has_no_interval():
    assert Score.of([[0.25]]) == Score(0.25) and str(Score.of([[0.25]])) == "0.250"


def test_equal_values_have_an_interval_without_width():
    assert Score.of([[2.0, 2.0], [2.0]]) == Score(2.0, 2.0, 2.0)


def test_the_mean_is_over_all_pictures_though_prompts_have_unequally_many():
    assert Score.of([[1.0, 2.0, 3.0], [10.0]]).mean == 4.0


def test_two_prompts_of_equal_seeds_are_resampled_as_two_coins():
    means = resampled([[0.0, 0.0], [1.0, 1.0]])  # 0 and 1 each a quarter of the time, a half else
    counts = {value: np.mean(means == value) for value in (0.0, 0.5, 1.0)}
    assert set(means) == {0.0, 0.5, 1.0} and counts[0.5] == pytest.approx(0.5, abs=0.04)
    assert counts[0.0] == pytest.approx(0.25, abs=0.04) and Score.of([[0.0, 0.0], [1.0, 1.0]]) == Score(0.5, 0.0, 1.0)


def test_seeds_vary_within_a_prompt():
    means = resampled([[0.0, 1.0]])
    assert np.mean(means == 0.5) == pytest.approx(0.5, abs=0.04)


def test_the_interval_is_that_of_the_normal_distribution_where_there_are_many():
    values = np.random.default_rng(1).normal(3, 1, (400, 1)).tolist()
    score = Score.of(values)
    half = 1.96 * np.std(values) / 20
    assert score.low == pytest.approx(score.mean - half, abs=0.02)
    assert score.high == pytest.approx(score.mean + half, abs=0.02)
    assert Score.of(values) == score  # always the same random numbers


def test_numbers_have_four_digits_at_most():
    assert [number(value) for value in (0.12345, 12.347, -0.5)] == ["0.123", "12.35", "-0.500"]
