"""Which picture comes when, and every random choice about it: pure functions of (seed, position).

Position counts the pictures of a run from 0. The choices at a position do not depend on batch size, number of
processes, accumulation or where a run was resumed, so all of those give the same training (facts of the field:
resumed runs of other trainers differ because their random state is lost). Philox is a counter-based generator
(Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a key is a stream of its own.
"""

import functools
from dataclasses import dataclass

import numpy as np

_ORDER = 1 << 63  # the half of the keys that orders epochs; positions use the other


@functools.lru_cache(maxsize=2)
def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The pictures of an epoch, each index below `count` once."""
    return _stream(seed, _ORDER + epoch).permutation(count)


def _stream(seed: int, number: int) -> np.random.Generator:
    # uint64 said aloud: numpy makes floats of a list that mixes small numbers and those above 2**63
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))


@dataclass(frozen=True)
class Choices:
    """The random choices at a position: where to crop (u, v in [0, 1)), and the rest, with noise on request."""

    u: float
    v: float
    flip: bool
    empty_caption: bool
    timestep: int
    generator: np.random.Generator

    @classmethod
    def at(cls, seed: int, position: int, *, timesteps: int, empty_share: float) -> "Choices":
        """Drawn in a fixed order from the position's own stream."""
        generator = _stream(seed, position)
        u, v, flip, empty, when = generator.random(5)
        return cls(u, v, bool(flip < 0.5), bool(empty < empty_share), int(when * timesteps), generator)

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next fp32 normal numbers of this position."""
        return self.generator.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Stream:
    """The pictures of a whole run, cut into optimizer steps.

    `batch` pictures a step (all processes and accumulation together); the last step of an epoch takes what is left,
    so that every picture is seen once an epoch.
    """

    count: int
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch)

    def epoch(self, step: int) -> int:
        """The epoch that optimizer step `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def positions(self, step: int) -> range:
        """The positions of an optimizer step."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        first = inside * self.batch
        last = min(first + self.batch, self.count)
        return range(epoch * self.count + first, epoch * self.count + last)

    def pictures(self, positions: range) -> list[int]:
        """The picture at each of these positions, which lie in one epoch."""
        if not positions:
            return []
        epoch, first = divmod(positions[0], self.count)
        return order(self.count, self.seed, epoch)[first : first + len(positions)].tolist()


def share(positions: range, rank: int, processes: int) -> range:
    """The part of a step's positions that one process takes: consecutive, as even as can be, perhaps none."""
    size = -(-len(positions) // processes)
    return positions[rank * size : (rank + 1) * size]
