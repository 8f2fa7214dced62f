"""The arithmetic of EDM and of rectified flow, step by step beside diffusers' own schedulers."""

import pytest
import torch
from bases import COSXL, EDM, folder, scheduler
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

from sdxl_nb.models.objective.base_objective import made, of
from sdxl_nb.models.sources import Source
from sdxl_nb.training.noise.noising import Noising

CLASSES = {"EDMEulerScheduler": EDMEulerScheduler, "EDMDPMSolverMultistepScheduler": EDMDPMSolverMultistepScheduler}
PLACES = (0, 1, 250, 500, 998, 999)


def noising(tmp_path, config, **flags):
    base = of(Source(str(folder(tmp_path / "base", only_scheduler=config))), **flags)
    return base, Noising.of(base)


def pair():
    torch.manual_seed(0)
    return torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)


@pytest.mark.parametrize("config", [EDM, COSXL, {"_class_name": "EDMEulerScheduler"}])
def test_edm_is_that_of_diffusers(tmp_path, config):
    base, found = noising(tmp_path, config)
    theirs = CLASSES[config["_class_name"]].from_config(dict(base.scheduler))
    sigmas = theirs.sigmas[: len(theirs.timesteps)].flip(0)
    assert len(found) == len(theirs.timesteps) >= 1000 and (sigmas.diff() > 0).all()
    x0, noise = pair()
    for place in PLACES:
        at, sigma = torch.tensor([place]), sigmas[place]
        noisy = x0 + noise * sigma  # as --do_edm_style_training of diffusers' train_dreambooth_lora_sdxl.py
        seen = found.noisy(x0, noise, at)
        assert torch.allclose(seen, theirs.precondition_inputs(noisy, sigma), atol=1e-6)
        assert torch.allclose(found.times(at), theirs.precondition_noise(sigma), atol=1e-6)
        denoised = theirs.precondition_outputs(noisy, found.target(x0, noise, at), sigma)
        assert torch.allclose(denoised, x0, atol=2e-5 * (1 + sigma))  # theirs adds and takes away sigma in fp32


def test_the_loss_of_edm_is_the_papers(tmp_path):
    """lambda(sigma) = (sigma^2 + data^2) / (sigma data)^2 on the denoised picture, arXiv 2206.00364."""
    base, found = noising(tmp_path, EDM)
    theirs = made(base.scheduler)
    (x0, noise), at = pair(), torch.tensor([600])
    sigma = theirs.sigmas[:1000].flip(0)[600].double()
    output = torch.randn(1, 4, 8, 8)
    denoised = theirs.precondition_outputs((x0 + noise * sigma).double(), output.double(), sigma)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    by_hand = weight * (denoised - x0).square().mean()
    assert (output - found.target(x0, noise, at)).square().mean().item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_is_that_of_diffusers(tmp_path, shift):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": shift}
    _, found = noising(tmp_path, config)
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    x0, noise = pair()
    for place in PLACES:
        at, when = torch.tensor([place]), theirs.timesteps[999 - place]
        assert torch.allclose(found.noisy(x0, noise, at), theirs.scale_noise(x0, when[None], noise), atol=1e-6)
        assert torch.allclose(found.times(at), when, atol=1e-3)  # of 1000
        assert torch.allclose(found.target(x0, noise, at), noise - x0, atol=1e-6)


def test_one_step_of_the_flow_from_noise_is_the_picture(tmp_path):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    base, found = noising(tmp_path, config)
    theirs = made(base.scheduler)
    theirs.set_timesteps(1)
    x0, noise = pair()
    (when,) = theirs.timesteps
    assert theirs.scale_model_input(noise, when) is noise and theirs.init_noise_sigma == 1
    velocity = found.target(x0, noise, torch.tensor([999]))
    assert torch.allclose(theirs.step(velocity, when, noise).prev_sample, x0, atol=1e-6)


def test_the_shift_of_a_setting_goes_before_the_bases(tmp_path):
    _, found = noising(tmp_path, scheduler("DDIMScheduler"), prediction="flow", flow_shift=3.0)
    assert found.times(torch.tensor([499])).item() == pytest.approx(750.0)
    assert (found.alpha_bar.diff() < 0).all() and found.alpha_bar[-1] == 0
