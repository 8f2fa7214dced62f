"""Noise with an offset, at several resolutions, disturbed: against the formulas as their authors wrote them."""

import numpy as np
import pytest
import torch
from small_runs import largest_difference, small, train

from sdxl_nb.data.sampling import Choices
from sdxl_nb.training.noise.further import offset_noise, perturbation, pyramid


def generators(count):
    return [Choices.at(3, position, timesteps=1000, empty_share=0).further() for position in range(count)]


def a_batch(count, height=24, width=16):
    torch.manual_seed(0)
    return torch.randn(count, 4, height, width), torch.randn(count, 4, height, width), torch.randn(count, 4, 1, 1)


def test_the_offset_is_plain_or_adaptive():
    noise, x0, offset = a_batch(2)
    assert torch.equal(offset_noise(noise, offset, 0.1, 0.0, x0), noise + 0.1 * offset)
    scale = 0.1 + 0.5 * x0.mean(dim=(2, 3), keepdim=True).abs()  # sd-scripts' apply_noise_offset
    assert torch.equal(offset_noise(noise, offset, 0.1, 0.5, x0), noise + scale * offset)
    assert torch.equal(offset_noise(noise, offset, 0.0, -1.0, x0), noise)  # never below 0


def test_pyramid_noise_as_its_author_wrote_it():
    """One picture: noise += upsampled normal numbers at 1 / r^i of the size, times discount^i; over its deviation."""
    noise, _, _ = a_batch(3)
    found = pyramid(noise, generators(3), 6, 0.4)
    for one, drawn, ours in zip(noise, generators(3), found, strict=True):
        wanted = one[None].clone()
        for i in range(6):
            r = drawn.random() * 2 + 2
            height, width = max(1, int(24 / r**i)), max(1, int(16 / r**i))
            coarse = torch.from_numpy(drawn.standard_normal((1, 4, height, width), dtype=np.float32))
            wanted += torch.nn.Upsample(size=(24, 16), mode="bilinear")(coarse) * 0.4**i
            if height == 1 or width == 1:
                break
        assert torch.allclose(ours, (wanted / wanted.std())[0], atol=1e-6)
        assert ours.std().item() == pytest.approx(1, abs=1e-5)
    alone = pyramid(noise[1:2], generators(3)[1:2], 6, 0.4)
    assert torch.equal(alone[0], found[1])  # whatever else is in the batch


def test_a_disturbance_is_as_much_noise_again():
    noise, _, _ = a_batch(4, 64, 64)
    drawn = perturbation(noise, generators(4))
    assert drawn.shape == noise.shape and drawn.std().item() == pytest.approx(1, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([drawn.ravel(), noise.ravel()]))[0, 1]) < 0.02


@pytest.mark.soak
def test_micro_batches_change_nothing(tmp_path):
    """Every option's draws belong to a picture, so that a batch may be cut."""
    changes = {"multires_noise_iterations": 6, "input_perturbation": 0.1, "timestep_distribution": "stratified"}
    whole = train(small(tmp_path / "whole", **changes))
    cut = train(small(tmp_path / "cut", train_batch_size=1, gradient_accumulation_steps=2, **changes))
    assert largest_difference(whole.folder, cut.folder) < 1e-5
