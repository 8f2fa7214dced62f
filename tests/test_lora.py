"""LoRA on live models and in files: every kind of LoRA, through both formats, back onto the model."""

import functools
import itertools
import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from random_sdxl import WIDE, make_pipeline, make_text_encoders, make_unet
from safetensors.torch import load_file, save_file

from sdxl_nb.errors import ConfigError, ModelError
from sdxl_nb.lora import (
    LoraFile,
    attach,
    collect,
    delta,
    detach,
    read_lora,
    save_lora,
    set_scale,
    target_modules,
    text_target_modules,
)
from sdxl_nb.lora.base import SDXL, Base
from sdxl_nb.lora.layers import models_of
from sdxl_nb.lora.metadata import data_hashes

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


@pytest.mark.parametrize(("targets", "dora", "alpha"), MATRIX)
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


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True, "r": 3}, {"lora_alpha": 10}])
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
    ("attention+ff", False, {"lora_alpha": 10}),
    ("all", False, {"lora_alpha": 10}),
    ("all", False, {"use_dora": True}),
    ("attention", True, {"lora_alpha": 10}),
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


# ------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    models = make_models()
    add_lora(models, "all")
    weights = collect(**models)
    return weights, *save_lora(weights, tmp_path_factory.mktemp("run"), "style", {})


def rewrite(source, goal, change, metadata=True):
    from safetensors import safe_open

    with safe_open(source, "pt") as file:
        header = file.metadata() if metadata else None
    save_file(dict(change(key, tensor) for key, tensor in load_file(source).items()), goal, header)
    return goal


def test_the_data_of_a_file_is_aligned(saved):
    for path in saved[1:]:
        blob = path.read_bytes()
        assert (8 + int.from_bytes(blob[:8], "little")) % 64 == 0
        metadata = LoraFile(path).metadata
        assert metadata["sshs_model_hash"] == data_hashes(blob)["sshs_model_hash"]
        assert {"ss_base_model_version", "ss_network_dim", "ss_network_alpha", "ss_v2"} <= metadata.keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_hold_the_rounded_weights(tmp_path, saved, dtype):
    for path in save_lora(saved[0], tmp_path, "half", {}, dtype):
        again = read_lora(path)
        for name, layer in saved[0].layers.items():
            assert torch.equal(again.layers[name].down, layer.down.to(dtype).float())
            assert again.layers[name].alpha == 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half.safetensors", "pytorch_lora_weights.safetensors"]


def test_a_failed_save_leaves_the_old_files(tmp_path, saved):
    weights = saved[0]
    before = [path.read_bytes() for path in save_lora(weights, tmp_path, "style", {})]
    bad = dict(weights.layers)
    name = "unet.mid_block.attentions.0.proj_in"
    for layer, sentence in [
        (type(bad[name])(bad[name].down * float("nan"), bad[name].up, 4.0), "proj_in are not finite"),
        (type(bad[name])(bad[name].down[:, :3], bad[name].up, 4.0), "proj_in is not one of the base model's"),
    ]:
        with pytest.raises(ModelError, match=sentence):
            save_lora(type(weights)({**bad, name: layer}, weights.base), tmp_path, "style", {})
    with pytest.raises(ModelError, match=r"unet\.mid_block\.attentions\.7\.proj_in is not one of"):
        save_lora(
            type(weights)({"unet.mid_block.attentions.7.proj_in": bad[name]}, weights.base), tmp_path, "style", {}
        )
    after = [(tmp_path / file).read_bytes() for file in ("pytorch_lora_weights.safetensors", "style.safetensors")]
    assert before == after and len(list(tmp_path.iterdir())) == 2
    for wrong in ("", "a/b", "pytorch_lora_weights"):
        with pytest.raises(ModelError, match="cannot name the kohya file"):
            save_lora(weights, tmp_path, wrong, {})


