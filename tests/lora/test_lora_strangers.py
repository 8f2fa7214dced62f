"""LoRA files that other programs wrote: not finite, of LyCORIS' kinds, DoRA over inputs, odd headers, dotted names."""

import json

import pytest
import torch
from safetensors.torch import save_file

from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.layers import delta
from sdxl_nb.lora.names import split_key
from sdxl_nb.system.errors import ModelError

BLOCK = "lora_unet_input_blocks_4_1_transformer_blocks_0"
SELF, CROSS = f"{BLOCK}_attn1_to_q", f"{BLOCK}_attn2_to_k"
PATHS = {
    SELF: "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    CROSS: "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
}


def lora(*modules, rank=2, wide=None, alpha=1.0):
    """A kohya file's tensors: each of these modules of full-size SDXL with a LoRA."""
    torch.manual_seed(0)
    tensors = {}
    for module in modules or (SELF, CROSS):
        about = SDXL.inventory[PATHS.get(module, split_key(f"{module}.alpha")[0])]
        tensors[f"{module}.lora_down.weight"] = torch.randn(rank, wide or about.inputs)
        tensors[f"{module}.lora_up.weight"] = torch.randn(about.outputs, rank)
        tensors[f"{module}.alpha"] = torch.tensor(alpha)
    return tensors


def written(folder, tensors, header=None, name="a.safetensors"):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name, header)
    return folder / name


def refusal(path):
    with pytest.raises(ModelError) as error:
        read_lora(path)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize(
    ("part", "dtype", "value"),
    [
        ("lora_up.weight", torch.float32, float("nan")),
        ("lora_down.weight", torch.float16, float("-inf")),
        ("lora_down.weight", torch.float8_e4m3fn, float("nan")),
        ("lora_up.weight", torch.bfloat16, float("inf")),
        ("alpha", torch.float32, float("nan")),
    ],
)
def test_nan_and_infinity_are_named_and_refused(tmp_path, capsys, part, dtype, value):
    tensors = {key: tensor.to(dtype) for key, tensor in lora().items()}
    bad = tensors[f"{SELF}.{part}"].float()
    bad.view(-1)[-1] = value
    path = written(tmp_path, tensors | {f"{SELF}.{part}": bad.to(dtype)})
    said = f"a.safetensors: 1 of 6 tensors holds NaN or infinity ({SELF}.{part}), which draws black"
    assert refusal(path).startswith(said)
    assert said in str(LoraFile(path).info())
    goal = str(tmp_path / "b.safetensors")
    assert main(["check", str(path)]) == 2 and said in capsys.readouterr().out
    for command in (
        ["convert", str(path), goal],
        ["resize", str(path), goal, "--rank", "1"],
        ["merge", f"{path}=0.5", "--output", goal, "--rank", "4"],
    ):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: {said}")
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_many_bad_tensors_are_counted(tmp_path):
    path = written(tmp_path, {key: tensor * float("nan") for key, tensor in lora().items()})
    assert "6 of 6 tensors hold NaN or infinity" in refusal(path) and refusal(path).count("lora_unet") == 3
    with pytest.raises(ModelError, match="6 of 6"):
        read_lora(path, SDXL)  # as `generate`, `fuse` and `lora_weights` read it


