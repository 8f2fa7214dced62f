"""What is tried next: all of a grid, random points, or what Optuna proposes from what came of the ones before.

In: a Space and the number of a trial. Out: its values, the same for the same seed and history, however often the sweep
was killed in between. Only Optuna prunes.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..system.errors import ConfigError, SdxlNbError
from .ledger import Row
from .space import DIGITS, Range, Space

if TYPE_CHECKING:
    import optuna

NAMES = ("grid", "random", "optuna")
STARTUP = 5  # trials that Optuna draws at random, and that are never pruned


class Sampler(Protocol):
    """How a sweep goes on."""

    many: int | None  # trials there are; None for any number

    def values(self, number: int) -> dict[str, Any]:
        """The settings of a trial."""

    def prunes(self, number: int, step: int, loss: float) -> bool:
        """Whether a trial with this held-out loss at this step is not worth going on with."""

    def tell(self, row: Row) -> None:
        """A trial is over."""


class Listed:
    """Trials that are known in advance: a grid, or random points."""

    def __init__(self, space: Space, name: str, seed: int, trials: int | None):
        self._space, self._seed = space, seed
        self._grid = space.grid() if name == "grid" else None
        self.many = min(len(self._grid), trials or len(self._grid)) if self._grid is not None else trials

    def values(self, number: int) -> dict[str, Any]:
        return self._grid[number] if self._grid is not None else self._space.random(self._seed, number)

    def prunes(self, number: int, step: int, loss: float) -> bool:
        return False

    def tell(self, row: Row) -> None:
        """Nothing is learnt from it."""


class Optuna:
    """Optuna's TPE with a median pruner; the study is kept in `optuna.journal`, as Optuna's own tools read it.

    The sampler of every trial has a seed of its own, so that a sweep which was killed proposes the same.
    """

    def __init__(self, space: Space, folder: Path, seed: int, trials: int | None, prune: bool):
        optuna = _imported()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._space, self._seed, self.many, self._optuna = space, seed, trials, optuna
        folder.mkdir(parents=True, exist_ok=True)
        pruner = optuna.pruners.MedianPruner(STARTUP) if prune else optuna.pruners.NopPruner()
        storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
        self._study = optuna.create_study(
            storage=storage, study_name="sweep", load_if_exists=True, direction="minimize", pruner=pruner
        )

    def _trial(self, number: int) -> "optuna.trial.Trial":
        """The trial of this number, asked for now, or before the sweep was killed."""
        known = self._study.get_trials(deepcopy=False)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._seed + number, n_startup_trials=STARTUP)
        if number < len(known):
            return self._optuna.trial.Trial(self._study, known[number]._trial_id)
        return self._study.ask()

    def values(self, number: int) -> dict[str, Any]:
        trial = self._trial(number)
        return {name: _suggested(trial, name, one) for name, one in self._space.parameters.items()}

    def prunes(self, number: int, step: int, loss: float) -> bool:
        trial = self._trial(number)
        if step not in self._study.get_trials(deepcopy=False)[number].intermediate_values:
            trial.report(loss, step)
        return trial.should_prune()

    def tell(self, row: Row) -> None:
        states = self._optuna.trial.TrialState
        state = {"completed": states.COMPLETE, "pruned": states.PRUNED}.get(row.state, states.FAIL)
        value = row.loss if state == states.COMPLETE else None
        if not self._study.get_trials(deepcopy=False)[row.number].state.is_finished():
            self._study.tell(row.number, value, state)


def _suggested(trial: "optuna.trial.Trial", name: str, one: Any) -> Any:
    """A value of one setting; numbers with the digits of a random search."""
    if not isinstance(one, Range):
        texts = [json.dumps(value) for value in one.values]  # Optuna takes no lists
        return one.values[texts.index(trial.suggest_categorical(name, texts))]
    if one.whole:
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    found = float(f"{trial.suggest_float(name, one.low, one.high, log=one.log):.{DIGITS}g}")
    return min(max(found, one.low), one.high)


def check_sampler(name: str) -> None:
    """Raise ConfigError for a name that is none, SdxlNbError where Optuna is not installed."""
    if name not in NAMES:
        raise ConfigError(f"sampler must be {', '.join(NAMES[:-1])} or {NAMES[-1]}, not {name!r}")
    if name == "optuna":
        _imported()


def sampler(name: str, space: Space, folder: Path, seed: int, trials: int | None, prune: bool) -> Sampler:
    """The sampler of this name."""
    if name == "optuna":
        return Optuna(space, folder, seed, trials, prune)
    return Listed(space, name, seed, trials)


def _imported() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SdxlNbError("sampler='optuna' needs Optuna: pip install 'sdxl_nb[sweep]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