def test_files_of_others_are_read(tmp_path, saved):
    """kohya with diffusers' block names; diffusers' lora.down/up; the mangled te1 of diffusers' converter; PEFT."""
    weights, diffusers, _ = saved

    def same(path):
        again = read_lora(path)
        assert again.layers.keys() == weights.layers.keys()
        assert all(torch.equal(again.layers[name].up, layer.up) for name, layer in weights.layers.items())
        assert {layer.alpha for layer in again.layers.values()} == {4}

    def to_blocks(key, tensor):
        key = key.replace("unet.", "lora_unet_").replace("text_encoder.text_model", "lora_te1")
        key = key.replace("text_encoder_2.", "lora_te2_").replace("lora_A", "lora_down").replace("lora_B", "lora_up")
        module, _, part = key.partition(".lora_")
        return f"{module.replace('.', '_')}.lora_{part}", tensor

    same(rewrite(diffusers, tmp_path / "blocks.safetensors", to_blocks, metadata=False))
    spelled = {"lora_A": "lora.down", "lora_B": "lora.up"}
    old = lambda key, tensor: (key.replace("lora_A", spelled["lora_A"]).replace("lora_B", spelled["lora_B"]), tensor)  # noqa: E731
    same(rewrite(diffusers, tmp_path / "old.safetensors", old))
    flat = lambda key, tensor: (key.replace("text_encoder.text_model.", "text_encoder."), tensor)  # noqa: E731
    same(rewrite(diffusers, tmp_path / "flat.safetensors", flat))
    same(diffusers.parent)  # the folder means its diffusers file


