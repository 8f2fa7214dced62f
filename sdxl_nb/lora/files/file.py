"""One LoRA file on disk: what it holds, which readers know its keys, and how to show both.

In: a path; out: `LoraFile(path).check()` (a `KeyTable`) and `.info()` (a `LoraInfo`), which print and display.
"""

import contextlib
import html
import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...config.header import config_from_header, find_lora, objective_flags
from ...system.errors import ModelError
from ..base import SDXL, Base, Module
from ..kinds.factored import has_rank
from ..layers import LoraWeights
from ..names import COMPONENTS
from .architecture import remarks, said_base, why_not_sdxl
from .contents import (
    OVER_INPUTS,
    Contents,
    dora_over_inputs,
    first_few,
    said_doubled,
    said_kind,
    said_not_finite,
)
from .metadata import BASE_KEY
from .reader import layer_of, open_lora, read_lora, refuse_foreign, said_idle, said_misfits
from .readers import KeyTable, key_table, reader_remarks
from .strengths import strengths

SGM_NAMES = "Its dotted names are neither kohya's nor diffusers': convert writes those, for every reader."


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
    kind: str = "LoRA"  # or DoRA, LoKr, "LoRA with lora_mid" and so on
    remarks: tuple[str, ...] = ()

    def _rows(self) -> list[tuple[str, str]]:
        shown = ("pretrained_model_name_or_path", "dataset_name", "resolution", "learning_rate", "seed")
        rows = [
            ("file", self.name),
            ("names", self.naming),
            ("modules", ", ".join(f"{count} {name}" for name, count in self.modules.items())),
            ("rank", _numbers(self.ranks)),
            ("alpha", _numbers(self.alphas)),
            ("kind", self.kind),
            ("parameters", f"{self.parameters:,}"),
            ("base", self.base_model_version or "not said"),
            ("predicts", self.predicts or "not said"),
            ("trigger words", self.trigger_words or "none given"),
        ]
        rows += [(name, str(self.config[name])) for name in shown if self.config and self.config.get(name)]
        return rows + [("note", remark) for remark in self.remarks]

    def __str__(self) -> str:
        return "\n".join(f"{name:<14} {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        cells = (f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._rows())
        return f"<table>{''.join(cells)}</table>"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"


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
        inventory = base.inventory if base_inventory is None else base_inventory
        table = key_table(tensors, base, inventory, readers)
        found = Contents.of(tensors, base.layout)
        wrong = None if BASE_KEY in metadata else why_not_sdxl(found, metadata, base)
        faults = [said_not_finite(tensors, self.path.name), f"It is no SDXL LoRA: {wrong}." if wrong else None]
        misfits = None if wrong else said_misfits(found, metadata, self.path, inventory)
        faults += [said_doubled(found, self.path.name), misfits]
        faults += [None if tensors else f"{self.path.name} holds no tensors; it is no LoRA."]
        notes = [*table.notes, *self._remarks(found, tensors, metadata, base)]
        notes += reader_remarks(found) if readers is None else []
        return replace(table, notes=tuple(notes), faults=tuple(filter(None, faults)))

    def info(self) -> LoraInfo:
        """Rank, alpha, modules, trigger words and configuration, for people; of LyCORIS' kinds too."""
        tensors, header = open_lora(self.path, self.path.name)
        base = Base.from_json(header[BASE_KEY]) if BASE_KEY in header else SDXL
        found = Contents.of(tensors, base.layout)
        refuse_foreign(found, header, base, self.path.name)
        ranks, alphas = self._strengths(found, header)
        said = said_not_finite(tensors, self.path.name)
        return LoraInfo(
            name=self.path.name,
            naming=found.naming,
            modules={name: found.components[name] for name in COMPONENTS if name in found.components},
            ranks=ranks,
            alphas=alphas,
            dora=any("dora_scale" in parts for parts in (*found.layers.values(), *found.others.values())),
            parameters=sum(tensor.numel() for key, tensor in tensors.items() if not key.endswith(".alpha")),
            base_model_version=said_base(header) or None,
            predicts=_predicts(header),
            trigger_words=header.get("modelspec.trigger_phrase"),
            config=_config_or_none(header),
            kind=found.kind,
            remarks=(*([said] if said else []), *self._remarks(found, tensors, header, base)),
        )

    def _strengths(self, found: Contents, header: Mapping[str, str]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The ranks and the alphas in the file, each once."""
        said = strengths(found, header, self.path, self.path.name)
        given = [parts.get("alpha") for parts in found.others.values()]
        ranks: set[int] = set()
        alphas = {float(alpha) for alpha in given if alpha is not None and alpha.numel() == 1}
        for path, parts in found.layers.items():
            plain = {name: tensor for name, tensor in parts.items() if name != "dora_scale"}
            layer = layer_of(path, plain, said, self.path.name)
            if has_rank(layer):
                ranks.add(layer.rank)
                alphas.add(layer.alpha)
        return tuple(sorted(ranks)), tuple(sorted(alphas))

    def _remarks(
        self, found: Contents, tensors: Mapping[str, Any], header: Mapping[str, str], base: Base
    ) -> Iterator[str]:
        """What the file is, where that is more than a LoRA whose header says SDXL."""
        if found.others:
            yield f"It is {said_kind(found)}"
        if over := dora_over_inputs(found, tensors, header, base.layout):
            yield f"The DoRA of {first_few(over)} {OVER_INPUTS}"
        if found.naming == "sgm":
            yield SGM_NAMES
        with contextlib.suppress(ModelError):  # which is said on its own
            alphas = strengths(found, header, self.path, self.path.name)
            yield from filter(None, [alphas.guessed])
            layers = {path: layer_of(path, parts, alphas, self.path.name) for path, parts in found.layers.items()}
            yield from filter(None, [said_idle(layers, self.path.name)])
        yield from remarks(found, header)


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
