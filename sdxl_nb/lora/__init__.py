"""LoRA files: names for every reader, metadata, scale, sums; the front door to the modules of this folder.

`LoraFile(path)` describes a file and checks its keys (file.py); layers.py is about live models, reader.py and
writer.py about files, readers.py about who reads them, arithmetic.py merges and resizes, fusing.py puts a LoRA into a
base. On the command line (command.py):

    python -m sdxl_nb.lora {check,info} FILE
    python -m sdxl_nb.lora convert FILE GOAL --to {kohya,diffusers}
    python -m sdxl_nb.lora merge FILE[=WEIGHT] FILE[=WEIGHT] ... --rank N --output GOAL
    python -m sdxl_nb.lora resize FILE GOAL --rank N
    python -m sdxl_nb.lora fuse BASE FILE GOAL --scale S
"""

from .base import Base
from .file import LoraFile, LoraInfo
from .fusing import fuse
from .layers import (
    Layer,
    LoraWeights,
    attach,
    check_patterns,
    collect,
    delta,
    detach,
    lora_names,
    set_scale,
    target_modules,
    text_target_modules,
)
from .metadata import build_metadata, config_from_header
from .reader import read_lora
from .readers import KeyTable
from .writer import check_names, save_lora

__all__ = [
    "Base",
    "KeyTable",
    "Layer",
    "LoraFile",
    "LoraInfo",
    "LoraWeights",
    "attach",
    "build_metadata",
    "check_names",
    "check_patterns",
    "collect",
    "config_from_header",
    "delta",
    "detach",
    "fuse",
    "lora_names",
    "read_lora",
    "save_lora",
    "set_scale",
    "target_modules",
    "text_target_modules",
]
