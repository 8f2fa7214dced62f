"""LoRA on live models and in files: every kind of LoRA, through both formats, back onto the model."""

import functools
import itertools
import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from random_sdxl import WIDE, make_pipeline, make_text_encoders, make_unet
from safetensors.torch import load_file

from sdxl_nb.lora.base import SDXL, Base
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import attach, collect, delta, detach, models_of, set_scale
from sdxl_nb.lora.targets import target_modules, text_target_modules
from sdxl_nb.system.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

# modules of the tiny U-Net and of both text encoders together, per preset
MODULES = {"attention": (80, 16), "attention+ff": (114, 24), "all": (158, 24)}


def add_lora(models, targets="attention", adapter="default", seed=1, **settings):
    """Trainable peft layers whose every weight is random, as after training."""
    settings = {"r": 4, "lora_alpha": 4, **settings}
    for name, model in models_of(models).items():
        modules = target_modules(targets, model) if name == "unet" else text_target_modules(targets)
        inject_adapter_in_model(LoraConfig(target_modules=modules, **settings), model, adapter_name=adapter)
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in model.named_parameters():
            if f".{adapter}" in key and "magnitude" in key:
                parameter.data *= 1 + 0.3 * torch.rand(parameter.shape, generator=generator)
            elif f".{adapter}" in key:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def make_models(text=True):
    first, second = make_text_encoders() if text else (None, None)
    return {"unet": make_unet(), "text_encoder": first, "text_encoder_2": second}


