"""Noise, targets and weights against numbers worked out by hand."""

import pytest
import torch

from sdxl_nb.training import objective

SDXL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
BAR = torch.tensor([0.96, 0.64, 0.36, 0.0])  # square roots of the shares: .8 and .6 at 1, .6 and .8 at 2


def picture(value):
    return torch.full((1, 4, 2, 2), value)


def at(*timesteps):
    return torch.tensor(timesteps)


def test_noise_is_mixed_in_by_the_square_roots():
    assert torch.allclose(objective.add_noise(picture(2.0), picture(5.0), at(1), BAR), picture(0.8 * 2 + 0.6 * 5))
    assert torch.allclose(objective.add_noise(picture(2.0), picture(5.0), at(2), BAR), picture(0.6 * 2 + 0.8 * 5))
    assert torch.equal(objective.add_noise(picture(2.0), picture(5.0), at(3), BAR), picture(5.0))  # no signal left


def test_targets():
    x0, noise = picture(2.0), picture(5.0)
    assert objective.target("epsilon", x0, noise, at(1), BAR) is noise
    assert torch.allclose(objective.target("v_prediction", x0, noise, at(1), BAR), picture(0.8 * 5 - 0.6 * 2))
    with pytest.raises(ValueError, match="epsilon or v_prediction"):
        objective.target("sample", x0, noise, at(1), BAR)


def test_v_gives_back_picture_and_noise():
    torch.manual_seed(0)
    x0, noise = torch.randn(4, 4, 2, 2), torch.randn(4, 4, 2, 2)
    timesteps = at(0, 1, 2, 3)
    noisy = objective.add_noise(x0, noise, timesteps, BAR)
    v = objective.target("v_prediction", x0, noise, timesteps, BAR)
    share = BAR.view(-1, 1, 1, 1)
    assert torch.allclose(share.sqrt() * noisy - (1 - share).sqrt() * v, x0, atol=1e-6)
    assert torch.allclose((1 - share).sqrt() * noisy + share.sqrt() * v, noise, atol=1e-6)


def test_min_snr_weights():
    # snr = .96/.04 = 24, .64/.36 = 1.7778, .36/.64 = .5625, 0
    assert objective.snr(at(0, 1, 2, 3), BAR).tolist() == pytest.approx([24, 1.7777778, 0.5625, 0], rel=1e-5)
    epsilon = objective.min_snr_weight("epsilon", at(0, 1, 2), BAR, 5.0)
    assert epsilon.tolist() == pytest.approx([5 / 24, 1, 1], rel=1e-5)
    v = objective.min_snr_weight("v_prediction", at(0, 1, 2, 3), BAR, 5.0)
    assert v.tolist() == pytest.approx([5 / 25, 1.7777778 / 2.7777778, 0.5625 / 1.5625, 0], rel=1e-5)
    assert objective.min_snr_weight("epsilon", at(0), BAR, None) is None


def test_debiased_estimation_weights():
    # 1 / sqrt(snr) for epsilon, snr = 24, 16/9, 9/16; 1 / (snr + 1) for v
    epsilon = objective.debiased_estimation_weight("epsilon", at(0, 1, 2), BAR)
    assert epsilon.tolist() == pytest.approx([24**-0.5, 3 / 4, 4 / 3], rel=1e-5)
    v = objective.debiased_estimation_weight("v_prediction", at(0, 1, 2, 3), BAR)
    assert v.tolist() == pytest.approx([1 / 25, 9 / 25, 16 / 25, 1], rel=1e-5)
    clear = objective.debiased_estimation_weight("epsilon", at(0), torch.tensor([0.99999]))
    assert clear.item() == pytest.approx(1000**-0.5)  # snr counts at most 1000


def test_p2_weights():
    # (1 + snr)^-1 for epsilon, snr = 24, 16/9, 9/16, 0; times snr / (snr + 1) for v
    epsilon = objective.p2_weight("epsilon", at(0, 1, 2, 3), BAR, 1.0)
    assert epsilon.tolist() == pytest.approx([1 / 25, 9 / 25, 16 / 25, 1], rel=1e-5)
    v = objective.p2_weight("v_prediction", at(0, 1, 2, 3), BAR, 1.0)
    assert v.tolist() == pytest.approx([24 / 625, 9 / 25 * 16 / 25, 16 / 25 * 9 / 25, 0], rel=1e-5)


def test_soft_min_snr_weights():
    # 4 / (snr + 4) for epsilon: snr 4 / (snr + 4) of x0, which is near the smaller one of snr and 4
    epsilon = objective.soft_min_snr_weight("epsilon", at(0, 1, 2, 3), BAR, 4.0)
    assert epsilon.tolist() == pytest.approx([4 / 28, 4 / (16 / 9 + 4), 4 / (9 / 16 + 4), 1], rel=1e-5)
    v = objective.soft_min_snr_weight("v_prediction", at(0, 3), BAR, 4.0)
    assert v.tolist() == pytest.approx([4 / 28 * 24 / 25, 0], rel=1e-5)


