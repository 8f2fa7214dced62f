"""The runs of a search space, one after the other, until it is searched or the time is over.

    found = sweep(config, {"rank": [8, 16], "learning_rate": [1e-4, 3e-4]}, budget="2 h")
    found.best, found.config(), found.figure()

In: a TrainConfig whose output_dir is the sweep's folder, and a search space. Out: a Sweep. Each trial is a run in a
folder of its own and a process of its own; all use the same caches. Called again after a kill, the sweep goes on, from
the last checkpoint of the trial that was training, and ends with the same table.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config.checks import is_data_file
from ..runs.run import Run
from ..system.errors import ConfigError, SdxlNbError
from . import following
from .budget import seconds
from .following import Told, training_seconds
from .ledger import Ledger, Row, trial_folder
from .samplers import Sampler, check_sampler, sampler
from .space import Space, written
from .table import NAMES, Sweep

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

RECENT = 50  # training losses that are averaged

Train = Callable[["TrainConfig", Told], Run]


def sweep(
    config: "TrainConfig",
    space: Mapping[str, Any] | Space,
    *,
    budget: str | float | None = None,
    trials: int | None = None,
    sampler: Literal["grid", "random", "optuna"] | None = None,
    by: Literal["heldout_loss", "train_loss"] = "heldout_loss",
    prune: bool = True,
    seed: int = 0,
    train: Train | None = None,
    say: Callable[[str], object] = print,
) -> Sweep:
    """Train `config` with every combination of the space, or some of them, and say which has the lowest loss.

    `space` maps settings to lists of values or ranges, {"min": 1e-5, "max": 1e-3, "log": True}. A finite one is a grid
    unless `sampler` says random or optuna (`pip install 'sdxl_nb[sweep]'`), which end after `trials`. No trial begins,
    and the one that trains is stopped, when `budget` ("2 h", "90 min") of training is spent. With Optuna, trials whose
    held-out loss is above the median of the others at the same step are pruned. Raises ConfigError for whatever of the
    space the configuration does not take, before anything starts.
    """
    searched = Search(config, Space.of(config, space), sampler, by, prune, seed, trials, seconds(budget))
    return searched.go(train or following.train, say)


class Search:
    """One sweep: what it was asked for, and how far it is."""

    def __init__(
        self,
        config: "TrainConfig",
        space: Space,
        name: str | None,
        by: str,
        prune: bool,
        seed: int,
        trials: int | None,
        budget: float,
    ):
        self.config, self.space, self.by, self.budget = config, space, by, budget
        name = name or ("grid" if space.is_finite else "random")
        self._check(name, trials, seed)
        asked = {"config": config.fingerprint(), "space": space.as_json(), "sampler": name, "by": by, "seed": seed}
        self.ledger = Ledger(Path(config.output_dir), asked | ({"prune": prune} if name == "optuna" else {}))
        self.ledger.write()
        self.sampler: Sampler = sampler(name, space, self.ledger.folder, seed, trials, prune and by == "heldout_loss")
        begun = range(len(self.ledger.rows) + 1)  # of the last one there is no row yet
        self._spent = {number: training_seconds(self._run(number)) for number in begun}

    def _check(self, name: str, trials: int | None, seed: int) -> None:
        config = self.config
        check_sampler(name)
        if self.by not in NAMES:
            raise ConfigError(f"by must be {' or '.join(NAMES)}, not {self.by!r}")
        held = config.validation_split or config.validation_data_dir or is_data_file(config.train_data_dir)
        if self.by == "heldout_loss" and not held and "validation_split" not in self.space.parameters:
            raise ConfigError(
                "a sweep compares held-out losses, and no picture is held out: give validation_split=0.1, or "
                "by='train_loss'"
            )
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
            raise ConfigError(f"trials must be a whole number from 1 on, not {trials!r}")
        if name != "grid" and trials is None and math.isinf(self.budget):
            raise ConfigError(f"a {name} search never ends by itself: give trials=12, or a budget")
        if name == "grid":
            for values in self.space.grid():
                self._trial_config(0, values)
        elif name == "random":
            for number in range(trials or 0):
                self._trial_config(number, self.space.random(seed, number))

    def _run(self, number: int) -> Run:
        return Run(self.ledger.trial(number))

    def _trial_config(self, number: int, values: Mapping[str, Any]) -> "TrainConfig":
        """The configuration of a trial; ConfigError where the values do not go together."""
        folder = trial_folder(Path(self.config.output_dir), number)
        try:
            return self.config.replace(**values, output_dir=str(folder), overwrite_output_dir=False)
        except ConfigError as error:
            raise ConfigError(f"the search space cannot have {_said(values)} together: {error}") from error

    # The trials.

    def go(self, train: Train, say: Callable[[str], object]) -> Sweep:
        """Every trial that is left, one after the other."""
        for known in self.ledger.rows:
            self.sampler.tell(known)  # a kill may have come between
        while self._goes_on():
            number = len(self.ledger.rows)
            if (row := self._trial(number, train, say)) is None:
                break
            self.sampler.tell(row)
            self.ledger.add(row)
            loss = "no loss" if row.loss is None else f"{NAMES[self.by]} {row.loss:.4f}"
            say(f"Trial {number} {row.state}: {loss}{f', {row.error}' if row.error else ''}")
        return Sweep(self.config, self.space, self.ledger.folder, self.by, self.ledger.rows, self._notes())

    def _left(self) -> float:
        return self.budget - sum(self._spent.values())

    def _goes_on(self) -> bool:
        many = self.sampler.many
        return self._left() > 0 and (many is None or len(self.ledger.rows) < many)

    def _notes(self) -> list[str]:
        done, many = len(self.ledger.rows), self.sampler.many
        of = "" if many is None else f" of {many}"
        if done == many:
            return []
        if self._left() > 0:
            return [f"Trial {done}{of} was stopped: the same call goes on with it."]
        return [f"The budget of {self.budget:g} s is spent after {done}{of} trials: with more, the same call goes on."]

    def _trial(self, number: int, train: Train, say: Callable[[str], object]) -> Row | None:
        """Train a trial; None where the budget ended it."""
        values = self.sampler.values(number)
        of = "" if self.sampler.many is None else f" of {self.sampler.many}"
        try:
            config = self._trial_config(number, values)
        except ConfigError as error:  # what Optuna proposed
            return Row(number, values, "failed", error=str(error))
        say(f"Trial {number}{of}: {_said(values)}")
        watch = Watch(number, self.sampler, self._is_spent)
        try:
            run = train(config, watch)
        except SdxlNbError as error:  # at its start
            if not self.ledger.rows:
                raise  # the others would fail alike
            return Row(number, values, "failed", error=str(error))
        self._spent[number] = training_seconds(run)
        return self._row(number, values, run, watch.pruned)

    def _is_spent(self, number: int) -> bool:
        """Whether the budget is, with what a trial has trained by now."""
        if math.isinf(self.budget):
            return False
        self._spent[number] = training_seconds(self._run(number))
        return self._left() <= 0

    def _row(self, number: int, values: dict[str, Any], run: Run, pruned: int | None) -> Row | None:
        status = run.status
        if pruned is None and status not in ("completed", "failed"):
            return None  # stopped, by the budget or a person: the next call goes on with it
        loss, step = self._loss(run, pruned)
        if pruned is not None:
            return Row(number, values, "pruned", loss, step)
        return Row(number, values, status, loss, step, run.error if status == "failed" else None)

    def _loss(self, run: Run, upto: int | None) -> tuple[float | None, int | None]:
        """The lowest held-out loss and its step, up to one where the trial was pruned; or the last training losses."""
        if self.by == "train_loss":
            steps, losses = run.losses()
            last = [loss for loss in losses[-RECENT:] if loss is not None]
            return (round(math.fsum(last) / len(last), 9), steps[-1]) if last else (None, None)
        points = [(loss, step) for step, loss in zip(*run.heldout(), strict=True) if step and step <= (upto or step)]
        return min(points) if points else (None, None)


class Watch:
    """Told of a trial's events, from the first one on: True ends it. `pruned` is the step at which it was pruned."""

    def __init__(self, number: int, sampler: Sampler, is_spent: Callable[[int], bool]):
        self.number, self._sampler, self._is_spent = number, sampler, is_spent
        self.pruned: int | None = None
        self._last: int | None = None  # step of the trial

    def __call__(self, event: dict[str, Any]) -> bool:
        if event["event"] == "start":
            self._last = event.get("steps")
        if event["event"] == "heldout" and event.get("loss") is not None and self.pruned is None:
            self._judge(event["step"], event["loss"])
        return self.pruned is not None or self._is_spent(self.number)

    def _judge(self, step: int, loss: float) -> None:
        """The base does not count, and a trial that is over is not pruned."""
        if step and step != self._last and self._sampler.prunes(self.number, step, loss):
            self.pruned = step


def _said(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {written(value)}" for name, value in values.items())
