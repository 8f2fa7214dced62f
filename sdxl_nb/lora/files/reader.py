"""Reading a LoRA file: safetensors of ours, kohya's, diffusers', PEFT's or LyCORIS' in, `LoraWeights` out.

Nothing is unpickled, and nothing a header says is run: its patterns are compared as text, its sizes bounded.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ...config.header import find_lora, opened
from ...system.errors import ModelError
from ...system.remarks import remark
from ..base import SDXL, Base, Module
from ..kinds.factored import PARTS, WORDS, Factored, is_whole
from ..layers import AnyLayer, Layer, LoraWeights, fit
from ..names import PEFT_WRAPPER, split_key
from .architecture import what_else, why_not_sdxl
from .contents import (
    OVER_INPUTS,
    Contents,
    Parts,
    algo_of,
    dora_over_inputs,
    first_few,
    said_doubled,
    said_kind,
    said_not_finite,
)
from .metadata import BASE_KEY
from .strengths import Strengths, strengths

ENCODER_ALONE = tuple(f"{PEFT_WRAPPER}{begin}" for begin in ("encoder.layers.", "text_model.encoder.layers."))


def read_lora(path: str | os.PathLike[str], base: Base | None = None) -> LoraWeights:
    """Read a LoRA, LoHa or LoKr under anyone's names (kohya's sgm or diffusers blocks, diffusers', PEFT's), as fp32.

    `base` says which model the numbers in kohya names refer to; by default the one our header describes, else SDXL.
    ModelError in one sentence for a pickle, a truncated file, another architecture, or a key that nothing explains.
    """
    path = find_lora(path)
    return read_file(path, path.name, base)


def read_file(path: Path, name: str, base: Base | None) -> LoraWeights:
    """Read the file at `path`, called `name` in errors; see `read_lora`."""
    tensors, metadata = open_lora(path, name)
    made_for = Base.from_json(metadata[BASE_KEY]) if BASE_KEY in metadata else None
    base = base or made_for or SDXL
    inventory = base.inventory if base == made_for else None  # a file of ours: each of its keys has a module
    found = Contents.of(tensors, base.layout)
    refuse_foreign(found, metadata, base, name)
    if found.unknown and base != made_for:
        raise ModelError(f"{name} was trained on a base of other shapes: this one has no place for {found.unknown[0]}.")
    if found.others:
        raise ModelError(f"{name} is {said_kind(found)}")
    for key in tensors if inventory else ():
        place = split_key(key, base.layout)
        if inventory and (not place or place[0] not in inventory):
            raise ModelError(f"{name}: the key {key} names no module of the base model; the file was changed by hand.")
    if sentence := said_doubled(found, name) or said_not_finite(tensors, name):
        raise ModelError(sentence)
    for module in dora_over_inputs(found, tensors, metadata, base.layout):
        raise ModelError(f"{name}: the DoRA of {module} {OVER_INPUTS}")
    alphas = strengths(found, metadata, path, name)
    if alphas.guessed:
        remark(alphas.guessed)
    layers = {module: layer_of(module, parts, alphas, name) for module, parts in found.layers.items()}
    if idle := said_idle(layers, name):
        remark(idle)
    return LoraWeights({module: _in_shape(layer, base, module) for module, layer in layers.items()}, base, metadata)


def said_idle(layers: Mapping[str, AnyLayer], name: str) -> str | None:
    """The sentence about layers that change nothing, for their alpha is 0, if there are any."""
    idle = [module for module, layer in layers.items() if layer.scale == 0]
    if not idle:
        return None
    return f"{name}: alpha is 0 in {len(idle)} of {len(layers)} layers ({first_few(idle)}), which so change nothing."


def _in_shape(layer: AnyLayer, base: Base, module: str) -> AnyLayer:
    """A linear layer that was written as a 1x1 convolution, or the other way round, as the base's module is."""
    try:
        return fit(layer, base.inventory[module], module) if module in base.inventory else layer
    except ModelError:  # of other widths, which whoever uses the layer says
        return layer


def refuse_foreign(found: Contents, metadata: Mapping[str, str], base: Base, name: str) -> None:
    """ModelError in one sentence for SD 1.x, Flux and others, and for what is no LoRA at all."""
    if not (found.layers or found.others or found.unknown):
        raise ModelError(f"{name} holds no tensors; it is no LoRA.")
    if wrong := why_not_sdxl(found, metadata, base):
        raise ModelError(f"{name} is no SDXL LoRA: {wrong}; choose one that was trained on SDXL.")
    if kind := what_else(found):
        raise ModelError(f"{name} is {kind}, not a LoRA alone: it holds {found.unknown[0]}, which is not read here.")
    if found.of_peft and any(key.startswith(ENCODER_ALONE) for key in found.unknown):
        raise ModelError(
            f"{name} is PEFT's of one text encoder, and no key says of which of SDXL's two: save the model's LoRA with "
            "diffusers' StableDiffusionXLPipeline.save_lora_weights, whose keys begin with text_encoder. or "
            "text_encoder_2., in one file with the U-Net's."
        )
    if found.unknown and (BASE_KEY not in metadata or found.others):
        raise ModelError(
            f"{name}: the key {found.unknown[0]} is no LoRA of an SDXL module; the file was made for something else."
        )


