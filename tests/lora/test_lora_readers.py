"""Which reader knows which key: the recorded lists, the table, the refusal of an unknown key, and DoRA."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from random_sdxl import WIDE, make_unet
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_lora import add_lora, make_models

from sdxl_nb.lora.base import SDXL, Base
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.patterns import fold, unfold
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.readers import (
    DORA,
    FOLDER,
    OPENVINO_CONV,
    OTHER_SIZE,
    WHOLE,
    is_sdxls,
    key_table,
    recorded_readers,
)
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import Layer, collect, delta
from sdxl_nb.lora.names import diffusers_key, kohya_key
from sdxl_nb.lora.targets import target_modules, text_target_modules
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow

READERS = {
    "diffusers": "diffusers",
    "ComfyUI": "kohya",
    "Forge": "kohya",
    "AUTOMATIC1111": "kohya",
    "sd-scripts": "kohya",
}


def test_patterns_fold_and_unfold():
    names = [f"a_{i}_b_{j}" for i in (0, 1, 2, 7) for j in range(12)] + ["c", "d_5", "1_x"]
    patterns = fold(names)
    assert patterns == ["1_x", "a_[0-2,7]_b_[0-11]", "c", "d_5"]
    assert sorted(unfold(patterns)) == sorted(names)


def test_every_list_says_where_it_comes_from_and_is_small():
    assert {reader.name: reader.naming for reader in recorded_readers()} == READERS
    for path in sorted(FOLDER.iterdir()):
        data = json.loads(path.read_text())
        assert data["command"].startswith(f"tests/lora/readers/record.py {path.stem}")
        assert data["repository"].count("/") == 1 and data["commit"] and data["versions"]["torch"]
        assert path.stat().st_size < 40_000


def full_size_keys(preset, dora=False):
    """The keys of both files for full-size SDXL with both text encoders, from the targets of the preset alone."""
    unet = target_modules(preset, make_unet("meta", **WIDE))
    text = text_target_modules(preset)
    paths = [p for p in SDXL.inventory if p.endswith(tuple(f".{t}" for t in (unet if p.startswith("unet.") else text)))]
    parts = ["down", "up", *(["dora_scale"] if dora else [])]
    diffusers = [diffusers_key(path, part) for path in paths for part in parts]
    return diffusers, [kohya_key(path, part, SDXL.layout) for path in paths for part in [*parts, "alpha"]]


@pytest.mark.parametrize(("preset", "modules"), [("attention", 736), ("attention+ff", 986), ("all", 1052)])
def test_every_key_of_full_size_sdxl_is_known_to_every_reader(preset, modules):
    diffusers, kohya = full_size_keys(preset)
    assert (len(diffusers), len(kohya)) == (2 * modules, 3 * modules)
    for keys, naming in ((diffusers, "diffusers"), (kohya, "kohya")):
        table = key_table(keys, SDXL, SDXL.inventory)
        assert [row.reader for row in table.rows] == ["base model", *READERS]
        assert table.notes == ((WHOLE,) if naming == "kohya" else ())
        for row in table.rows[1:]:
            assert row.meant == (READERS[row.reader] == naming)
            assert not row.meant or (row.known, row.unknown) == (len(keys), ())


def test_what_each_reader_makes_of_dora():
    diffusers, kohya = full_size_keys("all", dora=True)
    assert key_table(diffusers, SDXL, SDXL.inventory).rows[1].unknown == ()
    table = key_table(kohya, SDXL, SDXL.inventory)
    assert table.notes == (DORA, WHOLE) and table.unknown == []
    unknown = {row.reader: {key.rpartition(".")[2] for key in row.unknown} for row in table.rows if row.meant}
    assert unknown == {
        "base model": set(),
        "ComfyUI": set(),
        "Forge": set(),
        "AUTOMATIC1111": set(),
        "sd-scripts": {"dora_scale"},
    }


def test_the_dora_formula_of_each_reader():
    """Recorded by running the readers' own code on one layer: record.py --dora."""
    data = json.loads((Path(__file__).parent / "readers" / "dora.json").read_text())
    tensors = {name: torch.tensor(value) for name, value in data["layer"].items()}
    weight, down, up, scale = (tensors[n] for n in ("weight", "lora_down.weight", "lora_up.weight", "dora_scale"))
    layer = Layer(down, up, tensors["alpha"].item(), scale.flatten())
    ours = weight + delta(layer, weight)
    by_base_norm = scale * (weight + layer.scale * up @ down) / weight.norm(dim=1, keepdim=True)
    for reader in ("ComfyUI", "Forge"):
        theirs = torch.tensor(data["merged"][reader]["weight"])
        torch.testing.assert_close(theirs, by_base_norm, atol=1e-6, rtol=0)
    assert (torch.tensor(data["merged"]["AUTOMATIC1111"]["weight"]) - ours).abs().max() > 1
    linear = torch.nn.Module()
    linear.x = torch.nn.Linear(6, 4, bias=False)
    linear.x.weight.data.copy_(weight)
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, use_dora=True, target_modules=["x"]), linear)
    for part, tensor in (
        (linear.x.lora_A, down),
        (linear.x.lora_B, up),
        (linear.x.lora_magnitude_vector, scale.flatten()),
    ):
        part["default"].weight.data.copy_(tensor)
    linear.x.merge()
    torch.testing.assert_close(linear.x.base_layer.weight.data, ours, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    models = make_models()
    add_lora(models, "all")
    return save_lora(collect(**models), tmp_path_factory.mktemp("run"), "style", {})


def test_the_table_of_a_small_base_looks_up_the_full_size_names(saved):
    for path in saved:
        table = LoraFile(path).check()
        kohya = (WHOLE, OPENVINO_CONV) if path.stem == "style" else ()
        assert table.unknown == [] and table.notes == (OTHER_SIZE, *kohya)
        keys = len(load_file(path))
        assert {row.known for row in table.rows if row.meant} == {keys}
        assert table.as_dicts()[0] == {"reader": "base model", "known": keys, "unknown": [], "meant": True}
        assert OTHER_SIZE in str(table) and "| ComfyUI | " in table.markdown()
        assert "<td>ComfyUI</td>" in table._repr_html_()
    assert "give it the other file" in str(LoraFile(saved[0]).check())


def test_a_file_of_ours_with_one_key_renamed_is_refused_by_name(tmp_path, saved, capsys):
    for path in saved:
        tensors = load_file(path)
        key = sorted(key for key in tensors if "to_q" in key)[0]
        tensors[key.replace("to_q", "to_x")] = tensors.pop(key)
        with safe_open(path, "pt") as file:
            save_file(tensors, tmp_path / path.name, file.metadata())
        wrong = key.replace("to_q", "to_x")
        table = LoraFile(tmp_path / path.name).check()
        assert table.unknown == [wrong]
        with pytest.raises(ModelError, match=f"the key {re.escape(wrong)} names no module"):
            read_lora(tmp_path / path.name)
        assert main(["check", str(tmp_path / path.name)]) == 2 and wrong in capsys.readouterr().out


def test_save_refuses_a_key_that_a_reader_does_not_know(tmp_path, monkeypatch):
    models = make_models(text=False)
    add_lora(models)
    comfy = next(reader for reader in recorded_readers() if reader.name == "ComfyUI")
    monkeypatch.delitem(comfy.modules, "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_v")
    with pytest.raises(
        ModelError, match=r"^style.safetensors: ComfyUI does not know the key lora_unet_middle_.*attn2_to_v"
    ):
        save_lora(collect(**models), tmp_path, "style", {})
    assert list(tmp_path.iterdir()) == []


COUNTS = {"attention": 5_806_080, "attention+ff": 10_639_360, "all": 12_296_960}  # at rank 4
CROSS_AT_8 = 7_618_560  # attention, with rank 8 for attn2's to_k and to_v


@pytest.mark.soak
def test_trainable_parameters_of_full_size_sdxl():
    """On the meta device, through peft itself: no number of them exists."""
    ranks = {"attn2.to_k": 8, "attn2.to_v": 8}
    for preset, patterns, count in [*((p, {}, n) for p, n in COUNTS.items()), ("attention", ranks, CROSS_AT_8)]:
        unet = make_unet("meta", **WIDE)
        targets = target_modules(preset, unet)
        inject_adapter_in_model(LoraConfig(r=4, target_modules=targets, rank_pattern=patterns), unet)
        assert sum(p.numel() for name, p in unet.named_parameters() if "lora_" in name) == count
        assert all(p.is_meta for p in unet.parameters())


def test_an_inpainting_base_has_the_keys_of_full_size_sdxl():
    about = json.loads(SDXL.description)
    about["unet"]["in_channels"] = 9
    table = key_table(["unet.mid_block.attentions.0.proj_in.lora_A.weight"], Base(json.dumps(about)), SDXL.inventory)
    assert OTHER_SIZE not in table.notes
    about["unet"]["block_out_channels"] = [64, 96, 128]
    other = key_table(["unet.mid_block.attentions.0.proj_in.lora_A.weight"], Base(json.dumps(about)), SDXL.inventory)
    assert OTHER_SIZE in other.notes


def test_the_recorded_list_of_diffusers_tells_full_size_sdxls_modules():
    listed = [path for path in recorded_readers()[0].modules if path.startswith(("unet.", "text_encoder"))]
    assert {path for path in {*listed, *SDXL.inventory} if is_sdxls(path)} == set(SDXL.inventory)
    assert not is_sdxls("") and not is_sdxls("unet.down_blocks.0.attentions.0.proj_in")


def test_what_openvino_genai_draws():
    """Recorded with its own pipeline, beside diffusers' pictures: readers/openvino_pictures.py."""
    recorded = json.loads((Path(__file__).parent / "readers" / "openvino.json").read_text())
    found = recorded["largest_difference_of_each_picture"]
    assert max(found["base"]) <= 2
    for name in ("plain", "alpha_folded"):
        assert min(found[name]["what the LoRA changes in diffusers"]) > 20
        assert max(found[name]["STATIC"]) <= 2
    assert max(found["plain"]["FUSE"]) <= 2
    assert min(found["alpha"]["STATIC"]) > 20 and min(found["dora"]["STATIC"]) > 2
    assert "Convolutional kernel is not supported" in found["convolutions"]["STATIC"]
    assert found["plain"]["AUTO"][0] <= 2 < min(found["plain"]["AUTO"][1:]), "the later pictures of a pipeline"
