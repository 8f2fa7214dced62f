"""What SageMaker is asked to search: the arguments of CreateHyperParameterTuningJob, made of a job's own request.

In: the request of one training job (`tuning_step.request`), a Space and a Plan (strategy, how many trainings, how
many at once). Out: the request of a tuning job, whose trials get the job's settings and in their place the values that
the service chooses; its objective is the held-out loss, the least is the best. What the service would refuse is refused
here, from its own model and from what its guide says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config.messages import nearest, shown
from ...config.train_config import TrainConfig
from ...sweeps.space import Range, Space
from ...system.errors import ConfigError
from ...training.epochs import most_measurements
from .. import shapes
from ..identity.content import CHANNELS
from ..tuning_step import OWN, as_text

OBJECTIVE = "heldout_loss"  # one of tuning_step.METRICS
STRATEGIES = ("Bayesian", "Hyperband", "Random", "Grid")
MOST_RESOURCE = 20_000  # measurements that Hyperband counts to, by the service's model
LENGTHS = (
    *("max_train_steps", "num_train_epochs", "heldout_steps", "checkpointing_steps"),
    *("validation_epochs", "validation_steps", "validation_share"),
)
GROWING = ("max_train_steps", "num_train_epochs", "resolution", "train_batch_size", "gradient_accumulation_steps")
OF_JOB = ("RoleArn", "InputDataConfig", "VpcConfig", "OutputDataConfig", "ResourceConfig", "StoppingCondition",
          "EnableManagedSpotTraining", "CheckpointConfig", "RetryStrategy", "Environment")  # fmt: skip
FLAGS = {
    "HyperParameterTuningJobName": "job_name",
    "HyperParameterTuningJobConfig.Strategy": "strategy",
    "HyperParameterTuningJobConfig.ResourceLimits.MaxNumberOfTrainingJobs": "max_jobs",
    "HyperParameterTuningJobConfig.ResourceLimits.MaxParallelTrainingJobs": "max_parallel_jobs",
    "HyperParameterTuningJobConfig.RandomSeed": "search_seed",
    "WarmStartConfig.ParentHyperParameterTuningJobs": "warm_start",
    "TrainingJobDefinition.StaticHyperParameters": "the settings of each job",
    "TrainingJobDefinition.Environment": "the environment of each job",
    "Tags": "tags",
}


@dataclass(frozen=True)
class Plan:
    """How to search. `max_jobs` is None for a grid, which has as many trainings as combinations. Raises ConfigError."""

    strategy: str = "Bayesian"
    max_jobs: int | None = None
    max_parallel_jobs: int = 2
    early_stopping: bool = False
    search_seed: int | None = None
    warm_start: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            close = nearest(str(self.strategy).capitalize(), STRATEGIES)
            raise ConfigError(
                f"strategy must be one of {', '.join(STRATEGIES)}, not {shown(self.strategy)}"
                + (f": did you mean {close}?" if close else "")
            )
        numbers = {"max_jobs": self.max_jobs, "max_parallel_jobs": self.max_parallel_jobs}
        for name, value in (numbers | {"search_seed": self.search_seed}).items():
            least = 0 if name == "search_seed" else 1
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"{name} must be a whole number from {least} on, not {shown(value)}")
        if self.strategy == "Hyperband" and self.early_stopping:
            raise ConfigError("early_stopping is not for Hyperband, which stops trainings itself: leave it out")
        if self.warm_start and self.strategy not in ("Bayesian", "Random"):
            raise ConfigError(f"warm_start is for Bayesian and Random, not for {self.strategy}: leave it out")


def trainings(plan: Plan, space: Space) -> int:
    """How many trainings the plan asks for at most. Raises ConfigError for a grid of ranges, or of another number."""
    if plan.strategy != "Grid":
        return plan.max_jobs or 10
    if not space.is_finite:
        raise ConfigError("a Grid takes lists of values and no ranges: list some of each, or take another strategy")
    count = len(space.grid())
    if plan.max_jobs not in (None, count):
        raise ConfigError(f"this grid has {count} combinations, each trained once: leave max_jobs out, or set {count}")
    return count


def refuse_config(config: TrainConfig, plan: Plan, space: Space) -> None:
    """Raise ConfigError where a trial would have nothing to be judged by, or a field is none to search on a job."""
    if not config.validation_split and config.validation_data_dir is None:
        raise ConfigError(
            "a search judges by the loss on pictures that are held out: set validation_split (0.1, say) or "
            "validation_data_dir"
        )
    for name in space.parameters:
        if name in CHANNELS or name in OWN:
            raise ConfigError(f"{name} is a place, which is the same for every trial: leave it out of the space")
        if plan.strategy == "Hyperband" and name in LENGTHS:
            raise ConfigError(f"Hyperband itself says how long a trial trains: leave {name} out of the space")
    if plan.strategy == "Hyperband":
        measurements(config)
    for values in space.grid() if plan.strategy == "Grid" and space.is_finite else ():
        try:
            config.replace(**values)
        except ConfigError as error:
            raise ConfigError(f"a trial of this grid would fail: {error}") from error


def longest(config: TrainConfig, space: Space) -> TrainConfig:
    """The configuration of the trial that takes longest, as far as the space's largest numbers tell."""
    searched = {name: space.parameters[name] for name in GROWING if name in space.parameters}
    most = {name: one.high if isinstance(one, Range) else max(one.values) for name, one in searched.items()}
    try:
        return config.replace(**most)
    except ConfigError:  # a combination that no trial may have
        return config


