"""A search on rented GPUs: the same configuration, a search space, one call, and a TuningJob that finds the best LoRA.

    space = {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": True}, "rank": [4, 8, 16]}  # that of a local sweep
    tuning = tune_sagemaker(config, space, ceiling=20)
    tuning.wait(); tuning.best().lora

In: a TrainConfig with held-out pictures, a space, and what the jobs run on. Out: a TuningJob; before anything is
uploaded it is said what the search costs at most, and refused where that is more than `ceiling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config.messages import nearest
from ...config.train_config import TrainConfig
from ...sweeps.space import Space
from ...system.errors import ConfigError
from .. import costs, staging, tuning_step
from ..job import unique_name
from ..messages import explained
from ..session import Session
from ..tuning_step import Job
from . import request as searching
from .request import Plan
from .tuning_job import TuningJob

LONGEST = 32  # characters of a tuning job's name, by the service
HOURS = 2  # of each training, where nothing else is asked for
SAME, OTHER = "IdenticalDataAndAlgorithm", "TransferLearning"


def tune_sagemaker(
    config: TrainConfig,
    space: Space | Mapping[str, Any],
    *,
    strategy: str = "Bayesian",
    max_jobs: int | None = None,
    max_parallel_jobs: int = 2,
    ceiling: float | None = None,
    early_stopping: bool = False,
    warm_start: str | Sequence[str] = (),
    search_seed: int | None = None,
    max_run: int = HOURS * tuning_step.HOUR,
    bucket: str | None = None,
    region: str | None = None,
    **job: Any,
) -> TuningJob:
    """Search `space` for the least held-out loss in SageMaker jobs of `config`; returns the TuningJob at once.

    strategy: Bayesian, Hyperband, Random, or Grid (lists of values only; max_jobs is then how many combinations there
    are, elsewhere 10). ceiling: dollars that max_jobs × max_run × price may not pass. early_stopping: the service ends
    trainings that get nowhere. Each training delivers the LoRA of its lowest held-out loss and is judged by that, as in
    a local sweep. warm_start: names of earlier tuning jobs to learn from, five at most.
    job: instance_type, spot, max_wait, role_arn and the others of `Job`. Results come to `config.output_dir`, a folder
    for each training. Raises ConfigError, DataError or AwsError before anything is paid.
    """
    parents = (warm_start,) if isinstance(warm_start, str) else tuple(warm_start)
    plan = Plan(strategy, max_jobs, max_parallel_jobs, early_stopping, search_seed, parents)
    space = Space.of(config, space)
    asked = _job(job | {"max_run": max_run})
    check_ceiling(ceiling)
    searching.refuse_config(config, plan, space)
    config = config.replace(load_best_model_at_end=True)
    count = searching.trainings(plan, space)
    planned = staging.plan(config, tuning_step.UNKNOWN_BUCKET)
    tuning_step.refuse(config, asked, planned)
    name = _name(asked.job_name)
    known = replace(asked, role_arn=asked.role_arn or tuning_step.ANY_ROLE, image_uri=tuning_step.ANY_IMAGE)
    places = {"output": "s3://some-bucket", "checkpoints": "s3://some-bucket"}
    _request(config, known, planned, space, plan, name, places)  # what is wrong with it is said before AWS is asked
    session = Session(region)
    price = costs.ceiling_of_search(asked, count, session.region, ceiling)
    bucket = session.bucket(bucket)
    ready = replace(asked, role_arn=session.role(asked.role_arn), image_uri=session.image(asked.image_uri))
    session.check_bucket(bucket)
    session.check_image(str(ready.image_uri))
    session.check_role(str(ready.role_arn))
    staged, notes = staging.look(session, config, planned.moved(tuning_step.UNKNOWN_BUCKET, bucket))
    prefix = f"s3://{bucket}/runs/{name}"
    places = {"output": f"{prefix}/output", "checkpoints": f"{prefix}/checkpoints"}
    request = _request(config, ready, staged, space, plan, name, places)
    if plan.warm_start:
        kind, note = warm_start_kind(session, plan.warm_start, request)
        request["WarmStartConfig"]["WarmStartType"] = kind
        notes.append(note)
    notes += costs.too_little(searching.longest(config, space), ready, staged, goes_on=None)
    for note in (*notes, price):
        print(note)
    if sent := staging.upload(session, staged, ready.kms_key):
        print(f"Uploaded {sent} files.")
    with explained(f"Tuning job {name} was not started"):
        session.client("sagemaker").create_hyper_parameter_tuning_job(**request)
    print(f"Tuning job {name} is starting, {count} trainings; TuningJob.open({name!r}) finds it again.")
    return TuningJob(name, Path(config.output_dir), session)


def _job(options: dict[str, Any]) -> Job:
    for name in options:
        if name not in Job.__dataclass_fields__:
            close = nearest(name, Job.__dataclass_fields__)
            raise TypeError(f"tune_sagemaker() takes no {name}" + (f": did you mean {close}?" if close else ""))
    if options.get("keep_alive") is not None:
        raise ConfigError("keep_alive is not for a search, whose ceiling knows nothing of waiting instances: drop it")
    if options.get("fallbacks"):
        raise ConfigError("fallbacks are not for a search, whose trainings share one instance_type: drop them")
    if options.get("mlflow"):
        raise ConfigError("mlflow is not for a search, whose trainings the service names: drop it")
    return Job(**options)


def check_ceiling(ceiling: Any) -> None:
    """Raise ConfigError for what is no number of dollars."""
    if ceiling is None:
        return
    if isinstance(ceiling, bool) or not isinstance(ceiling, (int, float)) or not 0 < ceiling < math.inf:
        raise ConfigError(f"ceiling must be dollars, a number above 0, not {ceiling!r}")


def _name(base: str) -> str:
    name = unique_name(base)
    if len(name) > LONGEST:
        raise ConfigError(
            f"job_name takes {len(base) - len(name) + LONGEST} characters at most in a search, whose trainings add to "
            f"its name: shorten {base}"
        )
    return name


def _request(
    config: TrainConfig,
    job: Job,
    staged: staging.Staged,
    space: Space,
    plan: Plan,
    name: str,
    places: Mapping[str, str],
) -> dict[str, Any]:
    """The arguments of CreateHyperParameterTuningJob; which kind of warm start it is, is not known yet."""
    training = tuning_step.request(config, job, staged, **places)
    asked = {"HyperParameterTuningJobName": name, **searching.request(training, config, space, plan)}
    if plan.warm_start:
        parents = [{"HyperParameterTuningJobName": parent} for parent in plan.warm_start]
        asked["WarmStartConfig"] = {"ParentHyperParameterTuningJobs": parents, "WarmStartType": OTHER}
    searching.refuse(asked)
    return asked


def warm_start_kind(session: Session, parents: Sequence[str], request: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of warm start from these earlier tuning jobs, and a sentence about it. Raises ConfigError, AwsError.

    The same image and data are another kind of warm start than others; how many settings there are, fixed and searched
    together, must be the same for both.
    """
    same = True
    for parent in parents:
        with explained(f"Tuning job {parent} was not looked at"):
            said = session.client("sagemaker").describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=parent)
        if said["HyperParameterTuningJobStatus"] in ("InProgress", "Stopping"):
            raise ConfigError(f"warm_start {parent} still goes on: wait for it, or stop it first")
        ours, theirs = _settings(request), _settings(said)
        if len(ours) != len(theirs):
            raise ConfigError(
                f"warm_start {parent} had {len(theirs)} settings, fixed and searched, and this has {len(ours)}: "
                f"the service asks for as many, and {', '.join(sorted(ours ^ theirs))} is on one side only"
            )
        same = same and _data(request) == _data(said)
    what = "the same image and data" if same else "another image or other data"
    note = f"Starts from what {' and '.join(parents)} found, with {what}."
    return (SAME if same else OTHER), note


def _settings(said: Mapping[str, Any]) -> set[str]:
    """The names of the settings of a tuning job, fixed and searched."""
    ranges = said["HyperParameterTuningJobConfig"]["ParameterRanges"]
    searched = {field["Name"] for kind in ranges.values() for field in kind if "Name" in field}
    fixed = said["TrainingJobDefinition"].get("StaticHyperParameters", {})
    return searched | {name for name in fixed if not name.startswith("_tuning")}


def _data(said: Mapping[str, Any]) -> Any:
    """What a tuning job trains on, and with which image."""
    definition = said["TrainingJobDefinition"]
    places = {
        channel["ChannelName"]: channel["DataSource"]["S3DataSource"]["S3Uri"]
        for channel in definition.get("InputDataConfig", [])
    }
    told = definition.get("Environment", {}).get("SDXL_NB_CONTENT")
    return definition["AlgorithmSpecification"].get("TrainingImage"), places, told
