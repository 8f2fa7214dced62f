"""Which timesteps are trained: their distributions over every draw, and strata over every step."""

import numpy as np
import pytest
import torch
from small_runs import assert_goes_on

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.data.sampling import Choices, strata
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.noise.timesteps import shares as shares_of
from sdxl_nb.training.noise.timesteps import spread, stratified

BETA = torch.distributions.Beta(torch.tensor(2.0, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64))


def taken(count=1000, **changes):
    return spread(TrainConfig(seed=0, **changes), count)


def shares(values, bounds=(0, 250, 500, 750, 1000)):
    """How much of it lies between the bounds."""
    return (np.histogram(values, bounds)[0] / len(values)).tolist()


def test_every_timestep_as_it_is_drawn_without_a_wish():
    assert taken() is None and taken(timestep_distribution="stratified") is None and taken(max_timestep=1000) is None


def test_a_range():
    assert taken(min_timestep=200, max_timestep=400)[[0, 4, 5, 999]].tolist() == [200, 200, 201, 399]
    assert np.bincount(taken(min_timestep=990)).tolist() == [0] * 990 + [100] * 10
    low = taken(timestep_distribution="logit_normal", max_timestep=500)
    assert low.max() < 500 and shares(low)[2:] == [0, 0]


def test_shares_are_those_of_the_timesteps_that_positions_take():
    config = TrainConfig(seed=3, timestep_distribution="logit_normal", min_timestep=100, max_timestep=900)
    table = spread(config, 1000)
    drawn = [table[Choices.at(3, n, timesteps=1000, empty_share=0).timestep] for n in range(4000)]
    seen, said = np.histogram(drawn, 10, (0, 1000))[0] / 4000, shares_of(config, 1000, 10)
    assert np.abs(seen - said).max() < 0.03 and said.sum() == pytest.approx(1) and said[0] == said[9] == 0
    assert shares_of(TrainConfig(seed=3)).tolist() == [0.04] * 25


def test_logit_normal_takes_the_middle():
    drawn = taken(timestep_distribution="logit_normal")
    assert (np.diff(drawn) >= 0).all() and drawn.min() >= 0 and drawn.max() < 1000
    assert sum(shares(drawn)[1:3]) == pytest.approx(0.728, abs=0.002)  # P(|normal| < log 3)
    assert drawn[499] in (499, 500) and (999 - drawn[::-1] == drawn).all()
    noisy = taken(timestep_distribution="logit_normal", timestep_shape=[1.0, 0.5])
    assert noisy[499] / 1000 == pytest.approx(1 / (1 + np.exp(-1)), abs=2e-3)  # its median


def test_beta_is_the_beta_distribution():
    drawn = taken(timestep_distribution="beta", timestep_shape=[2.0, 5.0])
    points = torch.linspace(0, 1, 4001, dtype=torch.float64)[1:-1]
    mass = torch.cumsum(BETA.log_prob(points).exp(), 0) / 4000
    for share in (0.1, 0.5, 0.9):  # numeric quantiles of torch's own density
        wanted = points[(mass < share).sum()].item()
        assert drawn[int(share * 1000)] / 1000 == pytest.approx(wanted, abs=3e-3)
    assert (taken(timestep_distribution="beta", timestep_shape=[1, 1]) == np.arange(1000)).all()


def test_sigmoid_takes_the_noisy_ones():
    up, down = (taken(timestep_distribution="sigmoid", timestep_shape=[slope, 0.5]) for slope in (10, -10))
    # integral of 1 / (1 + exp(-10 (t - 1/2))) up to 1/2, of 1/2 over all: log(2 / (1 + exp(-5))) / 5
    clear = np.log(2 / (1 + np.exp(-5))) / 10 / 0.5
    assert sum(shares(up)[:2]) == pytest.approx(clear, abs=2e-3) and sum(shares(down)[2:]) == pytest.approx(
        clear, abs=2e-3
    )
    assert (taken(timestep_distribution="sigmoid", timestep_shape=[0, 0]) == np.arange(1000)).all()


def test_strata_take_each_part_once_whatever_the_process():
    for positions in (range(8), range(24, 32), range(40, 43)):
        parts = strata(positions, 5)
        assert sorted(parts) == list(range(len(positions)))
        drawn = [Choices.at(5, p, timesteps=1000, empty_share=0).timestep for p in positions]
        found = sorted(
            stratified(t, part, len(positions), 1000) * len(positions) // 1000
            for t, part in zip(drawn, parts, strict=True)
        )
        assert found == list(range(len(positions)))
    assert strata(range(8), 5) != strata(range(8, 16), 5) and strata(range(8), 5) != strata(range(8), 6)
    assert stratified(0, 0, 4, 1000) == 0 and stratified(999, 3, 4, 1000) == 999


def test_the_further_draws_change_no_other():
    plain, other = (Choices.at(5, 9, timesteps=1000, empty_share=0) for _ in range(2))
    other.further().standard_normal(9)
    assert (plain.noise((2, 2)) == other.noise((2, 2))).all()
    assert plain.further().random() == other.further().random() != plain.generator.random()


def test_wrong_settings_are_refused():
    for changes, said in (
        ({"min_timestep": 500, "max_timestep": 500}, "max_timestep 500 leaves no timestep from 500 on: raise it"),
        ({"max_timestep": 0}, "max_timestep must be at least 1, not 0"),
        ({"timestep_shape": [1, 2]}, "timestep_shape is nothing for timestep_distribution uniform: drop it"),
        ({"timestep_distribution": "beta", "timestep_shape": [1]}, "timestep_shape takes two numbers, not 1"),
        ({"timestep_distribution": "beta", "timestep_shape": "0 1"}, "timestep_shape of beta must be greater than 0"),
        ({"timestep_distribution": "gamma"}, "timestep_distribution must be uniform, logit_normal, beta, sigmoid or"),
        ({"multires_noise_discount": 0.5}, "multires_noise_discount needs multires_noise_iterations: give it too"),
        ({"p2_gamma": 1, "snr_gamma": 5}, "snr_gamma and p2_gamma are two loss weights: drop one of them"),
        ({"loss_type": "l1", "huber_c": 0.2}, "huber_c needs loss_type huber or smooth_l1"),
    ):
        with pytest.raises(ConfigError, match=said):
            TrainConfig(seed=0, **changes)


EVERYTHING = {
    "timestep_distribution": "stratified",
    "min_timestep": 100,
    "multires_noise_iterations": 6,
    "input_perturbation": 0.1,
    "noise_offset": 0.05,
    "adaptive_noise_scale": 0.05,
    "loss_type": "log_cosh",
    "soft_snr_gamma": 4.0,
}


def test_a_run_goes_on_exactly(tmp_path):
    assert_goes_on(tmp_path, **EVERYTHING)


@pytest.mark.soak
@pytest.mark.parametrize(
    "changes",
    [
        *({name: value} for name, value in EVERYTHING.items()),
        {"timestep_distribution": "beta"},
        {"timestep_distribution": "sigmoid"},
        {"timestep_distribution": "logit_normal", "timestep_shape": [0.5, 0.8]},
        {"loss_type": "l1", "p2_gamma": 1.0},
    ],
)
def test_each_goes_on_exactly(tmp_path, changes):
    assert_goes_on(tmp_path, **changes)
