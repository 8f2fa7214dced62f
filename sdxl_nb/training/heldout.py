"""Held-out loss: the loss on pictures that training never sees, at noise and timesteps that never change.

In: a Step's models and the held-out pictures (data/split.py says which). Out: one number for the LoRA as it is, and
what is known of the best one so far. Choices are keyed by each picture's own bytes, so that the number is the same
for every seed, machine, number of processes and batch size, but for rounding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.sampling import Choices, share
from ..lora.acceleration import is_short
from ..system.memory import is_out_of_memory
from .step import Step

TIMESTEPS = 4  # of each picture: the middles of the schedule's quarters
MOST = 1000  # pictures whose own losses are reported: an event is a line


class Measured(float):
    """The mean over all held-out pictures; `pictures` has the mean of each, none where there are more than MOST."""

    pictures: tuple[float, ...] = ()


def choices(identity: str, timesteps: int) -> list[Choices]:
    """What never changes for a picture: its middle crop, not mirrored, and timesteps with noise of their own."""
    made = []
    for number in range(TIMESTEPS):
        key = np.array([int(identity[:16], 16), number], dtype=np.uint64)
        when = int((number + 0.5) / TIMESTEPS * timesteps)
        made.append(Choices(0.5, 0.5, False, False, when, np.random.Generator(np.random.Philox(key=key)), middle=True))
    return made


@torch.no_grad()
def measure(step: Step) -> Measured:
    """The mean squared error of a Step's models over all held-out pictures, divided between the processes.

    Plain: no loss weights, noise offset, dropout or empty captions, so that runs with other objectives compare.
    """
    studio, processes = step.studio, step.processes
    # a U-Net that takes the short way has no dropout, and is measured with the arithmetic that it trains with
    models = [model for model in studio.trained.values() if model.training and not is_short(model)]
    for model in models:
        model.eval()
    try:
        mine = share(range(len(studio.heldout) * TIMESTEPS), processes.index, processes.count)
        with processes.together():
            while (losses := _attempt(step, mine)) is None:
                step.halve()
    finally:
        for model in models:
            model.train()
    everyone = [loss for part in processes.gather(losses) for loss in part]
    loss = Measured(math.fsum(everyone) / len(everyone))
    if len(everyone) <= MOST * TIMESTEPS:
        own = (everyone[at : at + TIMESTEPS] for at in range(0, len(everyone), TIMESTEPS))
        loss.pictures = tuple(round(math.fsum(each) / TIMESTEPS, 7) for each in own)
    return loss


def _attempt(step: Step, mine: range) -> list[float] | None:
    """The loss at each of these places; None when memory ran out."""
    try:
        return [loss for part in _portions(step, mine) for loss in _losses(step, part)]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None  # as in Step: the traceback holds what does not fit


def _portions(step: Step, mine: range) -> list[range]:
    """What to compute at once: as much as fits into memory, all of one shape."""
    parts: list[range] = []
    before = None
    for place in mine:
        shape = step.studio.shape(step.studio.heldout[place // TIMESTEPS])
        if shape == before and len(parts[-1]) < step.micro_batch:
            parts[-1] = range(parts[-1].start, place + 1)
        else:
            parts.append(range(place, place + 1))
        before = shape
    return parts


def _losses(step: Step, places: Sequence[int]) -> list[float]:
    studio, timesteps = step.studio, len(step.alpha_bar)
    pictures = [studio.heldout[place // TIMESTEPS] for place in places]
    known = studio.heldout_identities
    chosen = [choices(known[place // TIMESTEPS], timesteps)[place % TIMESTEPS] for place in places]
    batch = studio.batch(pictures, chosen)
    losses: list[float] = step.errors(batch, batch.noise).tolist()
    return losses


@dataclass
class Record:
    """The held-out losses of a run so far: the last, the best, and how many came since without a better one."""

    step: int | None = None
    best_step: int | None = None
    best_loss: float | None = None
    waited: int = 0

    def take(self, step: int, loss: float, threshold: float = 0.0) -> bool:
        """Note a loss; True when it is the best. What the base has before the first step does not compete."""
        self.step = step
        if step == 0:
            return False
        before = self.best_loss
        best = math.isfinite(loss) if before is None else loss < before
        counts = best and (before is None or loss < before - threshold)
        self.waited = 0 if counts else self.waited + 1
        if best:
            self.best_step, self.best_loss = step, loss
        return best
