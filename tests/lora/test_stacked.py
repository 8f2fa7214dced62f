"""A step with stacked products is the step without them: outputs, gradients, and weights that are there once."""

import copy

import pytest
import torch
from random_sdxl import make_unet

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.lora.fast import LoraFast
from sdxl_nb.lora.stacked.narrow import Narrowing
from sdxl_nb.models.running import gated, gated_back
from sdxl_nb.models.stored import store_all
from sdxl_nb.models.unet import SdxlUNet
from sdxl_nb.training.state.parameters import FlatParameters

# settings, then: layers with a matrix of their own, products of several layers, over the prompt, behind a gate
CASES = {
    "attention": ({}, 30, 10, 1, 10),
    "feed-forward layers too": ({"target_modules": "attention+ff", "lora_alpha": 3}, 40, 10, 1, 0),
    "everywhere, half as strong": ({"target_modules": "all", "lora_alpha": 2, "use_rslora": True}, 40, 10, 1, 0),
    "k of another rank": ({"rank_pattern": {"to_k": 2}}, 30, 0, 0, 10),
    "v of another strength in the middle": ({"alpha_pattern": {r"mid_block\..*attn1\.to_v": 9}}, 30, 9, 1, 10),
    "few layers": ({"target_modules": ["to_q", "attn2.to_v"]}, 10, 0, 0, 10),
}


def unet(config, dtype=torch.float32, precision=None, seed=0):
    torch.manual_seed(seed + 1)
    theirs = make_unet()
    ours = SdxlUNet(theirs.config)
    ours.load_state_dict(theirs.state_dict())
    ours = ours.requires_grad_(False).eval().to(dtype)
    store_all(ours, precision)
    add_lora(config, ours)
    torch.manual_seed(seed + 2)
    for name, parameter in ours.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return ours.train()


def step(model, stacks, many=2, side=8, times=1):
    """The model's fast way, its output and the gradient of its LoRA."""
    flat = FlatParameters({"unet": model})
    model.fast = LoraFast(model, flat, stacks)
    for number in range(times):
        generator = torch.Generator().manual_seed(number)
        drawn = lambda *shape: torch.randn(*shape, generator=generator).to(model.dtype)  # noqa: E731, B023
        added = {"text_embeds": drawn(many, 32), "time_ids": torch.full((many, 6), 40.0)}
        when = torch.tensor([7, 900])[:many]
        output = model(drawn(many, 4, side, side), when, drawn(many, 5, 64), added_cond_kwargs=added).sample
        output.float().square().mean().backward()
    return model.fast, output.detach(), flat.named(flat.gradient)


def assert_close(ours, theirs, share):
    largest = max(tensor.norm().item() for tensor in theirs.values())
    assert ours.keys() == theirs.keys() and largest > 0
    for name, wanted in theirs.items():
        assert (ours[name] - wanted).norm() <= share * max(wanted.norm().item(), 0.01 * largest), name


@pytest.mark.parametrize(("changes", "ones", "several", "texts", "gates"), CASES.values(), ids=CASES)
def test_a_stacked_step_is_the_same_step(changes, ones, several, texts, gates):
    config = TrainConfig(train_data_dir="x", seed=3, **{"rank": 4, **changes})
    model = unet(config, torch.float64)
    other = copy.deepcopy(model)
    fast, output, gradient = step(model, True, times=2)
    slow, wanted, theirs = step(other, False, times=2)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-6)
    assert_close(gradient, theirs, 2e-6)
    assert [len(list(filter(None, each.values()))) for each in (fast.ones, fast.several)] == [ones, several]
    assert len(list(filter(None, fast.narrowing.found.values()))) == gates
    assert len(fast.texts) == texts and slow.texts == [] and not any(slow.ones.values())
    for ours, before in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, before)


def test_one_picture_has_its_shift_in_a_bias():
    model = unet(TrainConfig(train_data_dir="x", rank=4))
    other = copy.deepcopy(model)
    fast, output, gradient = step(model, True, many=1)
    _, wanted, theirs = step(other, False, many=1)
    assert (output.square().mean() - wanted.square().mean()).abs() <= 1e-6
    assert len(fast.shifts.widths) == len(model.resnets())
    torch.testing.assert_close(output, wanted, rtol=0, atol=2e-6)
    assert_close(gradient, theirs, 2e-4)


@pytest.mark.parametrize("policy", ["selective", "whole"])
def test_recomputed_parts_give_the_same_gradient(policy):
    model = unet(TrainConfig(train_data_dir="x", rank=4))
    other = copy.deepcopy(model)
    model.enable_gradient_checkpointing(policy)
    fast, _, gradient = step(model, True)
    assert_close(gradient, step(other, False)[2], 2e-4)
    assert len(fast.texts) == (policy == "selective")  # k and v of blocks that are computed again are not kept


def test_bf16_stays_as_near_to_fp32():
    """Over eight models: of a single one the roundings may fall well or badly, and differ between processors."""
    config = TrainConfig(train_data_dir="x", rank=4)
    apart = [0.0, 0.0]
    for seed in range(8):
        exact = step(unet(config, seed=seed), False)[2]
        for stacks in (False, True):
            rounded = step(unet(config, torch.bfloat16, seed=seed), stacks)[2]
            apart[stacks] += sum((rounded[name] - wanted).square().sum().item() for name, wanted in exact.items())
    assert 0 < apart[1] ** 0.5 < 1.5 * apart[0] ** 0.5


def test_8_bits_are_computed_layer_by_layer():
    config = TrainConfig(train_data_dir="x", seed=3, rank=4)
    model = unet(config, precision="int8")
    fast, output, gradient = step(model, True)
    assert fast.texts == [] and not any(fast.ones.values()) and not any(fast.several.values())
    _, wanted, theirs = step(unet(config, precision="int8"), False)
    torch.testing.assert_close(output, wanted, rtol=0, atol=1e-6)
    assert_close(gradient, theirs, 1e-5)


def test_weights_are_there_once():
    model = unet(TrainConfig(train_data_dir="x", rank=4))

    def held():
        frozen = [p for p in model.parameters() if not p.requires_grad]
        return sum({p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in frozen}.values())

    before = held()
    fast = step(model, True)[0]
    extra = sum(place.nbytes for place in fast.copies[0])
    assert before < held() < before + 8 * extra  # A, B and what fills up to even places, on matrices this small


def test_geglus_gradient_without_what_was_kept():
    x, grad = torch.randn(2, 3, 8, dtype=torch.double, requires_grad=True), torch.randn(2, 3, 4, dtype=torch.double)
    gated(x).backward(grad)
    torch.testing.assert_close(gated_back(grad, x.detach(), None), x.grad)


def test_buffers_behind_the_gate_are_used_by_larger_and_smaller_pictures():
    layer = torch.nn.Linear(5, 3).double().requires_grad_(False)
    narrowing, before = Narrowing(True), copy.deepcopy(layer)
    drawn = [(torch.randn(2, n, 3).double(), torch.randn(2, n, 10).double().requires_grad_()) for n in (4, 2, 9, 4)]
    ours = [narrowing(y, wide, narrowing.of(layer)) for y, wide in drawn]  # every forward pass before any backward
    for (y, wide), found in zip(drawn, ours, strict=True):
        wanted = y + before(gated(wide))
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(*(torch.autograd.grad(each.square().sum(), wide)[0] for each in (found, wanted)))
    assert torch.equal(layer.weight, before.weight) and narrowing.of(torch.nn.Linear(5, 3, bias=False)) is None
