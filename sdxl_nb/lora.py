"""LoRA files: what one holds, who can read it, and the front door to reading, writing and putting them on models.

`LoraFile(path)` describes a file and checks its keys; the functions re-exported here live in lora_layers.py (live
models), lora_reader.py and lora_writer.py (files), lora_arithmetic.py (merge, resize). On the command line:

    python -m sdxl_nb.lora {check,info} FILE
    python -m sdxl_nb.lora convert FILE GOAL --to {kohya,diffusers}
    python -m sdxl_nb.lora merge FILE[=WEIGHT] FILE[=WEIGHT] ... --rank N --output GOAL
    python -m sdxl_nb.lora resize FILE GOAL --rank N
"""

import html
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass

from .errors import ModelError
from .lora_base import SDXL, Base, Module
from .lora_layers import (
    Layer,
    LoraWeights,
    attach,
    collect,
    delta,
    detach,
    set_scale,
    target_modules,
    text_target_modules,
)
from .lora_metadata import BASE_KEY, build_metadata, config_from_header
from .lora_names import COMPONENTS, split_key
from .lora_reader import find_lora, open_lora, read_lora
from .lora_writer import save_lora


@dataclass(frozen=True)
class KeyTable:
    """Which keys of a file each reader knows: rows of (reader, keys known, keys unknown)."""

    rows: tuple[tuple[str, int, tuple[str, ...]], ...]

    @property
    def unknown(self) -> list[str]:
        """Every key that some reader does not know."""
        return sorted({key for _, _, keys in self.rows for key in keys})

    def as_dicts(self) -> list[dict]:
        """For events and cards: reader, known, unknown (the keys themselves)."""
        return [{"reader": reader, "known": known, "unknown": list(keys)} for reader, known, keys in self.rows]

    def _cells(self) -> list[tuple[str, str, str]]:
        return [
            (reader, str(known), f"{len(keys)}{': ' + ', '.join(keys[:3]) if keys else ''}{' ...' if keys[3:] else ''}")
            for reader, known, keys in self.rows
        ]

    def __str__(self) -> str:
        cells = [("reader", "keys known", "keys unknown"), *self._cells()]
        wide = max(len(row[0]) for row in cells)
        return "\n".join(f"{reader:<{wide}}  {known:>10}  {unknown}" for reader, known, unknown in cells)

    def _repr_html_(self) -> str:
        rows = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in self._cells())
        return f"<table><tr><th>reader</th><th>keys known</th><th>keys unknown</th></tr>{rows}</table>"


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
    trigger_words: str | None
    config: dict | None

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
            ("trigger words", self.trigger_words or "none given"),
        ]
        return rows + [(name, str(self.config[name])) for name in shown if self.config and self.config.get(name)]

    def __str__(self) -> str:
        return "\n".join(f"{name:<14} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._rows())
        return f"<table>{''.join(cells)}</table>"


def _numbers(values: tuple) -> str:
    return ", ".join(f"{value:g}" for value in values)


class LoraFile:
    """A LoRA file on disk: `LoraFile(path).check()`, `.info()`; `weights` reads its tensors."""

    def __init__(self, path: str | os.PathLike):
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

    def config(self) -> dict:
        """The configuration it was trained with, filtered (`lora_metadata.config_from_header`)."""
        return config_from_header(self.metadata)

    def check(
        self,
        base_inventory: Mapping[str, Module] | None = None,
        readers: Mapping[str, Container[str]] | None = None,
    ) -> KeyTable:
        """Compare every key with the base model's modules and with each reader's set of accepted keys.

        `base_inventory` (`Base.of(...).inventory`) defaults to the model that the header describes, else full-size
        SDXL. `readers` maps a reader's name to the keys it accepts, recorded from its own code.
        """
        tensors, metadata = open_lora(self.path, self.path.name)
        base = Base.from_json(metadata[BASE_KEY]) if BASE_KEY in metadata else SDXL
        inventory = base.inventory if base_inventory is None else base_inventory
        known = {"base model": {key for key in tensors if (split_key(key, base.layout) or ("",))[0] in inventory}}
        known |= dict(readers or {})
        return KeyTable(tuple(_row(reader, list(tensors), accepted) for reader, accepted in known.items()))

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
            trigger_words=header.get("modelspec.trigger_phrase"),
            config=_config_or_none(header),
        )


def _config_or_none(header: Mapping[str, str]) -> dict | None:
    try:
        return config_from_header(header)
    except ModelError:
        return None


def _row(reader: str, keys: list[str], accepted: Container[str]) -> tuple[str, int, tuple[str, ...]]:
    unknown = tuple(key for key in keys if key not in accepted)
    return reader, len(keys) - len(unknown), unknown


__all__ = [
    "Base",
    "KeyTable",
    "Layer",
    "LoraFile",
    "LoraInfo",
    "LoraWeights",
    "attach",
    "build_metadata",
    "collect",
    "config_from_header",
    "delta",
    "detach",
    "read_lora",
    "save_lora",
    "set_scale",
    "target_modules",
    "text_target_modules",
]

if __name__ == "__main__":
    import sys

    from .lora_command import main

    sys.exit(main())
