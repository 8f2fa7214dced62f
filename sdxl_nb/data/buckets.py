"""Aspect-ratio buckets: for the size of every picture, the shape that it is trained at.

In: upright sizes, numpy (N, 2) of (height, width), and the resolution. Out: Buckets: the shapes, which picture has
which, and what that costs (area cropped away, pictures enlarged). Sides are multiples of a step, no area exceeds
resolution x resolution (so memory is what the square needs) and no side ratio exceeds 4, the range of SDXL's own
training (SDXL paper, arXiv 2307.01952, appendix I).

Arithmetic is whole numbers, divisions and square roots, all exact by IEEE 754: every machine finds the same buckets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..config.train_config import TrainConfig
from .folder_settings import Folders

RATIO = 4  # the longest shape is this many times as long as it is short
Numbers = int | np.ndarray
FAR = 0.05  # share of its area that a picture loses more than the others on average, to be worth its name
SOME = 1 << 16  # pictures that are reckoned with at once: of a million each number takes 8 MB
PRICE = 0.2  # picture areas that a further shape must save from being cropped away; see choose


@dataclass(frozen=True, eq=False)
class Buckets:
    """Shapes (height, width), tallest last; for each picture the number of its shape, and what fitting it costs."""

    shapes: list[tuple[int, int]]
    assignment: np.ndarray  # (N,) int32: picture -> number of its shape
    kept: np.ndarray  # (N,) float32: share of the picture's area that training sees
    upscaled: np.ndarray  # (N,) float32: how many times each side is enlarged; 1.0 where it is not

    def counts(self) -> list[int]:
        """The number of pictures of each shape."""
        counted: list[int] = np.bincount(self.assignment, minlength=len(self.shapes)).tolist()
        return counted

    def shape(self, index: int) -> tuple[int, int]:
        """The (height, width) that a picture is trained at."""
        return self.shapes[int(self.assignment[index])]

    def summary(self, most: int = 6, names: Sequence[str] = ()) -> str:
        """What the buckets are, in one sentence: pictures by shape, the area cropped away, pictures enlarged.

        With the `names` of the pictures, the one that loses far more than the others is called by its own.
        """
        if not len(self.kept):
            return "There is no picture with a caption yet."
        counts = self.counts()
        by_size = sorted(range(len(counts)), key=lambda number: -counts[number])
        listed = [f"{counts[n]} at {self.shapes[n][1]}x{self.shapes[n][0]}" for n in by_size[:most]]
        if len(counts) > most:
            listed.append(f"{sum(counts[n] for n in by_size[most:])} at {len(counts) - most} other sizes")
        line = f"Pictures by size (width x height): {', '.join(listed)}; "
        lost = 1 - self.kept.astype(np.float64)
        line += f"{100 * lost.mean():.1f} % of their area is cropped away"
        worst = int(lost.argmax())
        if lost[worst] > lost.mean() + FAR:
            line += f", of {names[worst] if len(names) else 'one picture'} {100 * lost[worst]:.1f} %"
        enlarged = int((self.upscaled > 1).sum())
        return line + (f", {enlarged} are enlarged, at most {self.upscaled.max():.1f} times." if enlarged else ".")


def of(config: TrainConfig, sizes: ArrayLike, planned: int | None = None, folders: Folders | None = None) -> Buckets:
    """The Buckets that a TrainConfig asks for, for pictures of these sizes; `planned` as in `plan`.

    With `folders` each picture has the settings of its own; those of the same settings are planned together.
    """
    measured = _whole(sizes)
    if folders is None:
        return _report(measured, _shapes(config, measured, planned))
    shapes, trained = (
        np.empty_like(measured),
        np.arange(len(measured)) < (len(measured) if planned is None else planned),
    )
    groups: dict[Any, tuple[TrainConfig, list[int]]] = {}
    for number in np.unique(folders.number).tolist():
        own = config if number < 0 else folders.configs[number]
        groups.setdefault(_settings(own), (own, []))[1].append(number)
    for own, numbers in groups.values():
        rows = np.flatnonzero(np.isin(folders.number, numbers))
        rows = np.concatenate([rows[trained[rows]], rows[~trained[rows]]])
        shapes[rows] = _shapes(own, measured[rows], int(trained[rows].sum()) or None)
    return _report(measured, shapes)


def _settings(config: TrainConfig) -> tuple[Any, ...]:
    """What the shapes of pictures depend on."""
    return config.uses_buckets(), config.resolution, config.bucket_reso_steps, config.bucket_no_upscale


def _shapes(config: TrainConfig, measured: np.ndarray, planned: int | None) -> np.ndarray:
    """The shape (N, 2) of each picture."""
    if not config.uses_buckets():
        return _squares(measured, config.resolution)
    return _planned(measured, config.resolution, config.bucket_reso_steps, config.bucket_no_upscale, planned)


def plan(
    sizes: ArrayLike, resolution: int, steps: int = 64, *, no_upscale: bool = False, planned: int | None = None
) -> Buckets:
    """Buckets for pictures of these sizes, each in the nearest one by ratio of sides.

    They are chosen for the first `planned` pictures (None: for all), so that the others, held out, change nothing.

    `steps` divides all sides (where it does not divide `resolution`, their greatest common divisor does). Shapes
    that too few pictures want are left out. Without no_upscale small pictures are enlarged to cover their shape, as
    without buckets; with it they are trained at their own size instead, cut to multiples of the step, and only what is
    smaller than one step is enlarged to it.
    """
    measured = _whole(sizes)
    return _report(measured, _planned(measured, resolution, steps, no_upscale, planned))


def _planned(measured: np.ndarray, resolution: int, steps: int, no_upscale: bool, planned: int | None) -> np.ndarray:
    """The shapes (N, 2) that `plan` gives."""
    step = math.gcd(steps, resolution)
    chosen = choose(measured[:planned], ladder(resolution, step))
    shapes: np.ndarray = chosen[nearest(measured, chosen)]
    if no_upscale:
        small = fit(measured, shapes)[1] > 1
        shapes[small] = own_shapes(measured[small], step)
    return shapes


def square(sizes: ArrayLike, resolution: int) -> Buckets:
    """The one square bucket of the diffusers script, reported in the same way."""
    measured = _whole(sizes)
    return _report(measured, _squares(measured, resolution))


def _squares(measured: np.ndarray, resolution: int) -> np.ndarray:
    squares: np.ndarray = np.full_like(measured, resolution)
    return squares


def ladder(resolution: int, step: int) -> np.ndarray:
    """All shapes there may be, (K, 2), widest first: for each short side the longest long one that the area allows."""
    most, least = resolution * resolution, resolution * resolution // RATIO
    short = np.array([side for side in range(step, resolution + 1, step) if side * side >= least])
    long = np.maximum(most // short // step * step, short)
    wide = np.stack([short, long], axis=1)
    return np.concatenate([wide, wide[::-1, ::-1][long[::-1] > short[::-1]]])


def nearest(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """For each picture the shape that keeps most of it: the nearest by ratio, (N,) numbers of `shapes`."""
    ratios = shapes[:, 0] / shapes[:, 1]
    numbers: np.ndarray = np.searchsorted(np.sqrt(ratios[:-1] * ratios[1:]), sizes[:, 0] / sizes[:, 1])
    return numbers


def choose(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The shapes, of those given, for which the area lost and PRICE for each of them add up to least.

    A picture of ratio x in a shape of ratio a keeps min(x / a, a / x). Fewer shapes mean fuller batches; the price does
    not depend on the batch, so that a run can go on with other micro-batches. The optimum is exact: shapes are ordered
    by ratio and a picture goes to one of its two neighbours, so costs add up between neighbours (a shortest path).
    """
    if not len(sizes):
        return shapes[:1]
    ratios = shapes[:, 0] / shapes[:, 1]
    x = np.sort(sizes[:, 0] / sizes[:, 1])
    ups, downs = (np.concatenate([[0.0], np.cumsum(values)]) for values in (x, 1 / x))
    at = np.searchsorted(x, ratios)

    # area lost by the pictures between a shape and place `last` of x, or `first` and a shape
    def above(shape: Numbers, last: Numbers) -> Any:
        return (last - at[shape]) - ratios[shape] * (downs[last] - downs[at[shape]])

    def below(shape: Numbers, first: Numbers) -> Any:
        return (at[shape] - first) - (ups[at[shape]] - ups[first]) / ratios[shape]

    cost, before = np.empty(len(shapes)), np.empty(len(shapes), dtype=np.int64)
    for j in range(len(shapes)):
        middle = np.searchsorted(x, np.sqrt(ratios[:j] * ratios[j]))
        ways = cost[:j] + above(np.arange(j), middle) + below(j, middle)
        ways = np.append(ways, below(j, 0))  # or none before it
        before[j] = np.argmin(ways)
        cost[j] = ways[before[j]] + PRICE
    last = int(np.argmin(cost + above(np.arange(len(shapes)), len(x))))
    path = [last]
    while before[path[-1]] != path[-1]:  # its own number says: none before it
        path.append(int(before[path[-1]]))
    chosen: np.ndarray = shapes[path[::-1]]
    return chosen


