"""Module and key names: the well-known ones by hand, all of them by round trip over full-size SDXL."""

import pytest
from random_sdxl import WIDE, make_unet

from sdxl_nb.lora.names import Layout, canonical_name, canonical_path, kohya_key, kohya_name, split_key

TINY = Layout(layers_per_block=1)
KNOWN = {
    "unet.conv_in": "lora_unet_input_blocks_0_0",
    "unet.conv_out": "lora_unet_out_2",
    "unet.time_embedding.linear_1": "lora_unet_time_embed_0",
    "unet.add_embedding.linear_2": "lora_unet_label_emb_0_2",
    "unet.down_blocks.0.resnets.1.conv1": "lora_unet_input_blocks_2_0_in_layers_2",
    "unet.down_blocks.0.downsamplers.0.conv": "lora_unet_input_blocks_3_0_op",
    "unet.down_blocks.1.resnets.0.conv_shortcut": "lora_unet_input_blocks_4_0_skip_connection",
    "unet.down_blocks.1.attentions.0.proj_in": "lora_unet_input_blocks_4_1_proj_in",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    ),
    "unet.down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj": (
        "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_0_proj"
    ),
    "unet.mid_block.resnets.1.conv2": "lora_unet_middle_block_2_out_layers_3",
    "unet.mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0": (
        "lora_unet_middle_block_1_transformer_blocks_3_attn2_to_out_0"
    ),
    "unet.up_blocks.0.attentions.0.proj_out": "lora_unet_output_blocks_0_1_proj_out",
    "unet.up_blocks.0.upsamplers.0.conv": "lora_unet_output_blocks_2_2_conv",
    "unet.up_blocks.1.upsamplers.0.conv": "lora_unet_output_blocks_5_2_conv",
    "unet.up_blocks.2.resnets.2.time_emb_proj": "lora_unet_output_blocks_8_0_emb_layers_1",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    ),
    "text_encoder_2.text_model.encoder.layers.31.mlp.fc2": "lora_te2_text_model_encoder_layers_31_mlp_fc2",
}


@pytest.mark.parametrize(("path", "kohya"), KNOWN.items())
def test_well_known_names_of_sdxl(path, kohya):
    assert kohya_name(path) == kohya
    assert canonical_name(kohya) == path


@pytest.mark.parametrize("config", [WIDE, {}, {"layers_per_block": 3}], ids=["sdxl", "tiny", "three layers"])
def test_every_linear_and_conv_has_one_name_and_comes_back(config):
    unet = make_unet("meta", **config)
    layout = Layout.of(unet.config)
    paths = [f"unet.{name}" for name, module in unet.named_modules() if type(module).__name__ in ("Linear", "Conv2d")]
    names = [kohya_name(path, layout) for path in paths]
    assert None not in names and len(set(names)) == len(paths)
    assert [canonical_name(name, layout) for name in names] == paths
    # kohya files that kept diffusers' block names are read as well
    assert [canonical_name("lora_" + path.replace(".", "_"), layout) for path in paths] == paths
    if config is WIDE:
        assert len(paths) == 794


def test_numbers_follow_the_layers_per_block():
    assert kohya_name("unet.down_blocks.1.attentions.0.proj_in", TINY) == "lora_unet_input_blocks_3_1_proj_in"
    assert kohya_name("unet.down_blocks.0.downsamplers.0.conv", TINY) == "lora_unet_input_blocks_2_0_op"
    assert kohya_name("unet.up_blocks.1.upsamplers.0.conv", TINY) == "lora_unet_output_blocks_3_2_conv"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", ("unet.mid_block.attentions.0.proj_in", "down")),
        ("unet.mid_block.attentions.0.proj_in.lora.up.weight", ("unet.mid_block.attentions.0.proj_in", "up")),
        ("mid_block.attentions.0.proj_in.lora_B.default.weight", ("unet.mid_block.attentions.0.proj_in", "up")),
        (
            "base_model.model.mid_block.resnets.0.conv1.lora_magnitude_vector",
            ("unet.mid_block.resnets.0.conv1", "dora_scale"),
        ),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "down"),
        ),
        (
            "text_encoder.encoder.layers.1.mlp.fc1.lora_A.weight",
            ("text_encoder.text_model.encoder.layers.1.mlp.fc1", "down"),
        ),
        (
            "text_encoder_2.text_model.encoder.layers.1.self_attn.to_q_lora.up.weight",
            ("text_encoder_2.text_model.encoder.layers.1.self_attn.q_proj", "up"),
        ),
        (
            "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.lora_linear_layer.down.weight",
            ("text_encoder.text_model.encoder.layers.1.self_attn.q_proj", "down"),
        ),
        ("lora_unet_middle_block_1_proj_in.alpha", ("unet.mid_block.attentions.0.proj_in", "alpha")),
        ("lora_unet_middle_block_1_proj_in.dora_scale", ("unet.mid_block.attentions.0.proj_in", "dora_scale")),
        (
            "lora_te1_encoder_layers_0_self_attn_k_proj.lora_up.weight",
            ("text_encoder.text_model.encoder.layers.0.self_attn.k_proj", "up"),
        ),
        ("lora_unet_middle_block_1_proj_inn.alpha", None),
        ("lora_unet_input_blocks_3_1_proj_in.alpha", None),  # SDXL's third input block is a downsampler
        ("lora_unet_output_blocks_0_0_op.alpha", None),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", None),
        ("lora_unet_middle_block_1_proj_in.hada_w1_a", ("unet.mid_block.attentions.0.proj_in", "hada_w1_a")),
        ("transformer.single_blocks.0.lora_A.weight", None),
    ],
)
def test_keys_of_every_format(key, expected):
    assert split_key(key) == expected


def test_flattened_and_nested_text_encoders_are_one():
    nested = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    assert canonical_path("text_encoder.encoder.layers.0.mlp.fc1") == canonical_path(nested) == nested


def test_a_module_without_a_kohya_name_has_no_key():
    assert kohya_key("unet.mid_block.attentions.0.norm", "alpha", Layout()) == (
        "lora_unet_middle_block_1_norm.alpha"  # names are structure only; the base's inventory says what exists
    )
    assert kohya_key("unet.encoder_hid_proj", "alpha", Layout()) is None
    assert kohya_key("vae.encoder", "alpha", Layout()) is None
