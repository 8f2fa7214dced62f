"""What is said of alpha outside of a file's tensors: in diffusers' header, or in PEFT's adapter_config.json beside it.

In: a file's `Contents`, header and path. Out: `Strengths`, the alpha of each module. Nothing a header says is run: its
patterns are compared as text.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...system.errors import ModelError
from ..names import COMPONENTS
from .contents import Contents
from .metadata import ADAPTER_KEY

BESIDE = "adapter_config.json"  # of PEFT, which writes adapter_model.safetensors


class _Expression(ValueError):
    """A pattern that is no name."""


@dataclass(frozen=True)
class Strengths:
    """Alphas of modules whose tensors have none; `guessed` is the sentence about a file whose own are not at hand."""

    configs: "Mapping[str, _AdapterFields]"
    guessed: str | None = None

    def alpha(self, module: str, rank: int) -> float:
        """Of a module of this rank, which it is where nothing is said."""
        return self.configs[module.partition(".")[0]].alpha(module, rank)

    def whole(self, module: str) -> float:
        """The strength of a LoKr of two whole factors: 1, but alpha / r where PEFT has written it."""
        return self.configs[module.partition(".")[0]].whole(module)


def strengths(found: Contents, metadata: Mapping[str, str], path: Path, name: str) -> Strengths:
    """What header or adapter_config.json say. ModelError where they cannot be read."""
    try:
        fields = json.loads(metadata[ADAPTER_KEY]) if ADAPTER_KEY in metadata else _beside(found, path)
        if not isinstance(fields, dict | None):
            raise ValueError("no object")
        configs = {component: _AdapterFields.of(fields or {}, component) for component in COMPONENTS}
        if not all(math.isfinite(alpha) for config in configs.values() for alpha in config.alphas()):
            raise ValueError("alpha")  # JSON of Python knows NaN
    except _Expression as error:
        raise ModelError(
            f"{name}: the adapter settings in its header or {BESIDE} name modules by an expression, {error}, which is "
            "not run here: write their whole names into alpha_pattern, or alpha tensors, as kohya's files have them."
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ModelError(f"{name}: the adapter settings in its header are damaged; its strength is unknown.") from error
    return Strengths(configs, _guessed(found, name) if fields is None else None)


def _beside(found: Contents, path: Path) -> dict[str, Any] | None:
    """PEFT's settings beside its file, under its own name or the only one there; None where there are none."""
    beside = path.with_name(BESIDE)
    usual = path.name == "adapter_model.safetensors"
    alone = usual or (found.of_peft and len(list(path.parent.glob("*.safetensors"))) == 1)
    if not (alone and beside.is_file()):
        return None
    fields: dict[str, Any] = json.loads(beside.read_text("utf-8"))
    return fields


def _guessed(found: Contents, name: str) -> str | None:
    if not found.of_peft or all("alpha" in parts for parts in found.layers.values()):
        return None
    return (
        f"{name} is PEFT's, which writes alpha into {BESIDE}, and none of its own lies beside it: it is read with an "
        "alpha that is its rank; put both into a folder of their own."
    )


@dataclass(frozen=True)
class _AdapterFields:
    """What a stranger's LoraConfig, LoHaConfig or LoKrConfig says of one model."""

    lora_alpha: float | None
    patterns: dict[str, float]
    rslora: bool
    ranks: dict[str, float]
    rank: float | None  # of LoHa and LoKr alone, whose alpha is called that

    @classmethod
    def of(cls, fields: Mapping[str, Any], component: str) -> "_AdapterFields":
        """The fields of `component`; those without any component's name (one model's own) are of each."""
        if not any(key.partition(".")[0] in COMPONENTS for key in fields):
            mine = dict(fields)
        else:
            mine = {k.removeprefix(f"{component}."): v for k, v in fields.items() if k.startswith(f"{component}.")}
        alpha = mine.get("lora_alpha", mine.get("alpha"))
        return cls(
            None if alpha is None else float(alpha),
            _named(mine.get("alpha_pattern")),
            bool(mine.get("use_rslora")),
            _named(mine.get("rank_pattern")) if "alpha" in mine else {},
            float(mine["r"]) if "alpha" in mine and mine.get("r") else None,
        )

    def alphas(self) -> list[float]:
        return [*self.patterns.values(), *([] if self.lora_alpha is None else [self.lora_alpha])]

    def alpha(self, module: str, rank: int) -> float:
        found = _of(self.patterns, module, self.lora_alpha)
        return rank if found is None else found * (rank**0.5 if self.rslora else 1)

    def whole(self, module: str) -> float:
        alpha, rank = _of(self.patterns, module, self.lora_alpha), _of(self.ranks, module, self.rank)
        return 1.0 if alpha is None or not rank else alpha / rank


def _of(patterns: Mapping[str, float], module: str, usual: float | None) -> float | None:
    """The first pattern's number that is meant for the module, as PEFT takes it."""
    return next((value for name, value in patterns.items() if module.endswith(f".{name}")), usual)


def _named(patterns: Mapping[str, Any] | None) -> dict[str, float]:
    return {_literal(key): float(value) for key, value in (patterns or {}).items()}


def _literal(pattern: str) -> str:
    literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if not re.fullmatch(r"[\w.]+", literal):
        raise _Expression(pattern[:60])
    return literal
