"""Names of LoRA modules and tensors: strings in, strings out, no tensors.

A module has one canonical path here, the one diffusers and PEFT files use: `unet.<path in the U-Net>`,
`text_encoder.text_model.encoder...` and `text_encoder_2.text_model.encoder...`. This module turns it into the kohya
(sgm) name that every UI reads and back, and cuts a key of any known file format into (module, part).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

UNET, TE1, TE2 = COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
KOHYA_PREFIXES = {UNET: "lora_unet", TE1: "lora_te1", TE2: "lora_te2"}
PEFT_WRAPPER = "base_model.model."  # in front of keys that PEFT itself saves
LYCORIS = "lycoris"  # of LyCORIS' own wrapper around a U-Net

# Dotted paths in other programs' files: how ComfyUI and checkpoints call the parts.
OTHER_PARTS = {
    "model.diffusion_model.": UNET,
    "diffusion_model.": UNET,
    "text_encoders.clip_l.transformer.": TE1,
    "text_encoders.clip_g.transformer.": TE2,
    "clip_l.transformer.": TE1,
    "clip_g.transformer.": TE2,
    "clip_l.": TE1,
    "clip_g.": TE2,
}
SGM = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")

# Inside a residual block: diffusers name -> sgm name.
RESNET_TAILS = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
# Outside the blocks.
OUTER_NAMES = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding.linear_1": "time_embed_0",
    "time_embedding.linear_2": "time_embed_2",
    "add_embedding.linear_1": "label_emb_0_0",
    "add_embedding.linear_2": "label_emb_0_2",
}
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
ATTENTION_TAILS = (
    *(f"{attention}.{name}" for attention in ("attn1", "attn2") for name in PROJECTIONS),
    "ff.net.0.proj",
    "ff.net.2",
)
TEXT_TAILS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")

_RESNET_BACK = {sgm: name for name, sgm in RESNET_TAILS.items()}
_OUTER_BACK = {sgm: name for name, sgm in OUTER_NAMES.items()}
_FLAT_ATTENTION = {tail.replace(".", "_"): tail for tail in ATTENTION_TAILS}
_FLAT_TEXT = {tail.replace(".", "_"): tail for tail in TEXT_TAILS}
_FLAT_OUTER = {name.replace(".", "_"): name for name in OUTER_NAMES}


@dataclass(frozen=True)
class Layout:
    """What the sgm numbers depend on: resnets per down block, and which up blocks have attention."""

    layers_per_block: int = 2
    up_attention: tuple[bool, ...] = (True, True, False)

    @classmethod
    def of(cls, unet_config: Mapping[str, Any]) -> "Layout":
        """The layout of a diffusers U-Net config (a dict or FrozenDict)."""
        return cls(
            layers_per_block=int(unet_config["layers_per_block"]),
            up_attention=tuple("CrossAttn" in name for name in unet_config["up_block_types"]),
        )


SDXL = Layout()


def kohya_name(path: str, layout: Layout = SDXL) -> str | None:
    """`unet.mid_block.attentions.0.proj_in` -> `lora_unet_middle_block_1_proj_in`; None if it has no kohya name."""
    component, _, inner = path.partition(".")
    if component not in KOHYA_PREFIXES:
        return None
    tail = _sgm_path(inner, layout) if component == UNET else inner.replace(".", "_")
    return tail and f"{KOHYA_PREFIXES[component]}_{tail}"


def _sgm_path(inner: str, layout: Layout) -> str | None:
    if inner in OUTER_NAMES:
        return OUTER_NAMES[inner]
    span = layout.layers_per_block + 1  # every block's layers, and its down- or upsampler
    if match := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", inner):
        return f"input_blocks_{(int(match[1]) + 1) * span}_0_op"
    if match := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", inner):
        block = int(match[1])
        place = 2 if layout.up_attention[block] else 1
        return f"output_blocks_{(block + 1) * span - 1}_{place}_conv"
    if match := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", inner):
        side, block, kind, layer, tail = match[1], int(match[2]), match[3], int(match[4]), match[5]
        number = block * span + layer + (1 if side == "down" else 0)
        prefix = f"{'input' if side == 'down' else 'output'}_blocks_{number}_{0 if kind == 'resnets' else 1}"
    elif match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", inner):
        kind, tail = match[1], match[3]
        prefix = f"middle_block_{1 if kind == 'attentions' else 2 * int(match[2])}"
    else:
        return None
    sgm_tail = RESNET_TAILS.get(tail) if kind == "resnets" else tail.replace(".", "_")
    return sgm_tail and f"{prefix}_{sgm_tail}"


def canonical_name(kohya: str, layout: Layout = SDXL) -> str | None:
    """The canonical path of a kohya module name, with sgm or diffusers block names; None if it is not SDXL's."""
    for component, prefix in (*KOHYA_PREFIXES.items(), (UNET, LYCORIS)):
        if kohya.startswith(prefix + "_"):
            return _flat_path(component, kohya[len(prefix) + 1 :], layout)
    return None


