"""A LoRA from two models: what turns one base into another, as far as a LoRA can hold it.

In: two bases, each a folder, a hub id or one checkpoint file. Out: an `Extraction`: the LoRA, how much of the change
it keeps, and a count of what changed besides, which no LoRA holds: norms, biases, embeddings, the VAE. Both models are
read tensor by tensor, so that of each never more than one is in memory.
"""

import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...config.header import CONFIG_KEY
from ...models.objective import base_objective
from ...models.refusals.kinds import check_base
from ...models.sources import Source
from ...system.errors import ModelError
from ...system.progress import progress_bar
from ..base import Base, module_of
from ..files.metadata import build_metadata
from ..files.readers import known_to_all
from ..names import COMPONENTS, UNET, canonical_path
from .cutting import Cut, Factors, Reduced, of_matrix, reduced
from .reading import Parameter, Part, opened_parts


@dataclass(frozen=True)
class Extraction(Reduced):
    """The LoRA, what it keeps, and `lost`: kind of tensor -> (how many changed, how many there are).

    `compared` is the dtype that weights were rounded to before they were compared, None where none were.
    """

    lost: dict[str, tuple[int, int]] = field(default_factory=dict)
    compared: torch.dtype | None = None

    @property
    def remarks(self) -> list[str]:
        """What changed and is not in the LoRA, and how the models were compared; none where there is nothing to say."""
        changed = [f"{count} of {there} {kind}" for kind, (count, there) in self.lost.items() if count]
        said = [f"Not in the LoRA, which holds no such: changes of {', '.join(changed)}."] if changed else []
        if self.compared:
            name = str(self.compared).removeprefix("torch.")
            said.append(f"The models were compared as {name}, which one of them is stored in: it has more rounding.")
        return said


def extract(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    rank: int | None = None,
    *,
    energy: float | None = None,
    per_layer: bool = False,
    progress: bool = False,
) -> Extraction:
    """The LoRA that makes `tuned` of `base`: all layers that differ, by SVD, cut by rank or energy (`Cut`).

    Each is embedded:tiny-sdxl, a hub id, a diffusers folder or a checkpoint. Where one is a rounding of what the other
    is, both are compared in its dtype. ModelError for models that are no SDXL, lack a part, have other shapes than each
    other, hold NaN, or do not differ.
    """
    cut = Cut(rank, energy, per_layer).asked()
    one, other = Source(str(base)), Source(str(tuned))
    _refuse_same(one, other)
    for source in (one, other):
        check_base(source)
    old, new = opened_parts(one), opened_parts(other)
    described, theirs = (Base.of(*(parts[name].model for name in COMPONENTS)) for parts in (old, new))
    _check_shapes(described, theirs, one, other)
    rounded, findings = _rounded(old[UNET], new[UNET]), _Findings(cut, known_to_all(described))
    with progress_bar(total=sum(map(len, old.values())), unit="tensor", disable=not progress, leave=False) as bar:
        for part, before, after in _pairs(old, new):
            findings.take(part, before, _change(before, after, rounded, (one, other)))
            bar.update()
    if not findings.factors:
        also = ", but for what no LoRA holds, as norms and biases" if findings.changed_besides else ""
        raise ModelError(f"{one.name} and {other.name} have the same weights{also}: there is nothing to extract.")
    made = reduced(findings.factors, findings.shapes, described, cut)
    made.weights.metadata.update(_header(one, other))
    return Extraction(made.weights, made.kept, made.kept_by_module, findings.lost, rounded)


@dataclass
class _Findings:
    """What is kept of the changes of layers that every reader knows, and the count of all other tensors."""

    cut: Cut
    known: Container[str]
    factors: dict[str, Factors] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def changed_besides(self) -> bool:
        return any(changed for changed, _ in self.lost.values())

    def take(self, part: str, parameter: Parameter, change: torch.Tensor | None) -> None:
        """Cut a layer's change, or count what no LoRA holds."""
        path = canonical_path(f"{part}.{parameter.module_name}")
        module = module_of(parameter.layer) if parameter.is_weight else None
        if module is None or path is None or path not in self.known:
            kind = _kind(part, parameter)
            changed, there = self.lost.get(kind, (0, 0))
            self.lost[kind] = changed + (change is not None), there + 1
        elif change is not None:
            self.factors[path], self.shapes[path] = of_matrix(change.flatten(1), self.cut), module.down_shape


