"""LoRA files on disk: written whole or not at all, read from others, refused in one sentence when unfit."""

import json

import pytest
import torch
from random_sdxl import make_unet
from safetensors.torch import load_file, save_file
from test_lora import add_lora, make_models

from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.metadata import data_hashes
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import attach, collect
from sdxl_nb.system.errors import ModelError


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
        (type(bad[name])(bad[name].down[:, :3], bad[name].up, 4.0), "layer for .*proj_in is 16x3, the base"),
    ]:
        with pytest.raises(ModelError, match=sentence):
            save_lora(type(weights)({**bad, name: layer}, weights.base), tmp_path, "style", {})
    with pytest.raises(ModelError, match=r"unet\.mid_block\.attentions\.7\.proj_in is not one of"):
        save_lora(
            type(weights)({"unet.mid_block.attentions.7.proj_in": bad[name]}, weights.base), tmp_path, "style", {}
        )
    after = [(tmp_path / file).read_bytes() for file in ("pytorch_lora_weights.safetensors", "style.safetensors")]
    assert before == after and len(list(tmp_path.iterdir())) == 2
    for wrong in ("", "a/b", "pytorch_lora_weights", "pytorch_lora_weights.safetensors", ".safetensors"):
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
