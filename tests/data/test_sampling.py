"""The order of pictures and every random choice: functions of (seed, position) and of nothing else."""

import numpy as np
import pytest

from sdxl_nb.data.sampling import Choices, Stream, order, share


def at(position, seed=3, empty_share=0.0):
    return Choices.at(seed, position, timesteps=1000, empty_share=empty_share)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
def test_every_picture_once_an_epoch_in_the_same_order_for_every_batch(batch):
    stream, single = Stream(7, batch, 3), Stream(7, 1, 3)
    for epoch in range(3):
        steps = range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch)
        seen = [i for step in steps for i in stream.pictures(stream.positions(step))]
        assert sorted(seen) == list(range(7))
        assert seen == [i for s in range(epoch * 7, epoch * 7 + 7) for i in single.pictures(single.positions(s))]
        assert {stream.epoch(step) for step in steps} == {epoch}


def test_steps_of_an_epoch():
    stream = Stream(7, 2, 0)
    assert stream.steps_per_epoch == 4
    assert [list(stream.positions(step)) for step in (0, 3, 4)] == [[0, 1], [6], [7, 8]]


def test_epochs_and_seeds_differ():
    orders = [order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(each) for each in orders}) == 4


def test_processes_share_a_step():
    assert [list(share(range(10, 17), rank, 3)) for rank in range(3)] == [[10, 11, 12], [13, 14, 15], [16]]
    assert [list(share(range(10, 12), rank, 3)) for rank in range(3)] == [[10], [11], []]


def test_choices_repeat_and_differ_between_positions_and_seeds():
    first, again = at(11), at(11)
    assert (first.u, first.v, first.flip, first.timestep) == (again.u, again.v, again.flip, again.timestep)
    assert np.array_equal(first.noise((4, 8, 8)), again.noise((4, 8, 8)))
    others = [at(12), at(11, seed=4)]
    assert len({first.u, *(other.u for other in others)}) == 3
    assert not np.array_equal(at(11).noise((9,)), at(12).noise((9,)))
    assert not np.array_equal(at(11).noise((9,)), np.random.Generator(np.random.Philox(key=[3, 11])).random(9))


def test_choices_are_spread_evenly():
    many = [at(position, empty_share=0.25) for position in range(4000)]
    u, v = np.array([c.u for c in many]), np.array([c.v for c in many])
    timesteps = np.array([c.timestep for c in many])
    assert abs(u.mean() - 0.5) < 0.02 and abs(v.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.05 and abs(np.corrcoef(u, timesteps)[0, 1]) < 0.05
    assert abs(np.mean([c.flip for c in many]) - 0.5) < 0.03
    assert abs(np.mean([c.empty_caption for c in many]) - 0.25) < 0.03
    assert timesteps.min() >= 0 and timesteps.max() <= 999 and abs(timesteps.mean() - 499.5) < 15
    assert not any(c.empty_caption for c in map(at, range(500)))
    assert all(at(position, empty_share=1.0).empty_caption for position in range(500))


def test_noise_is_standard_normal():
    noise = np.concatenate([at(position).noise((4, 16, 16)).ravel() for position in range(40)])
    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02 and abs((noise**4).mean() - 3) < 0.2


def test_noise_of_different_positions_is_independent():
    one, other = (np.concatenate([at(p).noise((1000,)) for p in range(a, a + 20)]) for a in (0, 1))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