def test_numbers_that_are_none_are_refused_wherever_they_come_from(tmp_path, capsys):
    path = written(tmp_path, lora())
    for weight in ("nan", "inf"):
        assert main(["merge", f"{path}={weight}", "--output", str(tmp_path / "b.safetensors"), "--rank", "4"]) == 2
        assert f"must be a finite number, not {weight}" in capsys.readouterr().err
    assert main(["fuse", "embedded:tiny-sdxl", str(path), str(tmp_path / "b"), "--scale", "nan"]) == 2
    assert "--scale must be a finite number" in capsys.readouterr().err
    keys = {f"{PATHS[SELF]}.lora_A.weight": torch.ones(2, 640), f"{PATHS[SELF]}.lora_B.weight": torch.ones(640, 2)}
    header = {"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'}
    assert "adapter settings in its header are damaged" in refusal(written(tmp_path, keys, header))
    none = {f"{SELF}.lora_down.weight": torch.ones(0, 640), f"{SELF}.lora_up.weight": torch.ones(640, 0)}
    assert "do not fit together" in refusal(written(tmp_path, none))
    assert "is 2 numbers, not one" in refusal(written(tmp_path, lora() | {f"{SELF}.alpha": torch.ones(2)}))


# ----------------------------------------------------------------------------------------------- LyCORIS' kinds

FACTORS = {
    "GLoRA": {"a1.weight": (2, 640), "a2.weight": (640, 2), "b1.weight": (2, 640), "b2.weight": (640, 2)},
    "OFT": {"oft_blocks": (4, 160, 160), "alpha": ()},
    "IA3": {"weight": (640,), "on_input": ()},
    "full weights": {"diff": (640, 640), "diff_b": (640,)},
}


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("name", [SELF, "unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q", PATHS[SELF]])
def test_other_kinds_are_called_what_they_are(tmp_path, capsys, kind, name):
    tensors = {f"{name}.{part}": torch.ones(shape) for part, shape in FACTORS[kind].items()}
    path = written(tmp_path, tensors)
    said = f"{'an' if kind in ('IA3', 'OFT') else 'a'} {kind} file of SDXL, which is not read here yet"
    assert refusal(path).startswith(f"a.safetensors is {said}")
    info = LoraFile(path).info()
    assert (info.kind, info.modules) == (kind, {"unet": 1}) and said in str(info)
    assert info.ranks == ()
    assert main(["check", str(path)]) == 0 and said in capsys.readouterr().out
    assert LoraFile(path).check().unknown == []


def test_norms_beside_a_lora_and_kinds_of_other_models(tmp_path):
    norms = {
        f"{BLOCK}_norm1.w_norm": torch.ones(640),
        "lora_unet_input_blocks_1_0_in_layers_0.b_norm": torch.ones(320),
        "lora_te1_text_model_final_layer_norm.w_norm": torch.ones(768),
    }
    path = written(tmp_path, lora() | norms)
    assert "is a LoRA with trained norms of SDXL" in refusal(path)
    assert LoraFile(path).info().modules == {"unet": 4, "text_encoder": 1}
    for keys, sentence in [
        (
            {f"{CROSS}.hada_w1_b": (2, 768), f"{CROSS}.hada_w1_a": (640, 2)},
            "text width is 768, that of Stable Diffusion 1",
        ),
        ({f"{CROSS}.lokr_w1": (8, 8), f"{CROSS}.lokr_w2": (80, 128)}, "text width is 1024, that of Stable Diffusion 2"),
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lokr_w1": (8, 8)}, "attentions.0.proj_in, which SDXL does not"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lokr_w1": (8, 8)}, "it holds lora_unet_double_blocks_0"),
        ({"diffusion_model.blocks.0.self_attn.q.diff": (8, 8)}, "it holds diffusion_model.blocks"),
        ({"lllite_unet_input_blocks_4_1.down.0.weight": (8, 8)}, "is a ControlNet-LLLite, not a LoRA"),
        ({"clip_g": (1, 1280), "clip_l": (1, 768)}, "is a textual-inversion embedding, not a LoRA"),
        ({"conditioner.embedders.0.x.weight": (1, 8)}, "is a whole model, not a LoRA"),
    ]:
        path = written(tmp_path, {key: torch.ones(shape) for key, shape in keys.items()})
        assert sentence in refusal(path)


def test_a_tucker_convolution_is_read_as_the_change_it_is(tmp_path):
    """LyCORIS: up (1x1) after mid (3x3) after down (1x1), on a picture, against one convolution of our delta."""
    conv = "lora_unet_input_blocks_1_0_in_layers_2"
    torch.manual_seed(0)
    down, mid, up = torch.randn(2, 320, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(320, 2, 1, 1)
    tensors = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor(1.0)}
    path = written(tmp_path, {f"{conv}.{part}": tensor for part, tensor in tensors.items()})
    (layer,) = read_lora(path).layers.values()
    picture = torch.randn(1, 320, 5, 5)
    conv2d = torch.nn.functional.conv2d
    theirs = conv2d(conv2d(conv2d(picture, down), mid, padding=1), up) / 2
    torch.testing.assert_close(conv2d(picture, delta(layer), padding=1), theirs, atol=1e-3, rtol=1e-4)
    assert LoraFile(path).info().kind == "LoRA with lora_mid"
    table = LoraFile(path).check()
    assert table.unknown == [] and "which the lists lack: 1 (" in str(table)
    broken = {f"{conv}.{part}": tensor for part, tensor in (tensors | {"lora_mid.weight": mid[:, :1]}).items()}
    assert "does not fit its other weights" in refusal(written(tmp_path, broken))


