"""Prior preservation without class pictures: the base's own prediction is the target, and nothing else changes."""

import pytest
import torch
from small_runs import assert_same, gone_on, small, studio, train

from sdxl_nb.data.sampling import Choices
from sdxl_nb.lora.layers import lora_modules
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.step import Step
from sdxl_nb.training.teachers import prior

pytestmark = pytest.mark.slow
PRIOR = {"prior_without_pictures": True, "prior_prompts": ["a card", "a plain card"]}


def step(config):
    made = studio(config)
    return Step(config, made, Processes.join(), made.stream(config.train_batch_size), 4, print, print)


def test_it_is_nothing_at_first_and_pulls_back_later(tmp_path):
    one = step(small(tmp_path, **PRIOR))
    with torch.no_grad():
        own, kept = one._losses(range(2), [0, 1])
    assert own > 0 and kept < 1e-9  # the LoRA is zero
    for name, parameter in one.studio.unet.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    own, kept = one._losses(range(2), [0, 1])
    assert kept > 0.01
    config, (batch, choices, seen, *_) = one.config, one._noised(range(2), [0, 1])
    texts = prior.chosen(config, choices)
    assert set(texts) <= set(PRIOR["prior_prompts"])
    told = batch._replace(prompt=one.studio.embedded(texts))
    noisy = one.noising.noisy(batch.latents, seen, batch.timesteps)
    with_lora = one.studio.predict(noisy, told)
    for _, module in lora_modules(one.studio.unet):
        module.lora_B["default"].weight.data.zero_()
    expected = (with_lora - one.studio.predict(noisy, told)).square().mean(dim=(1, 2, 3)).sum()
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-6)


def test_the_prompt_is_the_positions_own(tmp_path):
    config = small(tmp_path, **PRIOR)
    choices = [Choices.at(5, position, timesteps=1000, empty_share=0) for position in range(50)]
    texts = prior.chosen(config, choices)
    assert texts == prior.chosen(config, choices) and set(texts) == set(PRIOR["prior_prompts"])
    assert prior.prompts(config.replace(prior_prompts=None)) == [""]
    assert prior.prompts(config.replace(prior_prompts=None, class_prompt="a dog")) == ["a dog"]
    assert prior.prompts(small(tmp_path)) == []


@pytest.mark.parametrize("changes", [{}, {"train_text_encoder": True, "lora_dropout": 0.3}])
def test_resumed_it_is_the_run_that_never_stopped(tmp_path, changes):
    settings = PRIOR | changes | {"max_train_steps": 4}
    whole = train(small(tmp_path / "whole", **settings))
    again = gone_on(whole, tmp_path / "run", **settings)
    assert_same(whole.folder, again.folder)
    plain = train(small(tmp_path / "plain", **changes, max_train_steps=4))
    assert plain.losses()[1][0] == pytest.approx(whole.losses()[1][0], rel=1e-6)
    assert plain.losses()[1][-1] != whole.losses()[1][-1]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"with_prior_preservation": True, "class_data_dir": "a", "class_prompt": "a", **PRIOR},
            "prior_without_pictures and with_prior_preservation both keep the rest as it was: drop one of them",
        ),
        ({"prior_prompts": ["a"]}, "prior_prompts needs prior_without_pictures: add it, or drop prior_prompts"),
        (PRIOR | {"prior_loss_weight": 0}, "prior_loss_weight 0 keeps nothing: raise it"),
        (PRIOR | {"num_class_images": 7}, "num_class_images needs with_prior_preservation"),
    ],
)
def test_what_goes_not_together_is_refused(tmp_path, changes, sentence):
    with pytest.raises(ConfigError) as error:
        small(tmp_path, **changes)
    assert sentence in str(error.value)
