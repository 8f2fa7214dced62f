"""What a SageMaker job costs: at most before it starts, so far while it runs, what spot saved; and whether its limits
are enough for it.

In: a Job, or what DescribeTrainingJob says. Out: dollars, or None where the price is not known, and sentences. Prices
are list prices of instances; storage, requests and data transfer come on top and are small beside them.
"""

from __future__ import annotations

import datetime
import functools
from typing import Any

from ..config.train_config import TrainConfig
from ..preflight import prices
from ..preflight.limits import GOES_ON, Rented, remarks, too_short
from ..system.errors import ConfigError
from . import shapes
from .staging import Staged
from .tuning_step import Job


@functools.cache
def hourly(instance_type: str, region: str) -> prices.Price | None:
    """The Price of one instance without a discount, asked once; None where it is not known."""
    return prices.find(instance_type, region)


def _dearest(job: Job, region: str) -> tuple[str, prices.Price | None]:
    """The type whose hour costs most of those that a job may get, in words; no Price where one is not known."""
    known: list[tuple[str, prices.Price]] = []
    for kind in job.types:
        price = hourly(kind, region)
        if price is None:
            return kind, None
        known.append((kind, price))
    kind, price = max(known, key=lambda one: one[1].hourly)
    return kind + (", the dearest of those that it may get," if job.fallbacks else ""), price


def ceiling(job: Job, region: str) -> str:
    """The sentence about what a Job costs at most."""
    hours = job.max_run / 3600
    kind, price = _dearest(job, region)
    terms = f"{hours:g} h (max_run) of {job.instance_count} × {kind}"
    if price is None:
        return f"It costs at most {terms}, and {prices.unknown(kind, region)}."
    dollars = prices.cents(price.hourly * hours * job.instance_count)
    most = f"It costs at most ${dollars:,.2f}: {terms} at {prices.an_hour(price.hourly)} an hour"
    most += f" ({price.source})"
    if job.keep_alive is not None:
        kept = prices.cents(price.hourly * job.keep_alive / 3600 * job.instance_count)
        most += f", and up to ${kept:,.2f} more for instances that are kept {job.keep_alive} s (keep_alive)"
    return f"{most}; spot instances are usually far cheaper." if job.spot else f"{most}."


def so_far(said: dict[str, Any], region: str) -> dict[str, float | None]:
    """From a job's description: seconds of training and billed, dollars, and the share that spot saved.

    While a spot job runs its bill is not known yet: then the dollars are the most that it can be.
    """
    training = said.get("TrainingTimeInSeconds") or _seconds_since(said)
    billed = said.get("BillableTimeInSeconds")
    kind, count = instances_of(said["ResourceConfig"])
    price = hourly(kind, region)
    seconds = training if billed is None else billed
    dollars = None if price is None else prices.cents(price.hourly * seconds / 3600 * count)
    saving = (
        1 - billed / training if billed is not None and training and said.get("EnableManagedSpotTraining") else None
    )
    return {
        "training_seconds": training,
        "billed_seconds": billed,
        "dollars": dollars,
        "saving": saving if saving is None else round(saving, 3),
    }


def instances_of(resources: dict[str, Any]) -> tuple[str, int]:
    """The type and number of instances that a job is billed for; of several that it may get the first, until it has."""
    first = next(iter(shapes.preferences(resources)), {})
    kind = resources.get("SelectedInstanceType") or resources.get("InstanceType") or first["InstanceType"]
    counts = (resources.get(name) for name in ("SelectedInstanceCount", "InstanceCount"))
    return kind, next((count for count in counts if count), None) or first["InstanceCount"]


def _seconds_since(said: dict[str, Any]) -> int:
    began = said.get("TrainingStartTime")
    ended = said.get("TrainingEndTime") or datetime.datetime.now(datetime.timezone.utc)
    return max(0, round((ended - began).total_seconds())) if began else 0


def ceiling_of_search(job: Job, jobs: int, region: str, ceiling: float | None) -> str:
    """The sentence about what `jobs` trainings cost at most. Raises ConfigError where that is more than `ceiling`.

    The service holds it: it starts no more trainings than that, and ends each at max_run.
    """
    hours = job.max_run / 3600
    terms = f"{jobs} trainings of {hours:g} h (max_run) on {job.instance_count} × {job.instance_type}"
    price = hourly(job.instance_type, region)
    if price is None:
        if ceiling is not None:
            raise ConfigError(
                f"ceiling cannot be kept, for {prices.unknown(job.instance_type, region)}; or take another "
                "instance_type, or leave ceiling out and hold max_jobs and max_run low"
            )
        return f"The search costs at most {terms}, and {prices.unknown(job.instance_type, region)}."
    dollars = prices.cents(price.hourly * hours * job.instance_count * jobs)
    if ceiling is not None and dollars > ceiling:
        fitting = int(ceiling / (price.hourly * job.instance_count * jobs) * 3600)
        advice = f"raise it, lower max_jobs, or set max_run to {fitting}" if fitting >= 60 else "raise it"
        raise ConfigError(
            f"{terms} at {prices.an_hour(price.hourly)} an hour cost up to ${dollars:,.2f}, more than the ceiling of "
            f"${ceiling:,.2f}: {advice}"
        )
    kept = "" if ceiling is None else f", within the ceiling of ${ceiling:,.2f}"
    most = f"The search costs at most ${dollars:,.2f}{kept}: {terms} at {prices.an_hour(price.hourly)} an hour"
    most += f" ({price.source})"
    return f"{most}; spot instances are usually far cheaper." if job.spot else f"{most}."


def too_little(config: TrainConfig, job: Job, staged: Staged, goes_on: str | None = GOES_ON) -> list[str]:
    """What of the job's limits is less than it is estimated to need, a sentence each.

    goes_on: what goes on with a job that its limit stopped. Raises ConfigError where nothing would be saved.
    """
    own = all(map(shapes.has_own_disk, job.types))
    brought = sum(content.size for name, content in staged.contents.items() if name in staged.channels)
    return remarks(
        config,
        Rented(
            job.types,
            job.instance_count,
            job.max_run,
            job.max_wait,
            None if own else job.volume_size_gb,
            brought,
            _pictures(config, staged),
            goes_on,
        ),
    )


def _pictures(config: TrainConfig, staged: Staged) -> int | None:
    """How many pictures are trained on: None where they are here and can be counted, 0 where that is not known."""
    channel = "train" if config.train_data_dir else "dataset"
    url = staged.channels.get(channel)
    if url in staged.uploads or str(config.dataset_name).startswith("embedded:"):
        return None
    return staged.pictures.get(channel, 0)


def of_rest(job: Job, region: str, pace: float | None, steps: int, done: int) -> str:
    """The sentence about what going on costs at most, and whether its time is enough at `pace` seconds a step."""
    need = (pace or 0) * (steps - done)
    said = [ceiling(job, region)]
    if job.max_run < need:
        machine = Rented(job.types, job.instance_count, job.max_run, job.max_wait)
        reached = done + int(job.max_run / need * (steps - done))
        said.append(too_short(need, machine, steps, reached, " by its pace so far"))
    return " ".join(said)
