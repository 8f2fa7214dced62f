"""Reading a LoRA file: safetensors of ours, kohya's, diffusers' or PEFT's in, `LoraWeights` out.

Nothing is unpickled, and nothing a header says is run: its patterns are compared as text, its sizes bounded.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...config.header import find_lora, opened
from ...system.errors import ModelError
from ..base import SDXL, Base
from ..layers import Layer, LoraWeights
from ..names import COMPONENTS, UNET, split_key
from .metadata import ADAPTER_KEY, BASE_KEY


def read_lora(path: str | os.PathLike[str], base: Base | None = None) -> LoraWeights:
    """Read a LoRA of ours, kohya's (sgm or diffusers block names), diffusers' or PEFT's, as fp32 on the CPU.

    `base` says which model the numbers in kohya names refer to; by default the one our header describes, else SDXL.
    ModelError in one sentence for a pickle, a truncated file, another architecture, or a key that nothing explains.
    """
    path = find_lora(path)
    return read_file(path, path.name, base)


def read_file(path: Path, name: str, base: Base | None) -> LoraWeights:
    tensors, metadata = open_lora(path, name)
    made_for = Base.from_json(metadata[BASE_KEY]) if BASE_KEY in metadata else None
    base = base or made_for or SDXL
    inventory = base.inventory if base == made_for else None  # a file of ours: each of its keys has a module
    _check_architecture(tensors, metadata, name)
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        place = split_key(key, base.layout)
        if inventory is not None and (not place or place[0] not in inventory):
            raise ModelError(f"{name}: the key {key} names no module of the base model; the file was changed by hand.")
        if place is None:
            raise ModelError(
                f"{name}: the key {key} is no LoRA of an SDXL module; the file was made for something else."
            )
        modules.setdefault(place[0], {})[place[1]] = tensor
    alphas = _header_alphas(metadata, path, name)
    layers = {module: _layer(module, parts, alphas, name) for module, parts in modules.items()}
    return LoraWeights(layers, base, metadata)


def open_lora(path: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file. ModelError for a pickle or a file that is cut short."""
    with opened(path, name, "pt") as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys())}, file.metadata() or {}


OTHER_MODELS = (
    "lora_te_",
    "lora_te3_",
    "lora_transformer_",
    "transformer.",
    "lora_unet_double_blocks_",
    "diffusion_model.",
)
TEXT_KEY = re.compile(r"attn2[._](processor\.)?to_k[._]lora[._](A|down)")
TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}


def _check_architecture(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], name: str) -> None:
    """SD 1.x, SD 2.x, Flux and others give one sentence, before any single key is complained about."""
    version = metadata.get("ss_base_model_version", "")
    wrong = f"its header says {version}" if version and not version.startswith("sdxl_") else None
    for key, tensor in tensors.items():
        if key.startswith(OTHER_MODELS):
            wrong = wrong or f"it holds {key}"
        elif TEXT_KEY.search(key) and BASE_KEY not in metadata and tensor.shape[1] in TEXT_WIDTHS:
            wrong = wrong or f"its text width is {tensor.shape[1]}, that of {TEXT_WIDTHS[tensor.shape[1]]}"
    if wrong:
        raise ModelError(f"{name} is no SDXL LoRA: {wrong}; choose one that was trained on SDXL.")
    if not tensors:
        raise ModelError(f"{name} holds no tensors; it is no LoRA.")


def _layer(module: str, parts: dict[str, torch.Tensor], alphas: Callable[[str, int], float], name: str) -> Layer:
    for part in ("down", "up"):
        if part not in parts:
            raise ModelError(f"{name}: the {part} weight of {module} is missing; the file is incomplete.")
    down, up = parts["down"].float(), parts["up"].float()
    if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != down.shape[0]:
        raise ModelError(f"{name}: the two weights of {module} do not fit together; the file is damaged.")
    dora = parts.get("dora_scale")
    if dora is not None and dora.numel() != up.shape[0]:
        raise ModelError(f"{name}: the DoRA of {module} scales inputs, not outputs, which peft cannot run.")
    alpha = parts["alpha"].item() if "alpha" in parts else alphas(module, down.shape[0])
    return Layer(down, up, float(alpha), None if dora is None else dora.float().flatten())


def _header_alphas(metadata: Mapping[str, str], path: Path, name: str) -> Callable[[str, int], float]:
    """(module, rank) -> alpha from diffusers' header or PEFT's adapter_config.json; the rank where nothing is said."""
    beside = path.with_name("adapter_config.json")
    try:
        if ADAPTER_KEY in metadata:
            fields = json.loads(metadata[ADAPTER_KEY])
        elif path.name == "adapter_model.safetensors" and beside.is_file():
            fields = {f"{UNET}.{key}": value for key, value in json.loads(beside.read_text()).items()}
        else:
            fields = {}
        configs = {component: _AdapterFields.of(fields, component) for component in COMPONENTS}
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelError(f"{name}: the adapter settings in its header are damaged; its strength is unknown.") from error
    return lambda module, rank: configs[module.partition(".")[0]].alpha(module, rank)


@dataclass(frozen=True)
class _AdapterFields:
    """What a stranger's LoraConfig says about alpha; its patterns are compared as text, never run as expressions."""

    lora_alpha: float | None
    patterns: dict[str, float]
    rslora: bool

    @classmethod
    def of(cls, fields: Mapping[str, Any], component: str) -> "_AdapterFields":
        mine = {key.removeprefix(f"{component}."): v for key, v in fields.items() if key.startswith(f"{component}.")}
        patterns = {_literal(key): float(value) for key, value in (mine.get("alpha_pattern") or {}).items()}
        alpha = mine.get("lora_alpha")
        return cls(None if alpha is None else float(alpha), patterns, bool(mine.get("use_rslora")))

    def alpha(self, module: str, rank: int) -> float:
        for name, value in self.patterns.items():
            if module.endswith(f".{name}"):
                return value * (rank**0.5 if self.rslora else 1)
        if self.lora_alpha is None:
            return rank
        return self.lora_alpha * (rank**0.5 if self.rslora else 1)


def _literal(pattern: str) -> str:
    literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", literal):
        raise ValueError(pattern)
    return literal
