"""The curves that are sent to a page: whole or zoomed to, averaged as the slider says, few of however many."""

import numpy as np

from sdxl_nb.widgets.monitor.sights import rates
from sdxl_nb.widgets.parts.plot import PIXELS, Line, Plot


def points(plot, number):
    """The steps and values of a line as the page gets them."""
    line = plot.lines[number]
    return [np.frombuffer(line[axis], np.float32) for axis in ("x", "y")]


def test_a_hundred_thousand_steps_are_sent_as_what_a_screen_shows_and_zoomed_to_exactly():
    x = np.arange(1, 100_001, dtype=float)
    y = 1 / x + (x == 70_007)
    plot = Plot()
    plot.show([Line("each step", x, y, look="faint"), Line("smoothed", x, y, smoothed=True)], "a curve")
    assert plot.extent == [1, 100_000] and plot.words == "a curve"
    steps, values = points(plot, 0)
    assert len(steps) <= 2 * PIXELS and steps[0] == 1 and steps[values.argmax()] == 70_007
    plot.view = [70_000.0, 70_010.0]
    steps, values = points(plot, 0)
    assert steps.tolist() == list(range(69_999, 70_012)) and values[8] == np.float32(y[70_006])
    plot.view = []
    assert len(points(plot, 0)[0]) > 1000


def test_the_slider_averages_what_follows_it_and_new_steps_come_in():
    x, y = np.arange(4.0), np.array([0.0, 2.0, 0.0, 2.0])
    plot = Plot()
    plot.show([Line("each step", x, y), Line("smoothed", x, y, smoothed=True)], "")
    averaged = points(plot, 1)[1]
    plot.smoothing = 1
    assert points(plot, 1)[1].tolist() == y.tolist() != averaged.tolist()
    plot.smoothing = 20
    assert points(plot, 1)[1].tolist() == averaged.tolist() and points(plot, 0)[1].tolist() == y.tolist()
    more = np.append(y, 8.0)
    plot.show([Line("smoothed", np.arange(5.0), more, smoothed=True)], "")
    assert points(plot, 0)[1][:4].tolist() == averaged.tolist() and plot.extent == [0, 4]


def test_without_a_step_there_is_an_empty_curve():
    plot = Plot()
    plot.show([Line("each step", np.array([]), np.array([]))], "")
    assert plot.extent == [0, 1] and plot.lines[0]["x"] == b""


def test_every_learning_rate_is_a_line():
    events = [{"lr": 1e-4}, {"lr": 2e-4, "rates": {"unet": 1e-4, "text": 3e-5}}]
    first, second = rates(events, np.arange(2.0))
    assert (first.name, second.name) == ("rate of unet", "rate of text") and first.panel == "rate"
    assert np.isnan(first.y[0]) and second.y[1] == 3e-5
    (only,) = rates(events[:1], np.arange(1.0))
    assert (only.name, only.y.tolist()) == ("learning rate", [1e-4])
