"""Whether a base is an SDXL that can be trained here, told from its small files or the names in its one file.

In: a Source. Out: nothing, or ModelError with one sentence that says what it is instead. Nothing big is read, and
nothing is computed: a base is refused before any picture is encoded.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...config.precedence import DEFAULT_BASE
from ...system.errors import ModelError
from ..sources import WEIGHTS, Source
from .sentences import quantised
from .weights import check_local, check_numbers, header

TEXT_CLASSES = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}
OTHERS = (  # what some tensor's name begins with or holds, and what the file then is
    (("lora_",), (".lora_", ".lora.", ".hada_w", ".lokr_w"), "a LoRA file"),
    (("cond_stage_model.",), (), "a Stable Diffusion 1 or 2 checkpoint"),
    (("control_model.", "controlnet_"), (), "a ControlNet"),
    ((), ("double_blocks.0.",), "a Flux model"),
    ((), ("joint_blocks.0.",), "a Stable Diffusion 3 model"),
    (("emb_params",), ("string_to_param",), "an embedding"),
)
RELATIVES = {  # transformer blocks a level, by which their U-Nets differ from SDXL's
    (2, 4): "SSD-1B",
    (1, 2): "Segmind-Vega",
    (2, 5): "KOALA-700M",
    (2, 6): "KOALA-1B",
}
VOCABULARIES = ("tokenizer.json", "vocab.json")
UNET_FILE, CONDITIONER = "model.diffusion_model.", "conditioner.embedders."


def check_base(source: Source) -> None:
    """Raise ModelError unless the source is an SDXL base with two text encoders that can be trained."""
    (_check_checkpoint if source.is_single_file else _check_folder)(source)
    check_local(source)


def _check_folder(source: Source) -> None:
    index = source.config("model_index.json")
    if index is None:
        raise ModelError(
            f"{source.name} is no diffusers model (it has no model_index.json): give one, or a .safetensors checkpoint."
        )
    _check_text_classes(source, index)
    unet = source.config("unet/config.json")
    if unet is None and not _missing(index, "unet"):
        raise ModelError(f"{source.name} has no unet/config.json: download it again, or give a whole SDXL model.")
    if unet is None or unet.get("addition_embed_type") != "text_time":
        raise ModelError(_not_sdxl(source.name, f"it is a {index.get('_class_name', 'model of another kind')}"))
    if _missing(index, "text_encoder"):
        raise ModelError(_refiner(source.name))
    for part in (*WEIGHTS, "tokenizer", "tokenizer_2", "scheduler"):
        if part in index and not _missing(index, part):
            continue
        raise ModelError(f"{source.name} has no {part} (its model_index.json says so): give a whole SDXL model.")
    _check_tokenizers(source)
    configs = {part: source.config(f"{part}/config.json") or {} for part in WEIGHTS}
    for part, config in configs.items():
        if config.get("quantization_config"):
            raise ModelError(quantised(source.name, f"its {part}'s config.json says so"))
    _check_channels(source.name, unet.get("in_channels", 4), configs["vae"].get("latent_channels", 4))
    _check_widths(source.name, unet, configs["text_encoder"], configs["text_encoder_2"])


def _check_tokenizers(source: Source) -> None:
    """A folder that lacks a tokenizer's files would have every word unknown; of a hub's the loader says so."""
    for part in ("tokenizer", "tokenizer_2") if Path(source.location).is_dir() else ():
        if not any(Path(source.location, part, name).is_file() for name in VOCABULARIES):
            raise ModelError(no_vocabulary(f"The {part} of {source.name}"))


def no_vocabulary(what: str) -> str:
    return f"{what} has no vocabulary (tokenizer.json, or vocab.json with merges.txt): download it again."


def _check_text_classes(source: Source, index: Mapping[str, Any]) -> None:
    """Kolors has SDXL's U-Net, and ChatGLM reads its prompts."""
    for part, wanted in TEXT_CLASSES.items():
        entry = index.get(part) or [None, None]
        found = entry[1] if len(entry) > 1 else None
        if found is not None and not str(found).startswith("CLIPText"):
            pipeline = index.get("_class_name", "model of another kind")
            raise ModelError(_not_sdxl(source.name, f"it is a {pipeline}, whose {part} is a {found}, not a {wanted}"))


def _check_channels(name: str, channels: int, latents: int) -> None:
    """A U-Net that takes more than latents was made for another task."""
    if channels in (latents, 2 * latents + 1):  # the second inpaints
        return
    edits = ", as models that edit pictures do" if channels == 2 * latents else ""
    raise ModelError(_not_sdxl(name, f"its U-Net takes {channels} channels, not the VAE's {latents}{edits}"))