def measurements(config: TrainConfig) -> int:
    """How often a run prints a held-out loss at most, which is what Hyperband counts. Raises ConfigError."""
    count = most_measurements(config)
    if count is None:
        raise ConfigError(
            "Hyperband counts how often the held-out loss is measured: set heldout_steps and max_train_steps, or "
            "neither"
        )
    count += 2  # the loss of what is delivered is printed once more, and whoever reaches the most is stopped
    if count > MOST_RESOURCE:
        raise ConfigError(f"Hyperband counts to {MOST_RESOURCE}, and this measures {count} times: raise heldout_steps")
    return count


def ranges(space: Space) -> dict[str, Any]:
    """The ParameterRanges of a space: whole and other numbers with their scale, the rest as texts."""
    made: dict[str, Any] = {"IntegerParameterRanges": [], "ContinuousParameterRanges": []}
    made["CategoricalParameterRanges"] = []
    for name, field in space.parameters.items():
        if isinstance(field, Range):
            kind = "IntegerParameterRanges" if field.whole else "ContinuousParameterRanges"
            ends = {"MinValue": as_text(field.low), "MaxValue": as_text(field.high)}
            made[kind].append({"Name": name, **ends, "ScalingType": "Logarithmic" if field.log else "Linear"})
        else:
            made["CategoricalParameterRanges"].append(
                {"Name": name, "Values": [as_text(value) for value in field.values]}
            )
    return {kind: found for kind, found in made.items() if found}


def request(asked: Mapping[str, Any], config: TrainConfig, space: Space, plan: Plan) -> dict[str, Any]:
    """The arguments of CreateHyperParameterTuningJob but for its name and WarmStartConfig.

    asked: the request of one job of `config`. Values of the space take the place of the configuration's own.
    """
    objective = {"Type": "Minimize", "MetricName": OBJECTIVE}
    count = trainings(plan, space)
    limits = {"MaxParallelTrainingJobs": min(plan.max_parallel_jobs, count)}
    found: dict[str, Any] = {
        "Strategy": plan.strategy,
        "HyperParameterTuningJobObjective": objective,
        "ResourceLimits": limits if plan.strategy == "Grid" else limits | {"MaxNumberOfTrainingJobs": count},
        "ParameterRanges": ranges(space),
        "TrainingJobEarlyStoppingType": "Auto" if plan.early_stopping else "Off",
    }
    if plan.strategy == "Hyperband":
        found["StrategyConfig"] = {"HyperbandStrategyConfig": {"MinResource": 1, "MaxResource": measurements(config)}}
    if plan.search_seed is not None:
        found["RandomSeed"] = plan.search_seed
    static = {name: text for name, text in asked["HyperParameters"].items() if name not in space.parameters}
    specification = asked["AlgorithmSpecification"]
    definition = {"StaticHyperParameters": static, "AlgorithmSpecification": specification}
    definition |= {name: asked[name] for name in OF_JOB if name in asked}
    return {"HyperParameterTuningJobConfig": found, "TrainingJobDefinition": definition, "Tags": asked["Tags"]}


def refuse(asked: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first thing that the service would refuse in a tuning job's request."""
    if fault := next(shapes.faults(asked, "CreateHyperParameterTuningJob"), None):
        top = re.sub(r"\[\d+\].*", "", fault.place)
        inside = top.removeprefix("TrainingJobDefinition.")
        raise ConfigError(f"{FLAGS.get(top) or _of_range(asked, fault.place) or shapes.FLAGS.get(inside, fault.place)} "
                          f"{fault.limit}")  # fmt: skip


def _of_range(asked: Mapping[str, Any], place: str) -> str | None:
    """The field whose range a place of the request is."""
    found = re.search(r"ParameterRanges\.(\w+)\[(\d+)\]", place)
    if not found:
        return None
    return str(asked["HyperParameterTuningJobConfig"]["ParameterRanges"][found[1]][int(found[2])]["Name"])
