"""Where a single-file checkpoint keeps each tensor of the base (the sgm layout of SDXL's first release).

In: a part, the name of a tensor as diffusers and transformers have it, and the part's configuration. Out: a Place: the
checkpoint's own name, and how that tensor lies in it. Names: Stability-AI/generative-models, open_clip's transformer.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_OUTER = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


class Place(NamedTuple):
    """A tensor of the checkpoint: the whole of `key`, or one `third` of its rows (0 to 2: q, k, v).

    `transposed`: it lies there with its sides exchanged; `convolution`: as a 1 x 1 convolution of what is linear now.
    """

    key: str
    third: int | None = None
    transposed: bool = False
    convolution: bool = False

    def inner(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the tensor, of that of what the file has there."""
        if self.third is not None and stored[0] % 3 == 0:
            stored = (stored[0] // 3, *stored[1:])
        if self.convolution and stored[2:] == (1, 1):
            stored = stored[:2]
        return stored[::-1] if self.transposed else stored


def place(part: str, name: str, config: Mapping[str, Any]) -> Place:
    """The Place of a tensor of unet, vae, text_encoder or text_encoder_2; KeyError for a name that has none."""
    if part == "unet":
        return Place("model.diffusion_model." + _unet(name, config))
    if part == "vae":
        attends = "mid_block.attentions" in name and name.endswith(".weight") and "group_norm" not in name
        return Place("first_stage_model." + _vae(name, config), convolution=attends)
    inner = name.removeprefix("text_model.")
    if part == "text_encoder":
        return Place(f"conditioner.embedders.0.transformer.text_model.{inner}")
    key, third = _open_clip(inner)
    return Place(f"conditioner.embedders.1.model.{key}", third, transposed=key == "text_projection")


def _unet(name: str, config: Mapping[str, Any]) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem in OUTER:
        return f"{OUTER[stem]}.{leaf}"
    count = config["layers_per_block"] + 1
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, number, rest = match.groups()
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inside(kind, rest)}"
    side, block, kind, number, rest = _matched(BLOCK, name)
    if kind == "downsamplers":
        return f"input_blocks.{(int(block) + 1) * count}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        after = 2 if config["up_block_types"][int(block)].startswith("CrossAttn") else 1
        return f"output_blocks.{(int(block) + 1) * count - 1}.{after}.{rest}"
    at = int(block) * count + int(number) + (side == "down")
    return f"{'input' if side == 'down' else 'output'}_blocks.{at}.{int(kind == 'attentions')}.{_inside(kind, rest)}"


def _inside(kind: str, rest: str) -> str:
    """A residual block's own names; a transformer's are the same in both."""
    stem, _, leaf = rest.rpartition(".")
    return f"{RESNET[stem]}.{leaf}" if kind == "resnets" else rest


def _vae(name: str, config: Mapping[str, Any]) -> str:
    if match := re.match(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        half, kind, number, rest = match.groups()
        if kind == "resnets":
            return f"{half}.mid.block_{int(number) + 1}.{rest}"
        stem, _, leaf = rest.rpartition(".")
        return f"{half}.mid.attn_1.{VAE_ATTENTION[stem]}.{leaf}"
    if match := re.match(r"(encoder|decoder)\.(.+)", name):
        half, rest = match.groups()
        if found := BLOCK.match(rest):
            side, block, kind, number, leaf = found.groups()
            at = int(block) if side == "down" else len(config["block_out_channels"]) - 1 - int(block)
            inner = f"block.{number}" if kind == "resnets" else f"{side}sample"
            return f"{half}.{side}.{at}.{inner}.{leaf.replace('conv_shortcut', 'nin_shortcut')}"
        return f"{half}.{rest.replace('conv_norm_out', 'norm_out')}"
    return name


def _open_clip(name: str) -> tuple[str, int | None]:
    """open_clip's name, and of q, k and v, which it keeps in one tensor, the third of it."""
    if name == "text_projection.weight":
        return "text_projection", None
    if name in OPEN_CLIP_OUTER:
        return OPEN_CLIP_OUTER[name], None
    layer, stem, leaf = _matched(LAYER, name)
    before = f"transformer.resblocks.{layer}"
    if stem in OPEN_CLIP:
        return f"{before}.{OPEN_CLIP[stem]}.{leaf}", None
    return f"{before}.attn.in_proj_{leaf}", "qkv".index(stem.removeprefix("self_attn.")[0])


def _matched(pattern: re.Pattern[str], name: str) -> tuple[str, ...]:
    match = pattern.fullmatch(name)
    if match is None:
        raise KeyError(name)
    return match.groups()