def _check_widths(name: str, unet: Mapping[str, Any], one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    """The U-Net says how wide its prompts are; encoders of another model, or the two of them swapped, do not fit."""
    kinds = [(config.get("architectures") or [None])[0] for config in (one, two)]
    widths = [config.get("hidden_size") for config in (one, two)]
    if kinds == list(reversed(TEXT_CLASSES.values())) or widths == [1280, 768]:
        raise ModelError(f"{name} has its two text encoders swapped: text_encoder_2 must be the one with a projection.")
    wanted = unet.get("cross_attention_dim")
    if None not in widths and isinstance(wanted, int) and sum(map(int, filter(None, widths))) != wanted:
        raise ModelError(
            f"The text encoders of {name} do not fit its U-Net: they give {widths[0]} and {widths[1]} numbers a token, "
            f"it takes {wanted}; give a whole SDXL model."
        )


def _missing(index: Mapping[str, Any], part: str) -> bool:
    return not (index.get(part) or [None])[0]


def _not_sdxl(name: str, reason: str) -> str:
    return f"{name} is not SDXL ({reason}): give an SDXL base, for example {DEFAULT_BASE}."


def _refiner(name: str) -> str:
    return f"{name} is SDXL's refiner, which has one text encoder: give a base model, for example {DEFAULT_BASE}."


def _check_checkpoint(source: Source) -> None:
    """Tell from the names of its tensors what a checkpoint file is (the sgm layout of SDXL's first release)."""
    name = source.name
    tensors = header(source.location, name)
    shapes = {key: kept.shape for key, kept in tensors.items()}
    some = partial(_some, shapes)
    for beginnings, inside, what in OTHERS:
        if some(beginnings) or any(text in key for key in shapes for text in inside):
            raise ModelError(_not_sdxl(name, f"it is {what}"))
    check_numbers(name, "it has", tensors)
    if some(f"{CONDITIONER}1.transformer."):
        raise ModelError(f"{name} has its two text encoders swapped: download it again, or give another.")
    if some(f"{CONDITIONER}0.model."):
        raise ModelError(_refiner(name))
    if some(("down_blocks.", "mid_block.", "unet.down_blocks.")):
        raise ModelError(f"{name} is a U-Net alone, under diffusers' names: give a whole SDXL checkpoint or folder.")
    if some("input_blocks.") and some("label_emb."):  # as ComfyUI keeps it in its folder diffusion_models
        raise ModelError(f"{name} is a U-Net alone: give a whole SDXL checkpoint, with text encoders and VAE.")
    if not some(f"{UNET_FILE}label_emb."):
        raise ModelError(_not_sdxl(name, "the file has no SDXL U-Net"))
    _check_unet_shapes(source, shapes)
    for prefix, part in (
        (f"{CONDITIONER}0.transformer.", "text_encoder"),
        (f"{CONDITIONER}1.model.", "text_encoder_2"),
        *((("first_stage_model.", "VAE"),) if source.vae is None else ()),
    ):
        if not some(prefix):
            raise ModelError(f"{name} has no {part}: give a whole SDXL checkpoint, not its U-Net alone.")


def _some(keys: Mapping[str, Any], beginnings: str | tuple[str, ...]) -> bool:
    return any(key.startswith(beginnings) for key in keys)


def _check_unet_shapes(source: Source, shapes: Mapping[str, Sequence[int]]) -> None:
    """The file's U-Net must be the one whose configuration we have: a relative's comes in a folder only."""
    unet = source.config("unet/config.json") or {}
    first = shapes.get(f"{UNET_FILE}input_blocks.0.0.weight")
    if first and len(first) == 4:
        _check_channels(source.name, first[1], unet["out_channels"])
    levels, depths = range(len(unet["down_block_types"])), unet["transformer_layers_per_block"]
    found = tuple(_depth(shapes, level * (unet["layers_per_block"] + 1) + 1) for level in levels)
    crossed = [kind.startswith("Cross") for kind in unet["down_block_types"]]
    wanted = tuple(depth if crosses else 0 for depth, crosses in zip(depths, crossed, strict=True))
    if found != wanted:
        kind = RELATIVES.get((found[-2], found[-1]))
        raise ModelError(
            f"{source.name} is {f'of the kind of {kind}' if kind else 'no SDXL but a relative'}, whose U-Net has other "
            f"layers ({_listed(found)} transformer blocks a level, SDXL {_listed(wanted)}): one file does not say how "
            "they are arranged, so give its diffusers folder."
        )


def _depth(shapes: Mapping[str, Any], number: int) -> int:
    """How many transformer blocks an input block has."""
    prefix = f"{UNET_FILE}input_blocks.{number}.1.transformer_blocks."
    return len({key.removeprefix(prefix).partition(".")[0] for key in shapes if key.startswith(prefix)})


def _listed(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))
