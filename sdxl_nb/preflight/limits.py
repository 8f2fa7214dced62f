"""Whether a rented machine is given enough for a run: time, memory and disk, said before anything is sent or paid.

In: a TrainConfig, and what it is to run on under which limits (Rented). Out: remarks, one sentence each; ConfigError
where nothing could come of it. All of it is estimated (forecast.py); of what is not known nothing is said.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.train_config import TrainConfig
from ..system.errors import ConfigError, SdxlNbError
from . import prices

if TYPE_CHECKING:
    from .forecast import Row

GB = 1e9
LONGEST = 48 * 3600  # seconds that a job may take where nothing else is said
MOST = 28 * 24 * 3600  # by the service
SPARE = 900  # seconds of waiting for a spot instance that are few
GOES_ON = "run.resume(max_run=...)"  # what goes on with a job that was stopped by its limit


@dataclass(frozen=True)
class Rented:
    """Instances of one of some types, and what is allowed them. `pictures` is 0 where their number is not known.

    `volume_gb` is None for types that have disks of their own, `brought` the bytes of pictures and models that come
    along, `goes_on` what goes on with a run that was stopped; nothing does for the trainings of a search.
    """

    types: tuple[str, ...]
    count: int
    max_run: int
    max_wait: int | None = None
    volume_gb: int | None = None
    brought: int = 0
    pictures: int | None = None
    goes_on: str | None = GOES_ON


def allowance(hours: float | None, most: int = LONGEST) -> int:
    """Seconds to allow a run of so many hours: twice that and half an hour, in whole ten minutes, `most` at most."""
    return most if hours is None else min(most, math.ceil((2 * hours * 3600 + 1800) / 600) * 600)


def remarks(config: TrainConfig, machine: Rented) -> list[str]:
    """What is too little, by estimate, a sentence each. Raises ConfigError where a job would end with nothing saved."""
    from ..lora.starting.going_on import taken_over  # with torch, which whoever only asks for a price is spared
    from ..models import architectures
    from ..training import disk
    from ..training.epochs import steps_per_epoch
    from .forecast import Forecast, rented

    known = [prices.instance(name) for name in machine.types if name in prices.names()]
    try:
        config = taken_over(config)
        built = architectures.of(config)
        need, _ = disk.needed(config, built, machine.pictures)
        forecast = Forecast(need.costliest or config, built, need.entries or None)
        rows = [forecast.row(rented(one, config, count=machine.count)) for one in known]
    except SdxlNbError:  # whoever needs what is missing says so
        return []
    timed = [row for row in rows if row.hours is not None]
    an_epoch = steps_per_epoch(config, need.entries) if need.entries else None
    need = disk.with_checkpoints(need, config, forecast.count.trained, forecast.steps(1), an_epoch)
    taken = need.run + need.cache + max(machine.brought, forecast.size())
    if timed and len(timed) == len(machine.types):
        _refuse(min(timed, key=lambda row: row.start), machine)
    said = [_memory(row) for row in rows if not row.fits]
    said += [_time(max(timed, key=lambda row: row.hours or 0), machine)] if timed else []
    return [sentence for sentence in (*said, _volume(taken, machine)) if sentence]


def _refuse(row: "Row", machine: Rented) -> None:
    if machine.max_run < row.start:
        raise ConfigError(
            f"max_run {machine.max_run} is less than the {words(row.start)} that start-up and encoding are estimated "
            f"to take on {row.machine.name} before the first step, so that nothing would be saved: set max_run to "
            f"{allowance(row.hours, MOST)}"
        )


def _memory(row: "Row") -> str:
    has = (row.machine.memory or 0) / GB
    much = f"it needs {row.peak / GB:.1f} GB, one picture at a time, and each GPU has {has:.1f}"
    return (
        f"By estimate this does not run well on {row.machine.name}: {row.note or much}; estimate(config, "
        f'instances=["{row.machine.name}"]) says what takes less.'
    )


def _time(row: "Row", machine: Rented) -> str:
    """The sentence about too little time on the slowest type; empty where it is enough."""
    need = (row.hours or 0) * 3600
    if machine.max_run < need:
        steps = row.steps or 0
        done = max(0, int(steps * (machine.max_run - row.start) / (need - row.start)))
        return too_short(need, machine, steps, done, f" on {row.machine.name}")
    if machine.max_wait is not None and machine.max_wait < need + SPARE:
        return (
            f"max_wait {machine.max_wait} leaves {words(max(0, machine.max_wait - need))} to wait for a spot instance, "
            f"beside the {words(need)} that are estimated on {row.machine.name}: raise it, or leave it out."
        )
    return ""


def too_short(need: float, machine: Rented, steps: int, done: int, where: str = "") -> str:
    """The sentence about a max_run of less than `need` seconds, after which `done` of `steps` steps are done."""
    advice = allowance(need / 3600, MOST)
    also = ", and max_wait as well" if machine.max_wait is not None and machine.max_wait < advice else ""
    begun = f"max_run {machine.max_run} is {words(machine.max_run)}, and {words(need)} are estimated{where}"
    if machine.goes_on is None:
        after = "each training is stopped, judged by what it has learnt until then, and never gone on with"
    else:
        after = f"the job is stopped, saves its LoRA and a checkpoint, and {machine.goes_on} goes on from there"
    return f"{begun}: about step {done:,} of {steps:,} {after}; to let it end, set max_run to {advice}{also}."


def _volume(taken: int, machine: Rented) -> str:
    if machine.volume_gb is None or taken <= machine.volume_gb * GB:
        return ""
    return (
        f"volume_size_gb {machine.volume_gb} is less than the {taken / GB:.1f} GB of pictures, models, caches and "
        f"checkpoints that are estimated: set it to {math.ceil(1.2 * taken / GB)}, or a checkpoints_total_limit."
    )


def words(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"
