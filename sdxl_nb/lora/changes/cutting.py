"""How much of a change stays: by rank, by energy, of all layers together or of each.

In: changes, each as a matrix or as a product of two thin ones. Out: `Layer`s of lower rank, the best there are of it
(Eckart and Young), and the share of energy that they keep. Of a product the singular values come from two thin QR
factorisations and one small SVD. Of a matrix they come from torch.linalg.svd, and where its shorter side is above
EXACT from torch.svd_lowrank (Halko et al., arXiv 0909.4061), which takes a hundredth of the time and finds no more of
them than are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...system.errors import ModelError
from ..base import Base
from ..layers import Layer, LoraWeights

EXACT = 256  # the shorter side up to which all singular values are computed
OVER, ROUNDS = 8, 4  # svd_lowrank: more columns than are kept, and power iterations
FIRST = 32  # how many singular values are tried first where energy decides
ROUNDING = 1e-6  # of the largest singular value: smaller ones are rounding of fp32


@dataclass(frozen=True)
class Cut:
    """What stays: `rank` at most, or `energy` (a share), or both. ModelError for numbers that are none.

    `energy` is kept by all layers together with one rank for all, or with `per_layer` by each with a rank of its own.
    Without either all stays that is more than rounding.
    """

    rank: int | None = None
    energy: float | None = None
    per_layer: bool = False

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ModelError(f"{self.rank} is no rank: give a rank of 1 or more.")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ModelError(f"The energy is the share that is kept, above 0 and at most 1, not {self.energy}.")
        if self.per_layer and self.energy is None:
            raise ModelError("Ranks by layer are chosen by energy: give an energy, for example 0.95, too.")

    def asked(self) -> "Cut":
        """Itself; ModelError where neither rank nor energy is given."""
        if self.rank is None and self.energy is None:
            raise ModelError("Give a rank, or the share of the energy to keep, for example 0.95, or both.")
        return self

    def enough(self, values: torch.Tensor, energy: float) -> int:
        """How many of a layer's singular values it needs for itself; all there are where they do not suffice."""
        if self.energy is not None:
            sums = values.double().square().cumsum(0)
            count = int((sums < self.energy * energy * (1 - 1e-12)).sum()) + 1
        else:
            count = int((values > ROUNDING * values[0]).sum()) if self.rank is None else self.rank
        return max(1, min(count, len(values), self.rank or len(values)))


class Factors(NamedTuple):
    """The leading singular triples of a change, u (out, k), s (k,), v (k, columns), and the energy of all of it."""

    u: torch.Tensor
    s: torch.Tensor
    v: torch.Tensor
    energy: float

    def first(self, count: int) -> "Factors":
        """No more than so many of them, copied, so that the others are let go."""
        return Factors(self.u[:, :count].clone(), self.s[:count].clone(), self.v[:count].clone(), self.energy)


@dataclass(frozen=True)
class Reduced:
    """The result, and the kept share of the change's energy (squared Frobenius norm): overall, and per module."""

    weights: LoraWeights
    kept: float
    kept_by_module: dict[str, float]


def of_product(up: torch.Tensor, down: torch.Tensor, cut: Cut) -> Factors:
    """What a layer needs of up (out, r) times down (r, columns)."""
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().T)
    u, s, v = torch.linalg.svd(r_up @ r_down.T)
    count = len(s)
    found = Factors(q_up @ u[:, :count], s, v[:count] @ q_down.T, float((s**2).sum()))
    return found.first(cut.enough(s, found.energy))


def of_matrix(matrix: torch.Tensor, cut: Cut) -> Factors:
    """What a layer needs of a change (out, columns) in fp32, where rank or energy is asked for."""
    energy = float(torch.linalg.vector_norm(matrix, dtype=torch.float64) ** 2)
    short = min(matrix.shape)
    count = min(cut.rank or FIRST, short)
    while short > EXACT and 2 * count < short:
        u, s, v = _leading(matrix, count)
        if cut.rank or float(s.double().square().sum()) >= (cut.energy or 0) * energy:
            return Factors(u, s, v, energy).first(cut.enough(s, energy))
        count = 2 * count
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    return Factors(u, s, v, energy).first(cut.enough(s, energy))


def _leading(matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first singular triples; the same at every call, and nobody else's random numbers move."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix, min(count + OVER, *matrix.shape), ROUNDS)
    return u[:, :count], s[:count], v.T[:count]


def reduced(factors: Mapping[str, Factors], shapes: Mapping[str, tuple[int, ...]], base: Base, cut: Cut) -> Reduced:
    """The LoRA of what `of_product` and `of_matrix` found; `shapes` are those of down weights without their rank."""
    most = _common(factors, cut) if cut.energy is not None and not cut.per_layer else None
    layers, kept = {}, {}
    for path, found in factors.items():
        some = found.first(most) if most else found
        layers[path] = _layer(some, shapes[path])
        kept[path] = min(1.0, float((some.s.double() ** 2).sum()) / found.energy) if found.energy else 1.0
    total = sum(found.energy for found in factors.values())
    whole = sum(kept[path] * found.energy for path, found in factors.items()) / total if total else 1.0
    return Reduced(LoraWeights(dict(layers), base), whole, kept)


def _common(factors: Mapping[str, Factors], cut: Cut) -> int:
    """The lowest rank with which all layers together keep the energy: it is one that each of them does not exceed."""
    longest = max(len(found.s) for found in factors.values())
    by_rank = torch.zeros(longest, dtype=torch.float64)
    for found in factors.values():
        by_rank[: len(found.s)] += found.s.double().cpu() ** 2
    wanted = (cut.energy or 1.0) * sum(found.energy for found in factors.values()) * (1 - 1e-12)
    return min(longest, int((by_rank.cumsum(0) < wanted).sum()) + 1)


def _layer(found: Factors, down_shape: tuple[int, ...]) -> Layer:
    """up and down with an alpha that is the rank; the singular values are shared, so that neither is large in fp16."""
    root, rank = found.s.sqrt(), len(found.s)
    up = (found.u * root).float().contiguous()
    down = (root[:, None] * found.v).float().reshape(rank, *down_shape).contiguous()
    return Layer(down, up[..., None, None] if len(down_shape) == 3 else up, float(rank))
