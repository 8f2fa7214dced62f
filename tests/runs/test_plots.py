"""Many points made few, without losing what one would see."""

import numpy as np

from sdxl_nb.runs.plots import gapped, smooth, thinned


def test_of_a_hundred_thousand_points_each_peak_is_kept():
    x = np.arange(1, 100_001, dtype=float)
    y = np.sin(x / 9000)
    y[[7, 31_415, 99_998]] = 5, -7, 9
    few, values = thinned(x, y, 1, 100_000, 1000)
    assert len(few) <= 2000 and (np.diff(few) > 0).all()
    assert [float(few[values == peak][0]) for peak in (5, -7, 9)] == [8, 31_416, 99_999]


def test_what_is_zoomed_to_is_whole_with_a_neighbour_at_each_end():
    x = np.arange(100_000, dtype=float)
    few, values = thinned(x, x * 2, 500.5, 503.5, 1000)
    assert few.tolist() == [500, 501, 502, 503, 504] and values.tolist() == [1000, 1002, 1004, 1006, 1008]
    assert [len(part) for part in thinned(x[:0], x[:0], 0, 1, 1000)] == [0, 0]


def test_gaps_stay_gaps():
    y = np.arange(90.0)
    y[30:60] = np.nan  # ten whole pieces
    few, values = thinned(np.arange(90.0), y, 0, 89, 30)
    assert np.isnan(values[(few >= 30) & (few < 60)]).all() and values[0] == 0 and values[-1] == 89
    assert np.isnan(gapped([None, 1.0])).tolist() == [True, False]


def test_the_average_passes_over_gaps():
    averaged = smooth(np.array([np.nan, 2.0, np.nan, 4.0]), span=3)
    assert np.isnan(averaged[0]) and averaged[1:].tolist() == [2.0, 2.0, (2 * 0.5 + 4) / 1.5]