def open_lora(path: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file. ModelError for a pickle or a file that is cut short."""
    with opened(path, name, "pt") as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys())}, file.metadata() or {}


def layer_of(module: str, parts: Parts, alphas: Strengths, name: str) -> AnyLayer:
    """The parts of one module as a layer, in fp32; `alphas` where none is among them. ModelError if they do not fit."""
    if (algo := algo_of(parts)) != "lora":
        return _factored(module, algo, parts, alphas, name)
    for part in ("down", "up"):
        if part not in parts:
            raise ModelError(f"{name}: the {part} weight of {module} is missing; the file is incomplete.")
    if not (parts["down"].is_floating_point() and parts["up"].is_floating_point()):
        kind = str(parts["down"].dtype).removeprefix("torch.")
        raise ModelError(f"{name}: the weights of {module} are whole numbers ({kind}) without a scale; get it as fp16.")
    down, up = parts["down"].float(), parts["up"].float()
    if "mid" in parts:
        down = _untuckered(down, parts["mid"].float(), module, name)
    if not _matching(down, up):
        raise ModelError(f"{name}: the two weights of {module} do not fit together; the file is damaged.")
    dora = parts.get("dora_scale")
    if dora is not None and dora.numel() != up.shape[0]:
        raise ModelError(f"{name}: the DoRA of {module} has {dora.numel()} magnitudes, its weight {up.shape[0]} rows.")
    alpha = _alpha(module, parts, name)
    strength = alphas.alpha(module, down.shape[0]) if alpha is None else alpha
    return Layer(down, up, strength, None if dora is None else dora.float().flatten())


def _alpha(module: str, parts: Parts, name: str) -> float | None:
    alpha = parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise ModelError(f"{name}: the alpha of {module} is {alpha.numel()} numbers, not one; the file is damaged.")
    return None if alpha is None else alpha.float().item()


def _factored(module: str, algo: str, parts: Parts, alphas: Strengths, name: str) -> Factored:
    """The parts of one module as LoHa or LoKr."""
    word = WORDS[algo]
    if "dora_scale" in parts:
        raise ModelError(
            f"{name}: {module} is a {word} with DoRA's magnitudes, not read here: draw with it in ComfyUI."
        )
    tensors = {part: tensor.float() for part, tensor in parts.items() if part != "alpha"}
    if more := tensors.keys() - set(PARTS[algo]):
        raise ModelError(f"{name}: {module} is a {word} and holds {min(more)} too; the file is damaged.")
    if not is_whole(tensors):
        raise ModelError(f"{name}: the weights of {module} are no whole {word}, or do not fit together.")
    alpha = _alpha(module, parts, name)
    layer = Factored(tensors, 1.0)
    if alpha is None and not layer.decomposed:
        return layer.scaled(alphas.whole(module))
    return Factored(tensors, alphas.alpha(module, layer.rank) if alpha is None else alpha)


def said_misfits(
    found: Contents, metadata: Mapping[str, str], path: Path, inventory: Mapping[str, Module]
) -> str | None:
    """The sentence about the first layer that cannot be read, if there is one, and how many others there are."""
    said = []
    try:
        alphas = strengths(found, metadata, path, path.name)
        for module, parts in found.layers.items():
            try:
                plain = {name: part for name, part in parts.items() if name != "dora_scale"}
                layer = layer_of(module, plain, alphas, path.name)
                if module in inventory:
                    fit(layer, inventory[module], module)
            except ModelError as error:
                said.append(str(error))
    except ModelError as error:
        said.append(str(error))
    more = f" So with {len(said) - 1} more." if len(said) > 1 else ""
    return said[0] + more if said else None


def _matching(down: torch.Tensor, up: torch.Tensor) -> bool:
    """Whether the two are (r, in[, h, w]) and (out, r[, 1, 1]) with a rank of 1 or more."""
    same = down.ndim in (2, 4) and up.ndim == down.ndim and up.shape[1] == down.shape[0] > 0
    return same and up.shape[2:] in ((), (1, 1))


def _untuckered(down: torch.Tensor, mid: torch.Tensor, module: str, name: str) -> torch.Tensor:
    """LyCORIS' convolution in three parts as one in two: the inner weight (r, r, h, w) times down (r, in, 1, 1)."""
    if mid.ndim != 4 or down.ndim != 4 or down.shape[2:] != (1, 1) or mid.shape[1] != down.shape[0]:
        raise ModelError(f"{name}: the lora_mid of {module} does not fit its other weights; the file is damaged.")
    return torch.einsum("rshw,si->rihw", mid, down.flatten(1)).contiguous()
