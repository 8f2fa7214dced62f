"""Trained weights as one vector, its clipping and its average."""

import pytest
import torch
from torch import nn

from sdxl_nb.training.state.parameters import Average, FlatParameters


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    made[0].bias.requires_grad_(False)
    return made


def test_parameters_and_gradients_are_views_of_one_vector():
    net = model()
    flat = FlatParameters({"net": net})
    assert flat.names == ["net.0.weight", "net.1.weight", "net.1.bias"] and flat.weights.numel() == 9
    net(torch.ones(1, 3)).sum().backward()
    net(torch.ones(1, 3)).sum().backward()
    assert flat.weights.grad[-1].item() == 2.0  # d sum / d bias, twice
    assert torch.equal(flat.weights.grad[:6].view(2, 3), net[0].weight.grad)
    flat.zero_grad()
    assert net[0].weight.grad.abs().sum() == 0
    with torch.no_grad():
        flat.weights.fill_(7.0)
    assert (net[0].weight == 7).all() and (net[1].bias == 7).all()


def test_named_and_join_are_inverse():
    flat = FlatParameters({"net": model()})
    vector = torch.arange(9.0)
    named = flat.named(vector)
    assert named["net.0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]] and named["net.1.bias"].tolist() == [8]
    assert torch.equal(flat.join(named), vector)
    with pytest.raises(KeyError):
        flat.join({})


def test_half_precision_becomes_fp32():
    flat = FlatParameters({"net": model().to(torch.bfloat16)})
    assert flat.weights.dtype == flat.weights.grad.dtype == torch.float32
    assert {parameter.dtype for parameter in flat.parameters} == {torch.float32}


def test_clipping_by_hand():
    flat = FlatParameters({"net": model()})
    flat.weights.grad[:2] = torch.tensor([3.0, 4.0])
    assert flat.clip(1.0).item() == 5.0
    assert flat.weights.grad[:2].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)
    flat.clip(10.0)
    assert flat.weights.grad[:2].tolist() == pytest.approx([0.6, 0.8], rel=1e-5)  # small ones stay
    flat.weights.grad[:2] = torch.tensor([300.0, 400.0])
    assert flat.clip(0.0).item() == 500.0 and flat.weights.grad[:2].tolist() == [300.0, 400.0]  # switched off


def test_the_average_by_hand_and_its_place():
    flat = FlatParameters({"net": model()})
    flat.weights.data.fill_(1.0)
    average = Average(flat, 0.5)
    flat.weights.data.fill_(3.0)
    average.update(1)  # keeps nothing of the random start
    assert average.weights.tolist() == [3.0] * 9
    average.weights.fill_(1.0)
    average.update(2)  # keeps 2 / 11 of itself
    assert average.weights.tolist() == pytest.approx([2 / 11 * 1 + 9 / 11 * 3] * 9)
    average.weights.fill_(1.0)
    average.update(1000)  # 1000 / 1009 is more than 0.5
    assert average.weights.tolist() == [2.0] * 9
    with average.in_place():
        assert (flat.parameters[0] == 2).all()
    assert (flat.parameters[0] == 3).all() and (flat.weights == 3).all()
