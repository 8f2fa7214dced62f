"""At which timesteps pictures are noised: how the even draw of every position is spread.

In: a TrainConfig and the number of timesteps. Out: for each timestep that a position draws evenly, the one that is
taken: a table of as many quantiles, so that the draws themselves stay functions of (seed, position). Timestep 0 is the
clearest.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from ...config.train_config import TrainConfig

SHAPES = {"logit_normal": (0.0, 1.0), "beta": (2.0, 2.0), "sigmoid": (10.0, 0.5)}  # their numbers, unless given
FINE = 10_000  # steps of an integral


def spread(config: TrainConfig, count: int) -> np.ndarray | None:
    """The timestep (count,) that is taken for each one drawn; None when each is taken as it is drawn."""
    kind = config.timestep_distribution
    last = min(config.max_timestep or count, count)
    plain = kind in ("uniform", "stratified")
    if plain and config.min_timestep == 0 and last == count:
        return None
    even = (np.arange(count) + 0.5) / count
    a, b = config.timestep_shape or SHAPES.get(kind, (0.0, 0.0))
    share = even if plain else KINDS[kind](even, a, b)
    taken = config.min_timestep + share * (last - config.min_timestep)
    found: np.ndarray = taken.astype(np.int64).clip(config.min_timestep, last - 1)
    return found


def shares(config: TrainConfig, count: int = 1000, parts: int = 25) -> np.ndarray:
    """How many of the pictures train in each of so many equal parts of all timesteps, as shares of one, (parts,)."""
    taken = spread(config, count)
    even = np.arange(count)
    found: np.ndarray = np.histogram(even if taken is None else taken, parts, (0, count))[0] / count
    return found


def _logit_normal(even: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """sigmoid of a normal number (arXiv 2403.03206, eq. 19)."""
    normal = NormalDist(mean, deviation)
    return np.array([1 / (1 + math.exp(-normal.inv_cdf(share))) for share in even.tolist()])


def _beta(even: np.ndarray, a: float, b: float) -> np.ndarray:
    """The beta distribution of these two numbers; (2, 2) takes more of the middle, (1, 1) is even."""
    return _quantiles(even, lambda t: t ** (a - 1) * (1 - t) ** (b - 1))


def _sigmoid(even: np.ndarray, slope: float, middle: float) -> np.ndarray:
    """A density that rises as a sigmoid: more of the noisy ones; a negative slope takes more of the clear ones."""
    return _quantiles(even, lambda t: 1 / (1 + np.exp(-slope * (t - middle))))


def _quantiles(even: np.ndarray, density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Where the shares `even` of a density over (0, 1) lie, by an integral of its values."""
    middles = (np.arange(FINE) + 0.5) / FINE
    mass = np.concatenate([[0.0], np.cumsum(density(middles))])
    found: np.ndarray = np.interp(even, mass / mass[-1], np.linspace(0, 1, FINE + 1))
    return found


KINDS = {"logit_normal": _logit_normal, "beta": _beta, "sigmoid": _sigmoid}


def stratified(timestep: int, stratum: int, strata: int, count: int) -> int:
    """A timestep drawn evenly, moved into one of so many equal parts of all timesteps."""
    return int((stratum + (timestep + 0.5) / count) / strata * count)