def _flat_path(component: str, flat: str, layout: Layout) -> str | None:
    inner = _unet_path(flat, layout) if component == UNET else _text_path(flat)
    return inner and f"{component}.{inner}"


def _text_path(flat: str) -> str | None:
    if flat == "text_projection":
        return flat
    # diffusers' own converter loses "text_model" with transformers >= 5.6
    match = re.fullmatch(r"(?:text_model_)?encoder_layers_(\d+)_(.+)", flat)
    if match is None or match[2] not in _FLAT_TEXT:
        return None
    return f"text_model.encoder.layers.{match[1]}.{_FLAT_TEXT[match[2]]}"


def _unet_path(flat: str, layout: Layout) -> str | None:
    if outer := _OUTER_BACK.get(flat) or _FLAT_OUTER.get(flat):
        return outer
    if match := re.fullmatch(r"(input|output)_blocks_(\d+)_([012])_(.+)", flat):
        return _from_sgm_block(match[1], int(match[2]), int(match[3]), match[4], layout)
    if match := re.fullmatch(r"middle_block_([012])_(.+)", flat):
        kind = "attentions" if match[1] == "1" else "resnets"
        return _with_tail("mid_block", kind, int(match[1]) // 2, match[2], _RESNET_BACK.get(match[2]))
    if match := re.fullmatch(r"(down|up)_blocks_(\d+)_(down|up)samplers_0_conv", flat):
        return f"{match[1]}_blocks.{match[2]}.{match[3]}samplers.0.conv" if match[1] == match[3] else None
    if match := re.fullmatch(r"(?:(down|up)_blocks_(\d+)|mid_block)_(resnets|attentions)_(\d+)_(.+)", flat):
        block = f"{match[1]}_blocks.{match[2]}" if match[1] else "mid_block"
        tail = match[5] if match[5] in RESNET_TAILS else None
        return _with_tail(block, match[3], int(match[4]), match[5], tail)
    return None


def _from_sgm_block(side: str, number: int, place: int, tail: str, layout: Layout) -> str | None:
    span = layout.layers_per_block + 1
    block, layer = divmod(number - 1 if side == "input" else number, span)
    name = f"{'down' if side == 'input' else 'up'}_blocks.{block}"
    if side == "input" and (place, tail) == (0, "op"):
        return f"{name}.downsamplers.0.conv" if layer == span - 1 else None
    if side == "output" and tail == "conv":
        return f"{name}.upsamplers.0.conv" if layer == span - 1 else None
    if place > 1 or (side == "input" and layer == span - 1):
        return None
    return _with_tail(name, ("resnets", "attentions")[place], layer, tail, _RESNET_BACK.get(tail))


def _with_tail(block: str, kind: str, layer: int, flat: str, resnet_tail: str | None) -> str | None:
    """`down_blocks.1`, `attentions`, 0, `transformer_blocks_0_attn1_to_q` -> the dotted path."""
    tail = resnet_tail if kind == "resnets" else _attention_tail(flat)
    return tail and f"{block}.{kind}.{layer}.{tail}"


def _attention_tail(flat: str) -> str | None:
    if flat in ("proj_in", "proj_out"):
        return flat
    match = re.fullmatch(r"transformer_blocks_(\d+)_(.+)", flat)
    if match is None or match[2] not in _FLAT_ATTENTION:
        return None
    return f"transformer_blocks.{match[1]}.{_FLAT_ATTENTION[match[2]]}"


# ---------------------------------------------------------------------------------------------- keys of tensors

_PARTS = (
    (  # a model's own state dict has the adapter's name in PEFT's keys
        re.compile(r"\.lora_down\.weight$|\.lora(?:_linear_layer)?\.down\.weight$|\.lora_A(?:\.\w+)?\.weight$"),
        "down",
    ),
    (re.compile(r"\.lora_up\.weight$|\.lora(?:_linear_layer)?\.up\.weight$|\.lora_B(?:\.\w+)?\.weight$"), "up"),
    (re.compile(r"\.dora_scale$|\.lora_magnitude_vector(?:\.(?!weight$)\w+)?(?:\.weight)?$"), "dora_scale"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),  # LyCORIS' Tucker convolution
)
_FACTORS = re.compile(r"\.(hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2))(?:\.\w+)?$")  # LoHa's and LoKr's
_OLD_PROCESSOR = re.compile(r"\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def split_key(key: str, layout: Layout = SDXL) -> tuple[str, str] | None:
    """A tensor's key in any known format -> (canonical module path, part), or None.

    Parts are down, up, alpha, dora_scale and mid, and those of LoHa and LoKr by LyCORIS' names.
    """
    if match := _OLD_PROCESSOR.search(key):  # diffusers before PEFT: attn1.processor.to_q_lora.down.weight
        name = _OLD_TEXT[match[1]] if ".self_attn" in key else match[1].replace("to_out", "to_out.0")
        return _with_path(key[: match.start()].replace(".processor", "") + "." + name, match[2], layout)
    for pattern, part in _PARTS:
        if match := pattern.search(key):
            return _with_path(key[: match.start()], part, layout)
    if match := _FACTORS.search(key):
        return _with_path(key[: match.start()], match[1], layout)
    return None


def _with_path(module: str, part: str, layout: Layout) -> tuple[str, str] | None:
    path = path_of(module, layout)
    return (path, part) if path else None


@lru_cache(maxsize=8192)  # a run asks for the same at every file that it writes and reads back
def path_of(module: str, layout: Layout = SDXL) -> str | None:
    """The canonical path of a module under any known name, flat or dotted; None if it is not SDXL's."""
    flat = module.startswith(("lora_", f"{LYCORIS}_"))
    return canonical_name(module, layout) if flat else canonical_path(module, layout)


def naming_of(keys: Iterable[str]) -> str:
    """Whose names a file's keys are: kohya, diffusers, or sgm for dotted ones that no reader but ComfyUI expects."""
    keys = list(keys)
    if any(key.startswith(("lora_", f"{LYCORIS}_")) for key in keys):
        return "kohya"
    others = (*OTHER_PARTS, *SGM, *(f"{UNET}.{name}" for name in SGM))
    return "sgm" if any(key.removeprefix(PEFT_WRAPPER).startswith(others) for key in keys) else "diffusers"


def canonical_path(module: str, layout: Layout = SDXL) -> str | None:
    """Normalise a dotted module path: PEFT's wrapper, torch.compile's, sgm's, and either layout of the CLIP models."""
    module = module.replace("_orig_mod.", "").removeprefix(PEFT_WRAPPER).replace(".processor.", ".")
    for prefix, part in OTHER_PARTS.items():
        if module.startswith(prefix):
            return _flat_path(part, module.removeprefix(prefix).replace(".", "_"), layout)
    if module.removeprefix(f"{UNET}.").startswith(SGM):
        return _flat_path(UNET, module.removeprefix(f"{UNET}.").replace(".", "_"), layout)
    component, _, inner = module.partition(".")
    if component in ("down_blocks", "mid_block", "up_blocks", *(name.partition(".")[0] for name in OUTER_NAMES)):
        return f"{UNET}.{module}"
    if component == UNET:
        return module
    if component not in (TE1, TE2):
        return None
    if inner.startswith("encoder."):  # transformers >= 5.6 has no text_model in CLIPTextModel
        inner = f"text_model.{inner}"
    return f"{component}.{inner}"


def diffusers_key(path: str, part: str) -> str:
    """The key of one tensor in a diffusers file: PEFT's spelling, the one that ff and conv targets survive in."""
    suffix = {"down": "lora_A.weight", "up": "lora_B.weight", "dora_scale": "lora_magnitude_vector"}
    # transformers >= 5 loads a text encoder's magnitudes only with ".weight" after them; older ones take both
    tail = ".weight" if part == "dora_scale" and not path.startswith(f"{UNET}.") else ""
    return f"{path}.{suffix.get(part, part)}{tail}"


def kohya_key(path: str, part: str, layout: Layout) -> str | None:
    """The key of one tensor in a kohya file, or None where kohya has no name for the module."""
    suffix = {"down": "lora_down.weight", "up": "lora_up.weight", "alpha": "alpha", "dora_scale": "dora_scale"}
    name = kohya_name(path, layout)
    return name and f"{name}.{suffix.get(part, part)}"
