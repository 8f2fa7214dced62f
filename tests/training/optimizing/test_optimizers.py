"""Optimizers by name: one step by hand, a nested state, and packages that are missing or do not work."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sdxl_nb.config.machine import Machine, check_machine
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.optimizing.optimizers import make_optimizer
from sdxl_nb.training.optimizing.stored_state import optimizer_state, restore_optimizer
from sdxl_nb.training.state.parameters import FlatParameters


def layers(seed=0):
    torch.manual_seed(seed)
    return FlatParameters({"net": nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))})


def config(**changes):
    return TrainConfig(seed=0, **changes)


def test_one_adamw_step_by_hand():
    flat = layers()
    flat.weights.data.fill_(1.0)
    optimizer = make_optimizer(config(adam_weight_decay=0.1, learning_rate=0.01), flat)
    flat.weights.grad.fill_(0.5)
    optimizer.step()
    # first step of Adam: both moments corrected give grad / |grad|; decay first: w (1 - lr * decay)
    assert flat.weights.tolist() == pytest.approx([1 * 0.999 - 0.01] * 22, rel=1e-5)
    assert (flat.parameters[0] == flat.weights[0]).all()
    assert {v.dtype for v in optimizer.state[flat.weights].values()} == {torch.float32}


def test_one_adafactor_step_by_hand():
    flat = FlatParameters({"net": nn.Linear(2, 2, bias=False)})
    flat.weights.data.zero_()
    optimizer = make_optimizer(config(optimizer="adafactor", learning_rate=0.1, adam_weight_decay=0.0), flat)
    gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    flat.parameters[0].grad.copy_(gradient)
    optimizer.step()
    # arXiv 1804.04235, alg. 4: V = R C / mean(R) from the squares' row and column means; update clipped to an RMS of 1
    squares = gradient**2
    rows, columns = squares.mean(1, keepdim=True), squares.mean(0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update = update / max(1.0, update.square().mean().sqrt().item())
    assert torch.allclose(flat.weights.view(2, 2), -0.1 * update, rtol=1e-4)
    assert {tuple(v.shape) for v in optimizer_state(optimizer)[0].values()} == {(2,), ()}  # factored


def test_prodigy_finds_its_step_size(capsys):
    flat = layers()
    optimizer = make_optimizer(config(optimizer="prodigy", learning_rate=1.0, lr_scheduler="linear"), flat)
    goal = torch.ones_like(flat.weights)
    for _ in range(200):
        flat.weights.grad.copy_(flat.weights.detach() - goal)
        optimizer.step()
    assert optimizer.param_groups[0]["d"] > 1e-4 > 1e-6  # from 1e-6
    assert (flat.weights - goal).abs().max() < 0.2 and capsys.readouterr().out == ""


def test_a_package_that_is_missing_is_named():
    bare = Machine("cpu", bf16=True, packages=frozenset(), hub_login=False)
    with pytest.raises(ConfigError, match="optimizer prodigy needs prodigyopt: pip install prodigyopt"):
        check_machine(config(optimizer="prodigy"), bare)
    check_machine(config(optimizer="adafactor", report_to="none"), bare)


class Nested(torch.optim.SGD):
    """A state such as bitsandbytes' (quantised moments in a dictionary of their own), which wants a GPU."""

    def state_dict(self):
        moments = {"state1": torch.tensor([1, 2], dtype=torch.uint8), "absmax1": torch.tensor([0.5])}
        return super().state_dict() | {"state": {0: {"step": 3, "quantised": moments}}}

    def load_state_dict(self, state):
        self.loaded = state


def test_a_state_may_be_nested():
    weights = nn.Parameter(torch.zeros(2))
    tensors, rest = optimizer_state(Nested([weights], lr=0.1))
    assert sorted(tensors) == ["optimizer.state.0.quantised.absmax1", "optimizer.state.0.quantised.state1"]
    other = Nested([weights], lr=0.1)
    restore_optimizer(other, tensors, json.loads(json.dumps(rest)))
    kept = other.loaded["state"][0]
    assert kept["step"] == 3 and kept["quantised"]["state1"].tolist() == [1, 2]
    assert kept["quantised"]["state1"].dtype == torch.uint8 and other.loaded["param_groups"][0]["lr"] == 0.1


def test_bitsandbytes_that_does_not_work_is_a_sentence(monkeypatch):
    """It is imported without its library for the GPU, and fails at the first step."""

    def fail(parameters, **options):
        raise RuntimeError("CUDA Setup failed despite GPU being available.\nPlease run ...")

    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=fail)))
    said = r"bitsandbytes does not work here \(CUDA Setup failed despite GPU being available\): install a version for"
    with pytest.raises(ConfigError, match=said):
        make_optimizer(config(optimizer="adamw8bit"), layers())
