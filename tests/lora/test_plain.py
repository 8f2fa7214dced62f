"""The layers of plain.py are peft's: names, first values, outputs, gradients."""

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from random_sdxl import make_unet

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.lora.layers import collect, lora_modules
from sdxl_nb.lora.plain import PlainLora
from sdxl_nb.lora.targets import target_modules
from sdxl_nb.models.stored import store_all
from sdxl_nb.models.unet import SdxlUNet
from sdxl_nb.system.errors import ConfigError

CASES = {
    "attention": {},
    "everything, by patterns": {
        "target_modules": "all",
        "rank_pattern": {"to_k": 2, r"resnets\.0\.conv1": 1},
        "alpha_pattern": {"to_v": 11, "attn1.to_v": 7},
        "use_rslora": True,
        "lora_alpha": 5,
    },
    "a list": {"target_modules": ["to_q", "conv_in", "time_embedding.linear_1"], "rank": 3},
    "an expression": {"target_modules": r".*attn2\.to_[kv]", "lora_dropout": 0.5},
}


def unet(dtype=torch.float32, precision=None):
    theirs = make_unet()
    ours = SdxlUNet(theirs.config)
    ours.load_state_dict(theirs.state_dict())
    ours = ours.requires_grad_(False).eval().to(dtype)
    store_all(ours, precision)
    return ours


def pefts(config, model):
    """What add_lora would do through peft."""
    settings = {
        "r": config.rank,
        "lora_alpha": config.alpha(),
        "lora_dropout": config.lora_dropout,
        "init_lora_weights": "gaussian",
        "use_rslora": config.use_rslora,
        "rank_pattern": config.rank_pattern or {},
        "alpha_pattern": config.alpha_pattern or {},
    }
    torch.manual_seed(config.seed)
    targets = target_modules(config.target_modules, model)
    inject_adapter_in_model(LoraConfig(target_modules=targets, **settings), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        parameter.data = parameter.data.float() if "lora_" in name else parameter.data
    return model


@pytest.mark.parametrize(
    ("dtype", "precision"), [(torch.float32, None), (torch.bfloat16, None), (torch.float32, "int8")]
)
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_plain_layers_are_pefts(changes, dtype, precision):
    config = TrainConfig(train_data_dir="x", seed=3, **{"rank": 4, **changes})
    first = unet(dtype, precision)
    theirs = pefts(config, copy.deepcopy(first))
    assert add_lora(config, first) == ["unet"]
    found = [(name, p.shape, p.dtype, p.requires_grad) for name, p in first.named_parameters()]
    assert found == [(name, p.shape, p.dtype, p.requires_grad) for name, p in theirs.named_parameters()]
    layers = list(lora_modules(first))
    assert layers and all(isinstance(module, PlainLora) for _, module in layers)
    assert [name for name, _ in layers] == [name for name, _ in lora_modules(theirs)]
    for ours, wanted in zip(first.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, wanted)
    a, b = collect(first).layers, collect(theirs).layers
    assert [(path, layer.alpha) for path, layer in a.items()] == [(path, layer.alpha) for path, layer in b.items()]


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("cast", [True, False])
def test_they_compute_what_pefts_compute(kind, cast):
    config = TrainConfig(train_data_dir="x", seed=3, rank=4, target_modules=["to_q", "conv1"])
    ours = unet(torch.bfloat16)
    theirs = pefts(config, copy.deepcopy(ours))
    add_lora(config, ours)
    name = "mid_block.resnets.0.conv1" if kind == "conv" else "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    found = []
    for model in (ours, theirs):
        layer = model.get_submodule(name)
        layer.cast_input_dtype_enabled = cast
        torch.nn.init.ones_(layer.lora_B["default"].weight)
        width = layer.base_layer.weight.shape[1]
        shape = (1, width, 4, 4) if kind == "conv" else (1, 3, width)
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=not cast):
            y = layer(x)
        y.float().square().sum().backward()
        found.append((y, x.grad, layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*found, strict=True))


def test_names_of_text_encoders_alone_leave_nothing_to_put_on_the_unet():
    with pytest.raises(ConfigError, match=r"target_modules cannot be put on the unet: .*q_proj"):
        add_lora(TrainConfig(train_data_dir="x", target_modules=["q_proj"]), unet())