def _pairs(old: dict[str, Part], new: dict[str, Part]) -> Iterator[tuple[str, Parameter, Parameter]]:
    for part, parameters in old.items():
        yield from ((part, before, after) for before, after in zip(parameters, new[part], strict=True))


def _refuse_same(one: Source, other: Source) -> None:
    here = [Path(source.location) for source in (one, other)]
    same = here[0].samefile(here[1]) if all(path.exists() for path in here) else one.location == other.location
    if same:
        raise ModelError(f"{one.name} and {other.name} are the same: give the base, and the model made from it.")


def _check_shapes(one: Base, other: Base, first: Source, second: Source) -> None:
    left, right = json.loads(one.description), json.loads(other.description)
    for part in left:
        for name in {**left[part], **right[part]}:
            a, b = left[part].get(name), right[part].get(name)
            if a != b:
                raise ModelError(
                    f"{first.name} and {second.name} have other shapes ({part}: {name} is {a} and {b}): a LoRA is the "
                    "difference of two models of one architecture."
                )


def _rounded(old: Part, new: Part) -> torch.dtype | None:
    """The coarser dtype of the two, where the models differ by rounding to it; None where there is no such.

    That the tuned one is coarser is enough. A base that is coarser may be what the tuned one was made of, exactly: then
    the tensors that nobody trains are equal. Where they are not, and round to the base, it is a rounding of another.
    """
    small = [pair for pair in zip(old, new, strict=True) if len(pair[0].slot.shape) == 1]
    one, other = small[0][0].read().dtype, small[0][1].read().dtype
    if _precision(one) == _precision(other):
        return None
    if _precision(one) < _precision(other):  # the tuned one is coarser
        return other
    values = [(before.read().float(), after.read().float(), before.read().dtype) for before, after in small]
    differ = [(a, b, dtype) for a, b, dtype in values if not torch.equal(a, b)]
    return one if differ and all(torch.equal(b.to(dtype).float(), a) for a, b, dtype in differ) else None


def _precision(dtype: torch.dtype) -> float:
    """The step between numbers near 1: larger is coarser."""
    return torch.finfo(dtype).eps


def _change(
    before: Parameter, after: Parameter, rounded: torch.dtype | None, sources: tuple[Source, Source]
) -> torch.Tensor | None:
    """The difference in fp32; None where there is none."""
    old, new = (each.read().to(rounded).float() if rounded else each.read().float() for each in (before, after))
    change = new - old
    if not torch.isfinite(change).all():
        source, name = (sources[1], after.name) if torch.isfinite(old).all() else (sources[0], before.name)
        raise ModelError(f"{source.name} holds NaN or infinity in {name}: get it again.")
    return change if change.any() else None


def _kind(part: str, parameter: Parameter) -> str:
    """What is said of a tensor that a LoRA does not hold."""
    if part not in COMPONENTS:
        return "tensors of the VAE"
    if isinstance(parameter.layer, nn.Embedding):
        return "embeddings"
    if isinstance(parameter.layer, nn.GroupNorm | nn.LayerNorm):
        return "norms' weights and biases"
    return "layers that not every reader knows" if parameter.is_weight else "biases"


def _header(one: Source, other: Source) -> dict[str, str]:
    """The header: the base, and what the tuned model predicts, as settings where the base predicts something else."""
    objectives = [base_objective.of(source) for source in (one, other)]
    fields: dict[str, Any] = {"pretrained_model_name_or_path": one.name}
    wanted = [(found.prediction, found.zero_snr) for found in objectives]
    if wanted[0] != wanted[1]:
        fields |= {"prediction_type": wanted[1][0], "rescale_betas_zero_snr": wanted[1][1]}
    header = build_metadata(fields, output_name=Path(other.name).stem, prediction_type=wanted[1][0])
    for name in ("ss_training_finished_at", *(() if len(fields) > 1 else (CONFIG_KEY,))):
        header.pop(name, None)
    return header