def test_weights_of_v_are_those_of_epsilon():
    """An error of epsilon makes one of v of the same picture, and both count the same."""
    torch.manual_seed(0)
    x0, noise, timesteps = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), at(0, 1, 2)
    share = BAR[timesteps].view(-1, 1, 1, 1)
    noisy = objective.add_noise(x0, noise, timesteps, BAR)
    guess = noise + 0.1 * torch.randn(3, 4, 2, 2)  # of epsilon; of x0 and v it is this
    v = share.sqrt() * guess - (1 - share).sqrt() * (noisy - (1 - share).sqrt() * guess) / share.sqrt()
    wanted = objective.target("v_prediction", x0, noise, timesteps, BAR)
    for weight in (objective.p2_weight, objective.soft_min_snr_weight, objective.min_snr_weight):
        ours = objective.losses(guess, noise, weight("epsilon", timesteps, BAR, 1.5))
        theirs = objective.losses(v, wanted, weight("v_prediction", timesteps, BAR, 1.5))
        assert torch.allclose(ours, theirs, rtol=1e-4)


def test_magnitudes_and_log_cosh_are_torchs():
    torch.manual_seed(0)
    one, other = torch.randn(2, 4, 3, 3), 3 * torch.randn(2, 4, 3, 3)
    for number, each in enumerate(objective.losses(one, other, kind="l1")):
        assert each.item() == pytest.approx(torch.nn.functional.l1_loss(one[number], other[number]).item(), rel=1e-6)
    wanted = (one - other).double().cosh().log().mean(dim=(1, 2, 3))
    assert torch.allclose(objective.losses(one, other, kind="log_cosh").double(), wanted, rtol=1e-6)
    assert objective.losses(picture(200.0), picture(0.0), kind="log_cosh").item() == pytest.approx(199.3069, rel=1e-5)


def test_huber_losses():
    # d = 3, c = 4: sqrt(9 + 16) - 4 = 1, twice, and times c for huber
    difference, c = torch.cat([picture(3.0), picture(-3.0)]), torch.tensor([4.0, 4.0])
    assert (objective.pseudo_huber(difference, "huber", c) == 8).all()
    assert (objective.pseudo_huber(difference, "smooth_l1", c) == 2).all()
    small, large = picture(0.01), picture(100.0)
    one = torch.tensor([1.0])
    assert torch.allclose(objective.pseudo_huber(small, "huber", one), small.square(), rtol=1e-3)  # square, then
    assert torch.allclose(objective.pseudo_huber(large, "smooth_l1", one), 2 * large, rtol=1e-2)  # linear
    each = objective.losses(picture(5.0), picture(2.0), torch.tensor([0.5]), "huber", torch.tensor([4.0]))
    assert each.tolist() == [4.0]


def test_schedules_of_the_huber_scale():
    # sigma = 1 / sqrt(snr): 3/4 at 1, 4/3 at 2, infinite at 3
    of = lambda schedule, *when: objective.huber_c(schedule, 0.1, at(*when), BAR).tolist()  # noqa: E731
    assert of("constant", 0, 3) == pytest.approx([0.1, 0.1])
    assert of("exponential", 0, 2) == pytest.approx([1.0, 0.1**0.5])  # half-way through four timesteps
    assert of("snr", 1, 2, 3) == pytest.approx([0.9 / 1.75**2 + 0.1, 0.9 / (7 / 3) ** 2 + 0.1, 0.1], rel=1e-5)


def test_losses_are_means_of_each_picture_in_fp32():
    predicted = torch.cat([picture(1.0), picture(3.0)]).to(torch.bfloat16)
    wanted = torch.cat([picture(2.0), picture(0.0)])
    each = objective.losses(predicted, wanted)
    assert each.dtype == torch.float32 and each.tolist() == [1.0, 9.0]
    assert objective.losses(predicted, wanted, torch.tensor([0.5, 2.0])).tolist() == [0.5, 18.0]


def test_the_schedule_of_sdxl_and_its_rescaling():
    bar = objective.alpha_bar(SDXL)
    # beta_0 = .00085; the last alpha_bar of SDXL's schedule is .0047 (arXiv 2305.08891, table 1: sqrt = .068265)
    assert bar.shape == (1000,) and bar.dtype == torch.float32
    assert bar[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    assert bar[-1].sqrt().item() == pytest.approx(0.068265, abs=1e-5)
    rescaled = objective.alpha_bar(SDXL, rescale_zero_snr=True)
    assert rescaled[-1].item() == 0.0 and rescaled[0].item() == pytest.approx(bar[0].item(), abs=1e-6)
    assert (rescaled.diff() < 0).all()
    # equation: sqrt(bar) is shifted by its last value and stretched to keep its first
    roots, first, last = bar.sqrt(), bar[0].sqrt(), bar[-1].sqrt()
    wanted = ((roots - last) * first / (first - last)).square()
    assert torch.allclose(rescaled, wanted, atol=1e-5)
