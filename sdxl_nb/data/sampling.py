"""Which picture comes when, and every random choice about it: pure functions of (seed, position).

Position counts the pictures of a run from 0. The choices at a position do not depend on number of processes,
micro-batches or where a run was resumed, so all of those give the same training (facts of the field: resumed runs of
other trainers differ because their random state is lost). Philox is a counter-based generator (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"): a key is a stream of its own.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..system.keys import key_of

# The upper bits of a key say what its stream is for; a position's own is 0.
_NOISE, _STRATA, _VARIANT = 1 << 60, (1 << 61) + (1 << 60), (1 << 62) + (1 << 60)
_MASK, _CAPTION, _WHICH = 1 << 61, 1 << 62, (1 << 62) + (1 << 61)
_ORDER, _BATCHES, _CLASS, _DROPOUT = ((1 << 63) + upper for upper in (0, 1 << 61, 1 << 62, (1 << 62) + (1 << 61)))


def order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The pictures of an epoch, each index below `count` once."""
    return _stream(seed, _ORDER + epoch).permutation(count)


def batches(groups: np.ndarray, batch: int, seed: int, epoch: int) -> np.ndarray:
    """The pictures of an epoch, each once, so that each `batch` in a row is of one group as far as that can be.

    `groups` (N,) is the group (bucket) of each picture. A last, short batch takes pictures of any group, each as
    likely as another: a step's loss is a mean, and so all of them count the same in the long run. What a group has
    beyond whole batches shares batches with the leftovers of other groups, so that no step is wasted. Whole and
    shared batches come in random order. With one group this is `order`.
    """
    shuffled = order(len(groups), seed, epoch)
    if not len(groups) or (groups == groups[0]).all():
        return shuffled
    generator = _stream(seed, _BATCHES + epoch)
    shuffled = shuffled.astype(np.int32)  # half of the memory, of a million pictures
    groups = generator.permutation(groups.max() + 1).astype(np.int32)[groups]
    full = len(groups) // batch
    first, last = (part[np.argsort(groups[part], kind="stable")] for part in np.split(shuffled, [full * batch]))
    counts = np.bincount(groups[first], minlength=groups.max() + 1).astype(np.int32)
    place = np.arange(len(first), dtype=np.int32)
    place -= np.repeat(np.cumsum(counts, dtype=np.int32) - counts, counts)  # inside its group
    whole = place < np.repeat(counts // batch * batch, counts)
    arranged = np.concatenate([first[whole], first[~whole]]).reshape(full, batch)
    return np.concatenate([arranged[generator.permutation(full)].ravel(), last])


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
    seed: int = 0
    position: int = 0  # those two for what is drawn apart from the others
    middle: bool = False  # it takes the middle crop, whatever others are kept

    @classmethod
    def at(cls, seed: int, position: int, *, timesteps: int, empty_share: float) -> "Choices":
        """Drawn in a fixed order from the position's own stream."""
        generator = _stream(seed, position)
        u, v, flip, empty, when = generator.random(5)
        chosen = bool(flip < 0.5), bool(empty < empty_share), int(when * timesteps)
        return cls(u, v, *chosen, generator, seed, position)

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """The next fp32 normal numbers of this position."""
        return self.generator.standard_normal(shape, dtype=np.float32)

    def words(self) -> np.random.Generator:
        """A generator for the caption of this position, apart from all other draws."""
        return _stream(self.seed, _CAPTION + self.position)

    def one_of(self, count: int) -> int:
        """Which of so many captions this position takes, apart from all other draws."""
        return int(_stream(self.seed, _WHICH + self.position).random() * count)

    def variant(self, count: int) -> int:
        """Which of so many kept crops this position takes, apart from all other draws."""
        return 0 if self.middle else int(_stream(self.seed, _VARIANT + self.position).random() * count)

    def dropout_key(self) -> int:
        """32 bits from which the dropout of this position comes, apart from all other draws."""
        return int(_stream(self.seed, _DROPOUT + self.position).integers(1 << 32))

    def further(self) -> np.random.Generator:
        """A generator for noise beyond the plain one of this position, apart from all other draws."""
        return _stream(self.seed, _NOISE + self.position)

    def goes_unmasked(self, share: float) -> bool:
        """Whether this position takes its picture without the mask, at this chance; apart from all other draws."""
        return share > 0 and bool(_stream(self.seed, _MASK + self.position).random() < share)


def crop_place(identity: str, number: int) -> tuple[float, float]:
    """Where kept crop `number` of a picture lies, (u, v) in (0, 1): the middle, then places far from each other.

    Those are Roberts' sequence R2 (extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences), for
    half of the pictures from the other end, so that no side is preferred; the same ones in any run.
    """
    u, v = ((0.5 + number * step) % 1 for step in (0.7548776662466927, 0.5698402909980532))
    down, across = (each % 2 > 0 for each in key_of(identity)[:2])
    return 1 - u if down else u, 1 - v if across else v


def strata(positions: range, seed: int) -> list[int]:
    """Which of as many equal parts of all timesteps each position of an optimizer step takes, each part once."""
    found: list[int] = _stream(seed, _STRATA + positions[0]).permutation(len(positions)).tolist()
    return found


class Stream:
    """The pictures of a whole run, cut into optimizer steps.

    `batch` pictures a step (all processes and accumulation together); the last step of an epoch takes what is left,
    so that every picture is seen once an epoch, or as often as `repeats` (N,) says. `groups` (N,) are the buckets of
    the pictures, see `batches`.

    With class pictures (DreamBooth's prior preservation), numbered from `count` on and covered by `groups` too, each
    step takes as many of them as of the others, and after them; they come in shuffled rounds of their own.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        seed: int,
        *,
        groups: np.ndarray | None = None,
        repeats: np.ndarray | None = None,
        class_pictures: int = 0,
    ):
        self.batch, self.seed, self.class_pictures = batch, seed, class_pictures
        self.pictures_of_entries = np.arange(count, dtype=np.int32)
        if repeats is not None:
            self.pictures_of_entries = np.repeat(self.pictures_of_entries, repeats[:count])
        self.count = len(self.pictures_of_entries)  # pictures an epoch sees, repeats counted, class pictures not
        self.first_of_class = count
        self.groups = np.zeros(count + class_pictures, dtype=np.int32) if groups is None else groups
        self._epoch: Callable[[int], np.ndarray] = functools.lru_cache(maxsize=2)(self._arranged)
        self._round: Callable[[int], np.ndarray] = functools.lru_cache(maxsize=2)(self._arranged_class)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.batch)

    @property
    def fair(self) -> bool:
        """Whether leftovers of buckets would count more here, did `batches` not draw the short step from all."""
        ours = self.groups[: self.first_of_class]
        return self.count % self.batch > 0 and len(ours) > 0 and bool((ours != ours[0]).any())

    def epoch(self, step: int) -> int:
        """The epoch that optimizer step `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def positions(self, step: int) -> range:
        """The positions of an optimizer step."""
        first, last = self._entries(step)
        each = 2 if self.class_pictures else 1
        return range(first * each, last * each)

    def pictures(self, positions: range) -> list[int]:
        """The picture at each of these positions, which lie in one step."""
        if not positions:
            return []
        if not self.class_pictures:
            epoch, first = divmod(positions[0], self.count)
            alone: list[int] = self._epoch(epoch)[first : first + len(positions)].tolist()
            return alone
        epoch, inside = divmod(positions[0] // 2, self.count)
        first, last = self._entries(epoch * self.steps_per_epoch + inside // self.batch)
        ours: list[int] = self._epoch(epoch)[first - epoch * self.count : last - epoch * self.count].tolist()
        both = ours + self._of_class(first, last)
        return both[positions[0] - 2 * first : positions[-1] + 1 - 2 * first]

    def _entries(self, step: int) -> tuple[int, int]:
        """First and last + 1 of the entries, counted over the whole run, that an optimizer step takes."""
        epoch, inside = divmod(step, self.steps_per_epoch)
        first = epoch * self.count + inside * self.batch
        return first, min(first + self.batch, (epoch + 1) * self.count)

    def _arranged(self, epoch: int) -> np.ndarray:
        """The pictures of an epoch in their order."""
        entries = self.pictures_of_entries
        arranged: np.ndarray = entries[batches(self.groups[entries], self.batch, self.seed, epoch)]
        return arranged

    def _of_class(self, first: int, last: int) -> list[int]:
        """The class pictures that go with these entries, those of one bucket side by side."""
        turns = (divmod(entry, self.class_pictures) for entry in range(first, last))
        chosen = [self.first_of_class + int(self._round(number)[turn]) for number, turn in turns]
        return sorted(chosen, key=self.groups.__getitem__)

    def _arranged_class(self, number: int) -> np.ndarray:
        """The class pictures of a round in their order."""
        return _stream(self.seed, _CLASS + number).permutation(self.class_pictures)


def loss_weights(
    count: int, class_pictures: int, weights: np.ndarray | None = None, prior_loss_weight: float = 1.0
) -> np.ndarray | None:
    """What the loss of each picture counts, (N,) fp32, class pictures last; None when all count 1.

    A step's loss is a mean over its positions. With class pictures they are half of them, and each half is to be a
    mean of its own: hence 2 and 2 * prior_loss_weight, the DreamBooth script's loss + prior_loss_weight * prior_loss.
    """
    if weights is None and not class_pictures:
        return None
    found = np.ones(count + class_pictures, np.float32) if weights is None else weights.astype(np.float32)
    if class_pictures:
        found = found * np.float32(2)
        found[count:] *= np.float32(prior_loss_weight)
    return found


def share(positions: range, rank: int, processes: int) -> range:
    """The part of a step's positions that one process takes: consecutive, as even as can be, perhaps none."""
    size = -(-len(positions) // processes)
    return positions[rank * size : (rank + 1) * size]