# --------------------------------------------------------------------------------------------------------- DoRA


@pytest.mark.parametrize(
    ("shape", "header", "over"),
    [
        ((640, 1), {}, False),
        ((1, 640), {}, True),
        ((640,), {}, False),
        ((640,), {"ss_network_args": '{"wd_on_output": "False"}'}, True),
        ((640,), {"ss_network_args": '{"wd_on_output": "True"}'}, False),
        ((640,), {"ot_config": '{"lora_decompose_output_axis": false}'}, True),
        ((640,), {"ot_config": "{"}, False),
        ((1, 640), {"ot_config": '{"lora_decompose_output_axis": true}'}, True),
    ],
)
def test_dora_over_inputs_is_told_from_dora_over_outputs(tmp_path, shape, header, over):
    header = {"ss_base_model_version": "sdxl_base_v1-0", **header}
    path = written(tmp_path, lora(SELF) | {f"{SELF}.dora_scale": torch.rand(shape)}, header)
    said = f"The DoRA of {PATHS[SELF]} scales inputs ([1, in]"
    assert LoraFile(path).info().kind == "DoRA"
    assert (said in str(LoraFile(path).info()), said in str(LoraFile(path).check())) == (over, over)
    if over:
        assert "scales inputs" in refusal(path)
        assert main(["convert", str(path), str(tmp_path / "b.safetensors"), "--to", "diffusers"]) == 2
        assert not (tmp_path / "b.safetensors").exists()
    else:
        assert read_lora(path).layers[PATHS[SELF]].dora_scale.shape == (640,)


def test_peft_magnitudes_are_outputs_and_a_file_has_one_way(tmp_path):
    conv = "unet.down_blocks.0.resnets.0.conv1"
    keys = {
        f"{conv}.lora_A.weight": torch.ones(2, 320, 3, 3),
        f"{conv}.lora_B.weight": torch.ones(320, 2, 1, 1),
        f"{conv}.lora_magnitude_vector": torch.ones(1, 320, 1, 1),  # peft's shape of it
    }
    assert read_lora(written(tmp_path, keys)).layers[conv].dora_scale.shape == (320,)
    flat = lora() | {f"{SELF}.dora_scale": torch.ones(640), f"{CROSS}.dora_scale": torch.ones(2048)}
    assert "scales inputs" in refusal(written(tmp_path, flat))
    odd = lora(SELF) | {f"{SELF}.dora_scale": torch.ones(7)}
    assert "has 7 magnitudes, its weight 640 rows" in refusal(written(tmp_path, odd))


# ------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize("field", ["ss_base_model_version", "modelspec.architecture"])
@pytest.mark.parametrize(
    "said", ["sdxl", "SDXL 1.0", "stable-diffusion-xl-v1-base/lora", "Pony", "my base", "sd_v1", "", "XL"]
)
def test_shapes_decide_and_headers_are_remarks(tmp_path, field, said):
    path = written(tmp_path, lora(), {field: said, "format": "pt"})
    assert len(read_lora(path).layers) == 2 and LoraFile(path).info().modules == {"unet": 2}
    table = LoraFile(path).check()
    assert table.unknown == [] and table.faults == ()
    assert ("decide" in str(table)) == (said in ("my base", "sd_v1"))
    assert "AUTOMATIC1111 and Forge hide it" in str(table)
    main(["convert", str(path), str(tmp_path / "b.safetensors")])
    assert "hide it" not in str(LoraFile(tmp_path / "b.safetensors").check())


