"""One LoRA file on disk: what it holds, which readers know its keys, and how to show both.

In: a path; out: `LoraFile(path).check()` (a `KeyTable`) and `.info()` (a `LoraInfo`), which print and display.
"""

import html
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from ...config.header import config_from_header, find_lora, objective_flags
from ...system.errors import ModelError
from ..base import SDXL, Base, Module
from ..layers import LoraWeights
from ..names import COMPONENTS
from .metadata import BASE_KEY
from .reader import open_lora, read_lora
from .readers import KeyTable, key_table


@dataclass(frozen=True)
class LoraInfo:
    """What a LoRA file says of itself; `config` is None for files that sdxl_nb did not train."""

    name: str
    naming: str
    modules: dict[str, int]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dora: bool
    parameters: int
    base_model_version: str | None
    predicts: str | None
    trigger_words: str | None
    config: dict[str, Any] | None

    def _rows(self) -> list[tuple[str, str]]:
        shown = ("pretrained_model_name_or_path", "dataset_name", "resolution", "learning_rate", "seed")
        rows = [
            ("file", self.name),
            ("names", self.naming),
            ("modules", ", ".join(f"{count} {name}" for name, count in self.modules.items())),
            ("rank", _numbers(self.ranks)),
            ("alpha", _numbers(self.alphas)),
            ("kind", "DoRA" if self.dora else "LoRA"),
            ("parameters", f"{self.parameters:,}"),
            ("base", self.base_model_version or "not said"),
            ("predicts", self.predicts or "not said"),
            ("trigger words", self.trigger_words or "none given"),
        ]
        return rows + [(name, str(self.config[name])) for name in shown if self.config and self.config.get(name)]

    def __str__(self) -> str:
        return "\n".join(f"{name:<14} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._rows())
        return f"<table>{''.join(cells)}</table>"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


class LoraFile:
    """A LoRA file on disk: `LoraFile(path).check()`, `.info()`; `weights` reads its tensors."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = find_lora(path)

    def __repr__(self) -> str:
        return f"LoraFile({self.path.name!r})"

    def weights(self) -> LoraWeights:
        """The file's layers, canonical names, fp32 (`read_lora`)."""
        return read_lora(self.path)

    @property
    def metadata(self) -> dict[str, str]:
        """The file's text header."""
        return open_lora(self.path, self.path.name)[1]

    def config(self) -> dict[str, Any]:
        """The configuration it was trained with, filtered (`metadata.config_from_header`)."""
        return config_from_header(self.metadata)

    def check(
        self,
        base_inventory: Mapping[str, Module] | None = None,
        readers: Mapping[str, Container[str]] | None = None,
    ) -> KeyTable:
        """Compare every key with the base model's modules and with what each reader is known to accept.

        `base_inventory` (`Base.of(...).inventory`) defaults to the model that the header describes, else full-size
        SDXL. `readers` maps names to the keys they accept, in place of the recorded lists (readers.py).
        """
        tensors, metadata = open_lora(self.path, self.path.name)
        base = Base.from_json(metadata[BASE_KEY]) if BASE_KEY in metadata else SDXL
        return key_table(tensors, base, base.inventory if base_inventory is None else base_inventory, readers)

    def info(self) -> LoraInfo:
        """Rank, alpha, modules, trigger words and configuration, for people."""
        weights = self.weights()
        layers, header = weights.layers.values(), weights.metadata
        keys = open_lora(self.path, self.path.name)[0]
        parts = [path.partition(".")[0] for path in weights.layers]
        return LoraInfo(
            name=self.path.name,
            naming="kohya" if all(key.startswith("lora_") for key in keys) else "diffusers",
            modules={name: parts.count(name) for name in COMPONENTS if name in parts},
            ranks=tuple(sorted({layer.rank for layer in layers})),
            alphas=tuple(sorted({layer.alpha for layer in layers})),
            dora=any(layer.dora_scale is not None for layer in layers),
            parameters=sum(tensor.numel() for key, tensor in keys.items() if not key.endswith(".alpha")),
            base_model_version=header.get("ss_base_model_version"),
            predicts=_predicts(header),
            trigger_words=header.get("modelspec.trigger_phrase"),
            config=_config_or_none(header),
        )


def _predicts(header: Mapping[str, str]) -> str | None:
    """What the base predicts that it was trained on; and whether the run's settings said so, not the base."""
    said = header.get("modelspec.prediction_type")
    flags = objective_flags(header)
    if flags is None or (flags.prediction_type is None and not flags.rescale_betas_zero_snr):
        return said
    zero = " with zero terminal SNR" if flags.rescale_betas_zero_snr else ""
    return f"{flags.prediction_type or said}{zero}, by its settings: draw with a scheduler that is told so"


def _config_or_none(header: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        return config_from_header(header)
    except ModelError:
        return None
