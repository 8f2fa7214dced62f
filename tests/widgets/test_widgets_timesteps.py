"""The form's histogram of timesteps: bars, and the same in words."""

import pytest

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.widgets.form.form import ConfigForm
from sdxl_nb.widgets.form.timesteps import histogram, words


def test_bars_and_words_of_a_distribution():
    config = TrainConfig(timestep_distribution="logit_normal", min_timestep=100, max_timestep=900)
    assert words(config) == "0-199 3%, 200-399 28%, 400-599 39%, 600-799 28%, 800-999 3%"
    drawn = histogram(config)
    assert 0 < drawn.count("<rect") <= 40 and 'role="img" aria-label="Timesteps that are drawn' in drawn
    assert drawn.count(words(config)) == 2  # seen, and heard
    assert histogram(TrainConfig(timestep_distribution="stratified")) == histogram(TrainConfig()) == ""


@pytest.mark.slow
def test_the_form_shows_them_where_they_are_chosen():
    form = ConfigForm(TrainConfig.preset("tiny"))
    assert form._outlook._bars.value == ""
    form._editors["timestep_distribution"].input.value = "sigmoid"
    assert "800-999 39%" in form._outlook._bars.value
    form._editors["timestep_distribution"].input.value = "uniform"
    assert form._outlook._bars.value == ""
