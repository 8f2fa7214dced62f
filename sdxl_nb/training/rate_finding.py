"""Which learning rate: steps at a rate that rises from far too low to far too high, and the loss while it does.

In: a TrainConfig. Out: a `RateSearch`: the curve, a proposal and its reason (the range test of arXiv 1506.01186). The
steps are a run's own. What is plotted is no step's loss, which says most of the timesteps that it happened to draw, but
that of the same few pictures with the same noise after each step; no step learns from those. Nothing of it stays on
disk but what was encoded, which the run will use.
"""

import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..config.train_config import TrainConfig
from ..runs.events import EventLog
from ..runs.folder import RunFolder
from ..runs.plots import HELDOUT, INK, RAW, SMOOTHED, smooth
from ..system.errors import ConfigError
from ..system.progress import progress_bar
from .outcome import explained
from .processes import Processes
from .setup import prepare
from .step import Step

if TYPE_CHECKING:
    from ..data.sampling import Stream
    from ..system.figures import Sheet

PROBE = 16  # pictures with noise that the loss is of
SPAN = 5  # steps that the loss is smoothed over
WORSE = 2.0  # times the loss of the base: that is far enough
BELOW = 3.0  # the rate proposed is this much less than the one where the loss is lowest
FALLS = 0.01  # the share of the base's loss that has to be gained
ONE_RATE = ("unet_lr", "text_encoder_lr", "lr_pattern")
FINDERS = ("prodigy", "prodigy_schedulefree")  # optimizers that find their own rate
OWN_FILES = "lr_find.json", "lr_find.png"


@dataclass(frozen=True)
class RateSearch:
    """Rates, the loss after each, the base's loss before; `proposal` is None where the loss never fell."""

    rates: list[float]
    losses: list[float]
    base_loss: float
    proposal: float | None
    reason: str

    def __str__(self) -> str:
        return f"--learning_rate {self.proposal:g}: {self.reason}" if self.proposal else self.reason

    def _repr_png_(self) -> bytes:
        return self.figure()._repr_png_()

    def figure(self) -> "Sheet":
        """The loss by rate; where it is lowest, and what is proposed."""
        from ..system.figures import Sheet

        figure = Sheet(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color=RAW, linewidth=0.8, label="after each step")
        axes.plot(self.rates, smooth(np.array(self.losses), SPAN), color=SMOOTHED, linewidth=2, label="smoothed")
        axes.axhline(self.base_loss, color=INK, linewidth=0.8, linestyle=":", label="the base")
        if self.proposal:
            axes.axvline(self.proposal, color=HELDOUT, linewidth=1.5, label=f"proposed: {self.proposal:g}")
        low = min(self.losses)
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss of the same pictures and noise")
        axes.set_ylim(low - 0.1 * (self.base_loss - low), low + 2 * max(self.base_loss - low, 1e-6))
        axes.legend(frameon=False).set_in_layout(False)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the numbers and the figure into a folder."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        (place / OWN_FILES[0]).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        self.figure().savefig(place / OWN_FILES[1])


def lr_find(
    config: TrainConfig,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RateSearch:
    """Try rates from `lowest` to `highest` in so many steps, the next a constant factor more; propose one.

    It ends early when the loss is beyond hope. With `folder` curve and figure are kept there, else nothing. ConfigError
    where there is no one rate to find.
    """
    _check(config, lowest, highest, steps)
    with tempfile.TemporaryDirectory(prefix="lr-find-") as scratch:
        changes = {"output_dir": scratch, "resume_from_checkpoint": None, "report_to": "none", "push_to_hub": False}
        config = config.replace(**changes, validation_prompt=None, sample_prompts=None)
        run = RunFolder(config)
        try:
            with explained(run.path):
                rates, losses = _tried(config, run, _rising(lowest, highest, steps), progress)
        finally:
            run.release()
    found = RateSearch(rates, losses[1:], losses[0], *proposed(rates, losses[1:], losses[0]))
    if folder is not None:
        found.save(folder)
    return found


def _check(config: TrainConfig, lowest: float, highest: float, steps: int) -> None:
    if not (0 < lowest < highest < math.inf and steps >= 10):
        raise ConfigError("lr_find needs 0 < lowest < highest, and 10 steps or more")
    if config.optimizer in FINDERS:
        raise ConfigError(f"optimizer {config.optimizer} finds its rate itself: its learning_rate is 1")
    several = next((name for name in ONE_RATE if getattr(config, name) is not None), None)
    if several or config.scale_lr:
        raise ConfigError(f"lr_find looks for one rate, that of learning_rate: drop {several or 'scale_lr'}")
    if Processes.join().count > 1:
        raise ConfigError("lr_find runs in one process: start it without torchrun or accelerate launch")


def _rising(lowest: float, highest: float, steps: int) -> list[float]:
    return [float(f"{rate:.4g}") for rate in np.geomspace(lowest, highest, steps).tolist()]


def _tried(config: TrainConfig, run: RunFolder, rates: list[float], progress: bool) -> tuple[list[float], list[float]]:
    """The rates that were tried, and the losses: the base's, then one after each step."""
    studio, processes = prepare(config, run, progress), Processes.join()
    stream = studio.stream(config.train_batch_size * config.gradient_accumulation_steps)
    log = EventLog(run.path, quiet=not progress)
    try:
        updates = Step(config, studio, processes, stream, len(rates), log.warn, lambda losses: None)
        updates.rate = rates.__getitem__
        studio.encode(log)
        losses = _losses(updates, stream, rates, progress)
    finally:
        log.close()
    return rates[: len(losses) - 1], losses


def _losses(updates: Step, stream: "Stream", rates: list[float], progress: bool) -> list[float]:
    """The loss of the probe before the first step and after each; fewer where it is beyond hope."""
    later = range(len(rates), len(rates) + -(-PROBE // len(stream.positions(0))))  # steps that are never taken
    losses = [updates.probed(later)]
    with progress_bar(total=len(rates), unit="step", disable=not progress, leave=False) as bar:
        for step in range(len(rates)):
            updates.take(step)
            loss = updates.probed(later)
            if not math.isfinite(loss):
                break
            losses.append(loss)
            bar.update()
            if loss > WORSE * losses[0]:
                break
    return losses


def proposed(rates: list[float], losses: list[float], base_loss: float) -> tuple[float | None, str]:
    """A rate and its reason, from the losses after each rate; None and the reason where there is nothing to gain."""
    if not losses:
        return None, "The loss is no number after the first step: look for the cause before the rate."
    smoothed = smooth(np.array(losses), SPAN)
    at = int(smoothed.argmin())
    gained = 1 - float(smoothed[at]) / base_loss
    if gained < FALLS:
        return None, f"The loss never fell below {base_loss:.4f}, the base's: there is no rate to propose."
    rate = float(f"{rates[at] / BELOW:.1g}")
    if at == len(losses) - 1:
        return rate, (
            f"the loss still falls at {rates[at]:g}, the last rate that was tried ({gained:.0%} below the base's): "
            "a third of it; try higher ones."
        )
    return rate, (
        f"the loss falls until the rate is {rates[at]:.2g} ({gained:.0%} below the base's) and rises beyond; a third "
        "of that leaves room for a whole run."
    )
