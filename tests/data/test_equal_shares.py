"""Every picture counts the same, whatever its bucket, the batch, repeats and processes: over 2,000 epochs."""

import numpy as np
import pytest

from sdxl_nb.data.sampling import Stream, share

draw = np.random.default_rng(16)
CASES = [([0] * 16 + [1] * 3 + [2] * 2, None, 4), ([0] * 8 + [1], None, 8)]
for _ in range(10):  # of 2 to 30 pictures in 1 to 5 buckets, some seen several times
    many = int(draw.integers(2, 31))
    kinds, times = draw.integers(0, draw.integers(1, 6), many), draw.integers(1, 4, many)
    CASES.append((kinds.tolist(), times.tolist() if draw.random() < 0.5 else None, int(draw.integers(1, 9))))


def seen(stream, processes, epoch):
    """The pictures of an epoch's steps, as several processes take them, and what each counts of its step's mean."""
    pictures, counts = [], []
    for step in range(epoch * stream.steps_per_epoch, (epoch + 1) * stream.steps_per_epoch):
        positions = stream.positions(step)
        for rank in range(processes):
            pictures += stream.pictures(share(positions, rank, processes))
        counts += [1 / len(positions)] * len(positions)
    return pictures, counts


@pytest.mark.parametrize("epochs", [100, pytest.param(2000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_picture_counts_as_often_as_it_is_seen(processes, epochs):
    for number, (groups, repeats, batch) in enumerate(CASES):
        times = np.ones(len(groups), int) if repeats is None else np.array(repeats)
        stream = Stream(len(groups), batch * processes, number, groups=np.array(groups), repeats=times)
        found = [seen(stream, processes, epoch) for epoch in range(epochs)]
        assert all(np.array_equal(np.bincount(pictures), times) for pictures, _ in found)
        sums = sum(np.bincount(pictures, weights=counts) for pictures, counts in found)
        short = stream.count % stream.batch  # a picture is in the short step at this chance, or in another
        spread = (
            abs(1 / short - 1 / stream.batch) * (short / stream.count * (1 - short / stream.count)) ** 0.5
            if short
            else 0
        )
        error = spread * (times * epochs) ** 0.5
        expected = times * epochs * stream.steps_per_epoch / stream.count
        assert np.all(np.abs(sums - expected) <= 4.5 * error + 1e-9), (number, processes)
