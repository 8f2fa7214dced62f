"""A mean and how far it could be off by chance: the bootstrap over prompts and, within each, over seeds.

In: values [prompt][seed]. Out: a Score. Prompts are drawn with replacement, and of each its seeds, since pictures of
one prompt are alike (the cluster bootstrap of Davison & Hinkley 1997, section 3.8). Always the same random numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS, SEED, SHARE = 2000, 0, 0.95
AT_ONCE = 2_000_000  # numbers held in memory

Values = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Score:
    """The mean over all values, and between what it lies with 95 %; `low` and `high` are None for a single value."""

    mean: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Values) -> "Score":
        """The Score of values [prompt][seed]; a prompt may have more seeds than another, and none may be empty."""
        mean = math.fsum(value for row in values for value in row) / sum(map(len, values))
        if sum(map(len, values)) == 1:
            return cls(mean)
        low, high = np.quantile(resampled(values), [(1 - SHARE) / 2, (1 + SHARE) / 2])
        return cls(mean, float(low), float(high))

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return number(self.mean)
        return f"{number(self.mean)} [{number(self.low)}, {number(self.high)}]"


def resampled(values: Values) -> np.ndarray:
    """(DRAWS,) means of prompts and seeds drawn with replacement."""
    counts = np.array([len(row) for row in values])
    padded = np.zeros((len(values), counts.max()))
    for row, known in zip(padded, values, strict=True):
        row[: len(known)] = known
    generator, means = np.random.default_rng(SEED), []
    portion = max(1, AT_ONCE // padded.size)
    for first in range(0, DRAWS, portion):
        shape = (min(portion, DRAWS - first), len(values))
        prompts = generator.integers(len(values), size=shape)
        seeds = (generator.random((*shape, padded.shape[1])) * counts[prompts][..., None]).astype(int)
        there = np.arange(padded.shape[1]) < counts[prompts][..., None]
        means.append((padded[prompts[..., None], seeds] * there).sum((1, 2)) / there.sum((1, 2)))
    return np.concatenate(means)


def number(value: float) -> str:
    """Four digits at most: 0.8123, 12.31, 27.40."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
