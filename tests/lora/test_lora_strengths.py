"""Strengths beside the tensors: files that diffusers and peft save, against the change that peft itself makes."""

import os
import warnings

import pytest
import torch
from random_sdxl import make_pipeline
from safetensors.torch import save_file

from sdxl_nb.lora.base import Base
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.layers import delta
from sdxl_nb.system.errors import ModelError

HALF = {"r": 4, "lora_alpha": 2, "target_modules": ["to_q", "to_k"], "init_lora_weights": False}


@pytest.fixture(scope="module")
def unet():
    return make_pipeline().unet


def changes(model):
    """What peft itself adds to each weight."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight") and "default" in getattr(module, "scaling", {}):
            found[f"unet.{name}"] = module.get_delta_weight("default").detach()
    return found


def assert_same(path, unet, expected):
    base = Base.of(unet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers = read_lora(path, base).layers
    assert layers.keys() == expected.keys() and len(layers) > 10
    for name, change in expected.items():
        torch.testing.assert_close(delta(layers[name]).reshape(change.shape), change, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "more", [{}, {"use_rslora": True}, {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_q": 7, "attn1.to_k": 3}}]
)
def test_a_header_of_one_model_alone_says_its_alpha(tmp_path, unet, more):
    """diffusers' save_lora_adapter writes keys and settings without "unet." in front."""
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(**HALF, **more))
    try:
        unet.save_lora_adapter(tmp_path)
        assert_same(tmp_path / "pytorch_lora_weights.safetensors", unet, changes(unet))
    finally:
        unet.delete_adapters("default")


@pytest.mark.parametrize("kind", ["LoraConfig", "LoHaConfig", "LoKrConfig", "whole LoKr"])
def test_peft_folders_bring_their_strength_whatever_the_file_is_called(tmp_path, kind):
    """PEFT's LoHa and LoKr call it alpha, and a LoKr of two whole factors is alpha / r strong there."""
    import peft

    config = {"r": 4, "alpha": 2, "target_modules": ["to_q"], "init_weights": False}
    if kind == "LoraConfig":
        config = HALF
    elif kind == "whole LoKr":
        config |= {"r": 64, "alpha": 16}
    wrapped = peft.get_peft_model(
        make_pipeline().unet, getattr(peft, kind.split()[-1].removesuffix("Config") + "Config")(**config)
    )
    wrapped.save_pretrained(tmp_path)
    own = wrapped.base_model.model
    assert_same(tmp_path / "adapter_model.safetensors", own, changes(own))
    os.rename(tmp_path / "adapter_model.safetensors", tmp_path / "mine.safetensors")
    assert_same(tmp_path / "mine.safetensors", own, changes(own))


@pytest.mark.parametrize("encoder", ["text_encoder", "text_encoder_2"])
def test_peft_files_of_a_text_encoder_do_not_say_of_which(tmp_path, encoder):
    import peft

    given = peft.LoraConfig(r=4, target_modules=["q_proj"])
    peft.get_peft_model(getattr(make_pipeline(), encoder), given).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"of one text encoder.* of which of SDXL's two: save .*\.save_lora_weights"):
        read_lora(tmp_path / "adapter_model.safetensors")


def raw(unet, folder, *names):
    """A state dict as torch gives it, with the names of adapters in its keys."""
    import peft

    wrapped = peft.get_peft_model(make_pipeline().unet, peft.LoraConfig(**HALF), adapter_name=names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, peft.LoraConfig(**HALF))
    path = folder / "raw.safetensors"
    save_file({key: t.clone() for key, t in wrapped.state_dict().items() if ".lora_" in key}, path)
    return path


def test_an_alpha_that_is_nowhere_is_said(tmp_path, unet, capsys):
    """Another adapter's name in the keys is read, too."""
    path = raw(unet, tmp_path, "style")
    with pytest.warns(
        UserWarning, match="raw.safetensors is PEFT's, which writes alpha into adapter_config.json"
    ) as told:
        layers = read_lora(path, Base.of(unet)).layers
    assert len(told) == 1 and {layer.scale for layer in layers.values()} == {1.0}
    assert any("adapter_config.json" in remark for remark in LoraFile(path).info().remarks)
    assert any("adapter_config.json" in note for note in LoraFile(path).check().notes)
    assert main(["diff", str(path), str(path)]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: raw.safetensors is PEFT's") and err.count("warning: ") == 1


def test_two_adapters_in_one_file_are_refused(tmp_path, unet):
    with pytest.raises(ModelError, match="under another name too"):
        read_lora(raw(unet, tmp_path, "style", "face"), Base.of(unet))


def test_an_alpha_by_an_expression_is_called_that(tmp_path, unet):
    """It is not run, and nothing is damaged."""
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(**HALF, alpha_pattern={".*attn1.*": 7}))
    try:
        unet.save_lora_adapter(tmp_path)
    finally:
        unet.delete_adapters("default")
    with pytest.raises(ModelError, match=r"name modules by an expression, \.\*attn1"):
        read_lora(tmp_path / "pytorch_lora_weights.safetensors", Base.of(unet))


def test_an_alpha_of_0_is_said(tmp_path):
    module = "lora_unet_input_blocks_4_1_transformer_blocks_{}_attn1_to_q"
    tensors = {}
    for number, alpha in enumerate((0.0, 2.0)):
        name = module.format(number)
        tensors |= {f"{name}.lora_down.weight": torch.ones(2, 640), f"{name}.lora_up.weight": torch.ones(640, 2)}
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    path = tmp_path / "half.safetensors"
    save_file(tensors, path)
    sentence = "half.safetensors: alpha is 0 in 1 of 2 layers (unet.down_blocks.1.attentions.0.transformer_blocks.0."
    with pytest.warns(UserWarning, match="alpha is 0 in 1 of 2 layers"):
        read_lora(path)
    for told in (LoraFile(path).info().remarks, LoraFile(path).check().notes):
        assert len([line for line in told if line.startswith(sentence)]) == 1


def test_what_half_precision_rounds_away_is_said(tmp_path, capsys):
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 640), f"{name}.lora_up.weight": torch.full((640, 2), 1e-8)}
    save_file(tensors, tmp_path / "small.safetensors")
    for dtype, said in (("float16", 1), ("bfloat16", 0), ("float32", 0)):
        goal = tmp_path / f"{dtype}.safetensors"
        assert main(["convert", str(tmp_path / "small.safetensors"), str(goal), "--dtype", dtype]) == 0
        told = "the weights of 1 of 1 layers are too small for float16, which rounds away up to 100% of them"
        assert capsys.readouterr().err.count(told) == said