def test_a_peft_folder_brings_its_alpha(tmp_path):
    models = make_models(text=False)
    add_lora(models, lora_alpha=16, use_rslora=True)
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(models["unet"])
    save_file(
        {f"base_model.model.{k}": v.contiguous() for k, v in state.items()}, tmp_path / "adapter_model.safetensors"
    )
    settings = {"lora_alpha": 16, "r": 4, "use_rslora": True, "alpha_pattern": {}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    assert {layer.alpha for layer in read_lora(tmp_path).layers.values()} == {32}


def test_a_renamed_key_is_refused_by_name(tmp_path, saved):
    _, diffusers, kohya = saved
    wrong = "lora_unet_middle_block_1_proj_inn.alpha"
    broken = rewrite(
        kohya,
        tmp_path / "k.safetensors",
        lambda k, t: (wrong if k == "lora_unet_middle_block_1_proj_in.alpha" else k, t),
    )
    with pytest.raises(ModelError, match=wrong):
        read_lora(broken)
    assert LoraFile(broken).check().unknown == [wrong]
    moved = rewrite(
        diffusers,
        tmp_path / "d.safetensors",
        lambda k, t: (k.replace("mid_block.attentions.0", "mid_block.attentions.5"), t),
    )
    with pytest.raises(ModelError, match=r"the key unet\.mid_block\.attentions\.5\.\S+ names no module of the base"):
        read_lora(moved)
    models = make_models()
    with pytest.raises(ModelError, match=r"mid_block\.attentions\.5\.\S+, which this base model does not have"):
        attach(read_lora(moved, SDXL), models)
    table = LoraFile(moved).check()
    assert all("attentions.5" in key for key in table.unknown) and len(table.unknown) == 2 * 12


def test_files_that_are_no_sdxl_lora_say_so_in_one_sentence(tmp_path, saved):
    kohya = saved[2]
    blob = kohya.read_bytes()
    torch.save({"a": torch.ones(1)}, tmp_path / "disguised.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"anything")
    (tmp_path / "cut.safetensors").write_bytes(blob[: len(blob) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    sd1 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    save_file({sd1: torch.zeros(4, 768)}, tmp_path / "sd1.safetensors")
    save_file({sd1: torch.zeros(4, 9)}, tmp_path / "header.safetensors", {"ss_base_model_version": "sd_v1"})
    save_file({"transformer.x.lora_A.weight": torch.zeros(4, 9)}, tmp_path / "flux.safetensors")
    save_file({"nothing.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    save_file({}, tmp_path / "none.safetensors")
    save_file({"lora_unet_middle_block_1_proj_in.lora_up.weight": torch.zeros(4, 9)}, tmp_path / "half.safetensors")
    rewrite(
        kohya, tmp_path / "odd.safetensors", lambda k, t: (k, t[:, :2].clone() if k.endswith("lora_up.weight") else t)
    )
    sentences = {
        "disguised.safetensors": "pickled file",
        "old.ckpt": "pickled file",
        "cut.safetensors": "truncated",
        "empty.safetensors": "truncated",
        "sd1.safetensors": "no SDXL LoRA: its text width is 768, that of Stable Diffusion 1",
        "header.safetensors": "its header says sd_v1",
        "flux.safetensors": r"no SDXL LoRA: it holds transformer\.x",
        "model.safetensors": r"the key nothing\.weight is no LoRA",
        "none.safetensors": "holds no tensors",
        "half.safetensors": "the down weight of unet.mid_block.attentions.0.proj_in is missing",
        "odd.safetensors": "do not fit together",
        "missing.safetensors": "There is no LoRA file or folder",
        ".": "holds 10 .safetensors files",
    }
    for name, sentence in sentences.items():
        with pytest.raises(ModelError, match=sentence) as error:
            read_lora(tmp_path / name)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "header",
    [
        {"lora_adapter_metadata": "{"},
        {"lora_adapter_metadata": "[]"},
        {"lora_adapter_metadata": '{"unet.alpha_pattern": {"(a+)+$": 1}}'},
        {"sdxl_nb_base": '{"unet": {"block_out_channels": [1]}}'},
        {"sdxl_nb_base": SDXL.description.replace('"layers_per_block": 2', '"layers_per_block": 4000')},
        {"sdxl_nb_base": SDXL.description.replace('"num_hidden_layers": 12', '"num_hidden_layers": 1000000')},
    ],
)
def test_a_hostile_header_is_a_sentence(tmp_path, saved, header):
    save_file(load_file(saved[1]), tmp_path / "x.safetensors", header)
    with pytest.raises(ModelError, match="header"):
        read_lora(tmp_path / "x.safetensors")


def test_another_width_is_refused_before_anything_is_changed(saved):
    models = make_models()
    models["unet"] = make_unet(cross_attention_dim=48)
    with pytest.raises(ModelError, match=r"attn2\.to_k is 16x64, the base model's is 16x48: another architecture"):
        attach(saved[0], models)
    assert not any(hasattr(module, "lora_A") for model in models.values() for module in model.modules())
    with pytest.raises(ModelError, match="layers for text_encoder, but the models given"):
        attach(saved[0], make_unet())


def test_table_and_info_show_what_the_file_holds(saved):
    _, diffusers, kohya = saved
    unknown = {"lora_unet_middle_block_1_proj_in.alpha"}
    names = set(load_file(kohya)) - unknown
    table = LoraFile(kohya).check(readers={"<b>UI</b>": names})
    assert table.as_dicts() == [
        {"reader": "base model", "known": 182 * 3, "unknown": [], "meant": True},
        {"reader": "<b>UI</b>", "known": 182 * 3 - 1, "unknown": [*unknown], "meant": True},
    ]
    assert "1: lora_unet_middle_block_1_proj_in.alpha" in str(table)
    assert "&lt;b&gt;UI" in table._repr_html_() and "<b>" not in table._repr_html_()
    info = LoraFile(diffusers).info()
    assert (info.naming, info.ranks, info.alphas, info.dora) == ("diffusers", (4,), (4.0,), False)
    assert info.modules == {"unet": 158, "text_encoder": 12, "text_encoder_2": 12}
    assert info.base_model_version == "sdxl_base_v1-0" and info.config is None
    assert "rank           4" in str(info) and "<table>" in info._repr_html_()
