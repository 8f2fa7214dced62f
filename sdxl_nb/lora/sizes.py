"""How many parameters a configuration trains, counted from the base's description: no weights are read.

In: a TrainConfig, and the Base it puts LoRA layers on. Out: a number, the one that peft's layers have.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..config.train_config import TrainConfig
from .base import SDXL, TEXT_FIELDS, UNET_FIELDS, Base, Module
from .names import TE1, TE2, UNET
from .targets import UNET_TARGETS, text_target_modules


def base_of(config: TrainConfig) -> Base:
    """The base that a configuration names: read from its folder, and SDXL's own shapes where it is not here."""
    from ..models.sources import Source

    where = Path(Source.of(config).location)
    if not (where / "unet" / "config.json").is_file():
        return SDXL
    parts = {UNET: (UNET_FIELDS, "unet"), TE1: (TEXT_FIELDS, "text_encoder"), TE2: (TEXT_FIELDS, "text_encoder_2")}
    read = {part: json.loads((where / name / "config.json").read_text("utf-8")) for part, (_, name) in parts.items()}
    return Base(json.dumps({part: {f: read[part].get(f) for f in parts[part][0]} for part in read}, sort_keys=True))


def trainable_parameters(config: TrainConfig, base: Base | None = None) -> int:
    """The trainable parameters: two matrices a layer, rank by its inputs and outputs, with DoRA its magnitude; LoHa's
    four, LoKr's three or two.
    """
    base = base or base_of(config)
    targets = config.target_modules
    wanted: dict[str, str | list[str]] = {
        UNET: UNET_TARGETS.get(targets, targets) if isinstance(targets, str) else targets
    }
    if config.train_text_encoder:
        wanted[TE1] = wanted[TE2] = text_target_modules(config.target_modules)
    total = 0
    for path, module in base.inventory.items():
        part, _, name = path.partition(".")
        if part in wanted and _is_hit(name, wanted[part]):
            total += _size(config, module, _rank(config, name))
    return total


def _is_hit(name: str, targets: str | Sequence[str]) -> bool:
    """As peft matches: a list by the end of the name, a text as a pattern of the whole."""
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _rank(config: TrainConfig, name: str) -> int:
    patterns = config.rank_pattern or {}
    return next((rank for key, rank in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), config.rank)


def _size(config: TrainConfig, module: Module, rank: int) -> int:
    columns = module.inputs * module.kernel[0] * module.kernel[1]
    if config.lora_kind == "lokr":
        return _lokr_size(config.lokr_factor or -1, module, rank)
    if config.lora_kind == "loha":
        return 2 * rank * (columns + module.outputs)
    return rank * (columns + module.outputs) + (module.outputs if config.use_dora else 0)


def _lokr_size(factor: int, module: Module, rank: int) -> int:
    """A small matrix, and a large one, which is two of this rank where that is less."""
    from peft.tuners.lokr.layer import factorization

    (rows, high), (inputs, wide) = factorization(module.outputs, factor), factorization(module.inputs, factor)
    wider = wide * module.kernel[0] * module.kernel[1]
    large: int = high * wider if rank >= max(high, wide) / 2 else rank * (high + wider)
    return int(rows * inputs) + large