def test_what_shapes_cannot_tell_headers_do(tmp_path):
    old = lora(SELF)  # a width that Stable Diffusion 1 has as well
    for said, sentence in [("sd_v1", "its header says sd_v1"), ("stable-diffusion-v2", "its header says stable-diff")]:
        assert sentence in refusal(written(tmp_path, old, {"ss_base_model_version": said}))
    assert read_lora(written(tmp_path, old, {"ss_base_model_version": "something of mine"})).layers
    kolors = written(tmp_path, lora(), {"ss_base_model_version": "kolors"})
    assert "its header says kolors, whose shapes are SDXL's" in refusal(kolors)
    for wide, model in ((768, "Stable Diffusion 1"), (1024, "Stable Diffusion 2"), (1280, "SDXL's refiner")):
        path = written(tmp_path, lora(CROSS, wide=wide), {"ss_base_model_version": "sdxl_base_v1-0"})
        assert f"its text width is {wide}, that of {model}" in refusal(path)
        assert LoraFile(path).check().faults == (f"It is no SDXL LoRA: its text width is {wide}, that of {model}.",)


# --------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("prefix", ["unet.", "diffusion_model.", "model.diffusion_model.", "base_model.model.", ""])
def test_dotted_sgm_names_are_known_to_info_and_check(tmp_path, capsys, prefix):
    dotted = {
        f"{prefix}input_blocks.4.1.transformer_blocks.0.attn2.to_k": PATHS[CROSS].removeprefix("unet."),
        f"{prefix}middle_block.1.proj_in": "mid_block.attentions.0.proj_in",
        f"{prefix}output_blocks.2.1.proj_out": "up_blocks.0.attentions.2.proj_out",
    }
    tensors = {}
    for name, path in dotted.items():
        module = SDXL.inventory[f"unet.{path}"]
        tensors |= {f"{name}.lora_A.weight": torch.ones(2, module.inputs)}
        tensors |= {f"{name}.lora_B.weight": torch.ones(module.outputs, 2), f"{name}.alpha": torch.tensor(2.0)}
    path = written(tmp_path, tensors)
    assert sorted(read_lora(path).layers) == sorted(f"unet.{name}" for name in dotted.values())
    assert (LoraFile(path).info().naming, LoraFile(path).info().modules) == ("sgm", {"unet": 3})
    table = LoraFile(path).check()
    assert table.rows[0].unknown == () and table.unknown == [] and "convert writes those" in str(table)
    assert main(["convert", str(path), str(tmp_path / "b.safetensors")]) == 0
    assert LoraFile(tmp_path / "b.safetensors").check().unknown == []


@pytest.mark.parametrize(
    ("module", "path"),
    [
        ("lycoris_down_blocks_1_attentions_0_proj_in", "unet.down_blocks.1.attentions.0.proj_in"),
        (
            "text_encoders.clip_l.transformer.text_model.encoder.layers.3.mlp.fc1",
            "text_encoder.text_model.encoder.layers.3.mlp.fc1",
        ),
        (
            "clip_g.transformer.text_model.encoder.layers.3.self_attn.q_proj",
            "text_encoder_2.text_model.encoder.layers.3.self_attn.q_proj",
        ),
        ("unet.label_emb.0.2", "unet.add_embedding.linear_2"),
        ("unet.input_blocks.99.1.proj_in", None),
        ("diffusion_model.double_blocks.0.img_mlp.0", None),
    ],
)
def test_names_of_other_programs(module, path):
    assert split_key(f"{module}.lora_up.weight") == (path and (path, "up"))


def test_remarks_on_readers_without_a_list(tmp_path):
    conv = {
        "lora_unet_input_blocks_1_0_in_layers_2.lora_down.weight": torch.ones(2, 320, 3, 3),
        "lora_unet_input_blocks_1_0_in_layers_2.lora_up.weight": torch.ones(320, 2, 1, 1),
    }
    middle = "lora_unet_middle_block_1_proj_in"
    said = str(LoraFile(written(tmp_path, lora() | conv)).check())
    assert "ignores alpha" in said and "3x3 convolutions" in said and "Draw Things" in said
    said = str(LoraFile(written(tmp_path, lora(SELF, middle, alpha=2.0))).check())
    assert "OpenVINO" not in said and "Draw Things" not in said


def test_a_header_of_json_that_is_no_object(tmp_path):
    header = {"ss_network_args": json.dumps([1]), "ss_base_model_version": "sdxl_base_v1-0"}
    assert read_lora(written(tmp_path, lora(SELF) | {f"{SELF}.dora_scale": torch.ones(640)}, header)).layers