def own_shapes(sizes: np.ndarray, step: int) -> np.ndarray:
    """Small pictures at their own size: sides cut to multiples of the step, the longer to RATIO times the shorter."""
    sides = np.maximum(sizes // step * step, step)
    cut: np.ndarray = np.minimum(sides, RATIO * sides.min(axis=1, keepdims=True))
    return cut


def fit(sizes: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kept, scale) of pictures that cover these shapes, both (N,): crops.cover for many at once."""
    (height, width), (target_height, target_width) = sizes.T, shapes.T
    tall = target_height * width < target_width * height
    resized_height = np.maximum(target_height, (2 * height * target_width + width) // (2 * width))
    resized_width = np.maximum(target_width, (2 * width * target_height + height) // (2 * height))
    area = np.where(tall, resized_height * target_width, target_height * resized_width)
    return target_height * target_width / area, np.where(tall, target_width / width, target_height / height)


def _whole(sizes: ArrayLike) -> np.ndarray:
    return np.asarray(sizes, dtype=np.int64).reshape(-1, 2)


def _report(sizes: np.ndarray, shapes: np.ndarray) -> Buckets:
    """The Buckets of pictures with these shapes, both (N, 2)."""
    kept, upscaled = np.empty(len(sizes), np.float32), np.empty(len(sizes), np.float32)
    for first in range(0, len(sizes), SOME):
        part = slice(first, first + SOME)
        kept[part], scale = fit(sizes[part], shapes[part])
        upscaled[part] = np.maximum(scale, 1)
    each = shapes[:, 0] << 32 | shapes[:, 1]
    codes = np.unique(each)
    different = sorted(((int(c) >> 32, int(c) & 0xFFFFFFFF) for c in codes), key=lambda s: (s[0] / s[1], s))
    rank = {shape: number for number, shape in enumerate(different)}
    renumbered = np.array([rank[int(c) >> 32, int(c) & 0xFFFFFFFF] for c in codes], dtype=np.int32)
    return Buckets(different, renumbered[np.searchsorted(codes, each)], kept, upscaled)
