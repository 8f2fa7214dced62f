"""Concept sliders from prompts: the loss by its formula, a run of one, and what is refused."""

import pytest
import torch
from small_runs import small, studio, train

from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.step import Step

pytestmark = pytest.mark.slow
SLIDER = {"slider_positive": "an old card", "slider_negative": "a new card", "slider_target": "a card"}


def test_the_loss_is_the_guided_difference_of_the_bases_own_predictions(tmp_path):
    config = small(tmp_path, **SLIDER, slider_guidance=2.0)
    made = studio(config)
    step = Step(config, made, Processes.join(), made.stream(2), 4, print, print)
    with torch.no_grad():
        noised = step._noised(range(2), [0, 1])
        loss, (batch, _, seen, *_) = step._loss([0, 1], noised), noised
        noisy = step.noising.noisy(batch.latents, seen, batch.timesteps)
        positive, negative = (
            made.predict(noisy, batch._replace(prompt=made.embedded([text] * 2))).float()
            for text in (SLIDER["slider_positive"], SLIDER["slider_negative"])
        )  # the LoRA is still zero
    expected = (2 * (positive - negative)).square().mean(dim=(1, 2, 3)).sum()
    assert expected > 0
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-7)


def test_a_run_of_one_learns_and_its_header_says_so(tmp_path):
    run = train(small(tmp_path, **SLIDER, max_train_steps=5, learning_rate=1e-2))
    losses = run.losses()[1]
    assert all(loss > 0 for loss in losses)
    assert LoraFile(run.folder).config()["slider_positive"] == "an old card"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"slider_target": "a"},
            "slider_target needs slider_positive: say what the slider adds, or drop slider_target",
        ),
        ({"slider_positive": "a", "slider_negative": "a"}, "slider_positive and slider_negative are the same"),
        ({"slider_positive": "a", "masked_loss": True}, "masked_loss means pictures and captions, which a slider does"),
        ({"slider_positive": "a", "validation_split": 0.2}, "validation_split means pictures and captions"),
    ],
)
def test_what_goes_not_together_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as error:
        small(tmp_path, **changes)
    assert sentence in str(error.value)