def predict(unet, text=None):
    """One noise prediction; `text` (1, 4, 64) stands in for the encoders' output."""
    generator = torch.Generator().manual_seed(3)
    text = torch.randn(1, 4, 64, generator=generator) if text is None else text
    conditions = {"text_embeds": torch.randn(1, 32, generator=generator), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        return unet(latents, 7, text, added_cond_kwargs=conditions).sample


def encode(encoder):
    with torch.no_grad():
        return encoder(torch.tensor([[512, 5, 6, 513]]), output_hidden_states=True).hidden_states[-1]


def live_delta(module, adapter="default"):
    """What peft itself would merge into the weight; the independent reference of these tests."""
    before = module.get_base_layer().weight.detach().clone()
    module.merge(adapter_names=[adapter])
    change = module.get_base_layer().weight.detach() - before
    module.unmerge()
    module.get_base_layer().weight.data.copy_(before)
    return change


def live_modules(models):
    """Canonical path -> peft layer, written independently of the library."""
    found = {}
    for component, model in models_of(models).items():
        for name, module in model.named_modules():
            if hasattr(module, "lora_A"):
                nested = "" if component == "unet" or name.startswith("text_model.") else "text_model."
                found[f"{component}.{nested}{name}"] = module
    return found


MATRIX = list(itertools.product(MODULES, [False, True], [4, 10]))
CORNERS = [("attention", False, 10), ("attention+ff", True, 4), ("all", False, 4), ("all", True, 10)]
INNER = [pytest.param(*case, marks=pytest.mark.soak) for case in MATRIX if case not in CORNERS]


@pytest.mark.parametrize(("targets", "dora", "alpha"), [*CORNERS, *INNER])
def test_both_files_hold_the_trained_lora(tmp_path, targets, dora, alpha):
    """With text encoders and, from the same models, U-Net only; through diffusers' and through kohya's names."""
    models = make_models()
    add_lora(models, targets, use_dora=dora, lora_alpha=alpha)
    trained = live_modules(models)
    changes = {path: live_delta(module) for path, module in trained.items()}
    unet_only = {path: change for path, change in changes.items() if path.startswith("unet.")}
    assert (len(unet_only), len(changes) - len(unet_only)) == MODULES[targets]
    parts = 3 if dora else 2
    for weights, expected in [(collect(**models), changes), (collect(models["unet"]), unet_only)]:
        diffusers, kohya = save_lora(weights, tmp_path, "style", {})
        assert len(load_file(diffusers)) == len(expected) * parts
        assert len(load_file(kohya)) == len(expected) * (parts + 1)
        for path in (diffusers, kohya):
            layers = read_lora(path).layers
            assert layers.keys() == expected.keys() and {layer.alpha for layer in layers.values()} == {alpha}
            for name, layer in layers.items():
                change = delta(layer, trained[name].get_base_layer().weight)
                torch.testing.assert_close(change, expected[name], atol=1e-6, rtol=0)
            assert LoraFile(path).check().unknown == []


PLAIN = [pytest.param(settings, marks=pytest.mark.soak) for settings in ({}, {"lora_alpha": 10})]


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_rslora": True, "r": 3}, *PLAIN])
def test_attached_from_a_file_the_model_is_the_trained_one_bit_for_bit(tmp_path, settings):
    models = make_models()
    add_lora(models, "all", **settings)
    trained = predict(models["unet"]), encode(models["text_encoder"]), encode(models["text_encoder_2"])
    fresh = make_models()
    for path in save_lora(collect(**models), tmp_path, "style", {}):
        attach(read_lora(path), fresh, path.stem)
        again = predict(fresh["unet"]), encode(fresh["text_encoder"]), encode(fresh["text_encoder_2"])
        for before, after in zip(trained, again, strict=True):
            assert torch.equal(before, after)


def test_rank_and_alpha_may_differ_per_module(tmp_path):
    models = make_models()
    patterns = {"rank_pattern": {"attn2.to_k": 2, "k_proj": 3}, "alpha_pattern": {"attn1.to_q": 7.5, "k_proj": 1}}
    add_lora(models, "attention", **patterns)
    trained = predict(models["unet"]), encode(models["text_encoder"])
    for path in save_lora(collect(**models), tmp_path, "style", {}):
        weights = read_lora(path)
        assert {layer.rank for layer in weights.layers.values()} == {2, 3, 4}
        assert {layer.alpha for layer in weights.layers.values()} == {1, 4, 7.5}
        fresh = make_models()
        attach(weights, fresh)
        assert torch.equal(predict(fresh["unet"]), trained[0]) and torch.equal(
            encode(fresh["text_encoder"]), trained[1]
        )


DIFFUSERS_CASES = [
    ("attention", False, {}),
    pytest.param("attention+ff", False, {"lora_alpha": 10}, marks=pytest.mark.soak),
    pytest.param("all", False, {"lora_alpha": 10}, marks=pytest.mark.soak),
    pytest.param("all", False, {"use_dora": True}, marks=pytest.mark.soak),
    pytest.param("attention", True, {"lora_alpha": 10}, marks=pytest.mark.soak),
    ("all", True, {"lora_alpha": 10, "rank_pattern": {"k_proj": 2, "attn2.to_k": 2}}),
    ("all", True, {"use_dora": True, "lora_alpha": 2}),
]


@pytest.mark.parametrize(("targets", "text", "settings"), DIFFUSERS_CASES)
def test_diffusers_own_loader_gives_the_same_outputs(tmp_path, targets, text, settings):
    models = make_models(text)
    add_lora(models, targets, **settings)
    save_lora(collect(**models), tmp_path, "style", {})
    pipeline = make_pipeline()
    pipeline.load_lora_weights(tmp_path)
    # diffusers computes on the file's own memory; DoRA's short vectors put what follows them out of alignment
    check = functools.partial(torch.testing.assert_close, rtol=0, atol=2e-6 if "use_dora" in settings else 0)
    check(predict(pipeline.unet), predict(models["unet"]))
    if text:
        check(encode(pipeline.text_encoder), encode(models["text_encoder"]))
        check(encode(pipeline.text_encoder_2), encode(models["text_encoder_2"]))


@pytest.mark.parametrize("dora", [False, True])
def test_scale_zero_is_the_base_bit_for_bit_and_one_is_the_trained(dora):
    models = make_models()
    base = predict(models["unet"]), encode(models["text_encoder"])
    add_lora(models, "all", use_dora=dora)
    trained = predict(models["unet"])
    flags = [parameter.requires_grad for parameter in models["unet"].parameters()]
    set_scale(models, {"default": 0})
    assert torch.equal(predict(models["unet"]), base[0]) and torch.equal(encode(models["text_encoder"]), base[1])
    set_scale(models, {"default": 0.5})
    halfway = predict(models["unet"])
    assert not torch.equal(halfway, trained) and not torch.equal(halfway, base[0])
    assert collect(**models).layers["unet.mid_block.attentions.0.proj_in"].alpha == 4  # a view, not a change
    set_scale(models, {"default": 1})
    assert torch.equal(predict(models["unet"]), trained)
    assert flags == [parameter.requires_grad for parameter in models["unet"].parameters()] and any(flags)


def test_several_loras_add_up_with_their_weights(tmp_path):
    models = make_models(text=False)
    add_lora(models, seed=1)
    one = collect(**models)
    add_lora(models, adapter="two", seed=2)
    two = collect(**models, adapter_name="two")
    unet = make_unet()
    attach(one, unet, "one")
    attach(two, unet, "two")
    set_scale(unet, {"one": 0.5, "two": 2.0})
    both = predict(unet)
    merged = make_unet()
    for name, layer in one.layers.items():
        module = merged.get_submodule(name.removeprefix("unet."))
        module.weight.data += 0.5 * delta(layer) + 2.0 * delta(two.layers[name])
    torch.testing.assert_close(both, predict(merged), atol=1e-5, rtol=1e-5)
    set_scale(unet, {"one": 1.0})
    alone = make_unet()
    attach(one, alone)
    assert torch.equal(predict(unet), predict(alone))
    detach(unet, "one")
    with pytest.raises(ModelError, match=r"'one' is attached; attached: two"):
        set_scale(unet, {"one": 1.0})


def test_detached_the_model_is_what_it_was():
    models = make_models()
    add_lora(models, "all")
    weights = collect(**models)
    fresh = make_models()
    parts = {name: [type(module) for module in model.modules()] for name, model in fresh.items()}
    attach(weights, fresh, "one")
    detach(fresh, "one")
    assert parts == {name: [type(module) for module in model.modules()] for name, model in fresh.items()}
    assert not any(hasattr(model, "peft_config") for model in fresh.values())


def test_attach_moves_no_generator_and_refuses_a_name_twice():
    models = make_models(text=False)
    add_lora(models)
    weights = collect(**models)
    unet = make_unet()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    attach(weights, unet)
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(ModelError, match="already carries an adapter named 'default'"):
        attach(weights, unet)


def test_full_size_sdxl_on_the_meta_device():
    """Parameters at rank 4: attention r * (in + out) summed by hand is 5,806,080, as the diffusers script prints."""
    unet = make_unet("meta", **WIDE)
    targets = {preset: target_modules(preset, unet) for preset in MODULES}
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=targets["all"]), unet)
    loras = {
        name: sum(p.numel() for key, p in module.named_parameters() if "lora_" in key)
        for name, module in unet.named_modules()
        if hasattr(module, "lora_A")
    }
    hits = {preset: [n for key, n in loras.items() if key.endswith(tuple(targets[preset]))] for preset in MODULES}
    assert {preset: (len(sizes), sum(sizes)) for preset, sizes in hits.items()} == {
        "attention": (560, 5_806_080),
        "attention+ff": (722, 10_639_360),
        "all": (788, 12_296_960),
    }
    unet_paths = {path for path in SDXL.inventory if path.startswith("unet.")}
    assert {f"unet.{name}" for name in loras} <= unet_paths and len(unet_paths) == 794


def test_the_description_of_sdxl_is_that_of_the_model():
    described = json.loads(Base.of(make_unet("meta", **WIDE)).description)["unet"]
    assert described == json.loads(SDXL.description)["unet"]


def test_targets_by_list_and_by_expression():
    unet = make_unet()
    assert target_modules(["to_q", "mid_block.resnets.0.conv1", "q_proj"], unet)[0] == "to_q"
    assert target_modules(r".*attn2\.to_[kv]", unet) == r".*attn2\.to_[kv]"
    assert text_target_modules(["to_q", "q_proj"]) == ["q_proj"]
    assert text_target_modules(r".*attn2\.to_[kv]") == ["q_proj", "k_proj", "v_proj", "out_proj"]
    for wrong, sentence in {
        "atention": "matches no module",
        "to_q(": "nor a regular expression",
        r".*norm1": "no linear or convolution",
    }.items():
        with pytest.raises(ConfigError, match=sentence):
            target_modules(wrong, unet)
    with pytest.raises(ConfigError, match="'to_x' matches no module"):
        target_modules(["to_q", "to_x"], unet)
