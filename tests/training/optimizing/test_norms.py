"""scale_weight_norms: the norms and factors of sd-scripts' apply_max_norm_regularization, for every kind."""

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, inject_adapter_in_model
from torch import nn

from sdxl_nb.training.optimizing.norms import LargestNorms

CONFIGS = {
    "lora": lambda names: LoraConfig(r=2, lora_alpha=3, target_modules=names, init_lora_weights=False),
    "loha": lambda names: LoHaConfig(r=2, alpha=3, target_modules=names, init_weights=False),
    "lokr": lambda names: LoKrConfig(r=2, alpha=3, target_modules=names, init_weights=False),
}


def model_of(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 18), nn.Conv2d(8, 6, 3), nn.Linear(18, 5))
    inject_adapter_in_model(CONFIGS[kind](["0", "1", "2"]), model)
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_larger_is_scaled_down_to_it_and_what_is_not_stays(kind):
    model = model_of(kind)
    before = [layer.get_delta_weight("default").detach().clone() for layer in model]
    norms = [change.norm().item() for change in before]
    largest = sorted(norms)[1] * 0.999
    assert LargestNorms({"unet": model}, largest)().item() == 2
    for layer, change, norm in zip(model, before, norms, strict=True):
        after = layer.get_delta_weight("default")
        torch.testing.assert_close(after, change * min(1.0, largest / norm), rtol=1e-5, atol=1e-7)
    assert LargestNorms({"unet": model}, largest * 1.001)().item() == 0


def test_a_lora_is_scaled_as_sd_scripts_does():
    model = model_of("lora")
    layer = model[0]
    down, up = (part["default"].weight.detach().clone() for part in (layer.lora_A, layer.lora_B))
    norm = (up @ down * 1.5).norm()  # alpha / rank
    ratio = (0.1 / norm) ** 0.5
    LargestNorms({"unet": model}, 0.1)()
    torch.testing.assert_close(layer.lora_A["default"].weight.detach(), down * ratio)
    torch.testing.assert_close(layer.lora_B["default"].weight.detach(), up * ratio)
    for part in (layer.lora_A, layer.lora_B):
        part["default"].weight.data.zero_()
    LargestNorms({"unet": model}, 0.1)()  # a new LoRA is nothing, and stays that
    assert torch.equal(layer.lora_A["default"].weight, torch.zeros_like(down))
