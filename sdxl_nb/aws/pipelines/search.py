"""A search as a pipeline's step, in the place of one training: its request, and which LoRA of it goes on.

In: a space, a plan (both as `tune_sagemaker` takes them) and the request of one training. Out: the step, whose best
training's loss and artifact are what the gate judges and the registry gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...config.train_config import TrainConfig
from ...sweeps.space import Space
from ...system.errors import ConfigError
from .. import costs
from ..search import request as searching
from ..search.request import Plan
from ..session import Session
from ..tuning_step import Job
from . import steps


@dataclass(frozen=True)
class Search:
    """What is searched, how, and for how many dollars at most."""

    space: Space
    plan: Plan
    ceiling: float | None = None

    def refuse(self, config: TrainConfig, job: Job) -> None:
        """Raise ConfigError for what no search takes, or none in a pipeline."""
        for name, why in (
            ("keep_alive", "whose ceiling knows nothing of waiting instances"),
            ("fallbacks", "whose trainings share one instance_type"),
            ("mlflow", "whose trainings the service names"),
        ):
            if getattr(job, name):
                raise ConfigError(f"{name} is not for a search, {why}: leave it out")
        if self.plan.warm_start:
            raise ConfigError("warm_start is not for a pipeline, whose definition is the same each time: leave it out")
        searching.refuse_config(config, self.plan, self.space)

    def price(self, job: Job, region: str) -> str:
        """The sentence about what it costs at most. Raises ConfigError where that is more than the ceiling."""
        return costs.ceiling_of_search(job, searching.trainings(self.plan, self.space), region, self.ceiling)

    def longest(self, config: TrainConfig) -> TrainConfig:
        """The configuration of the training that takes longest."""
        return searching.longest(config, self.space)

    def told(self) -> dict[str, Any]:
        """What makes it another search than others, as JSON: its checkpoints are its own."""
        return {"space": self.space.as_json(), "plan": asdict(self.plan)}

    def request(self, asked: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
        """The arguments of CreateHyperParameterTuningJob but for its name. Raises ConfigError."""
        made = searching.request(asked, config, self.space, self.plan)
        searching.refuse({"HyperParameterTuningJobName": "pipelines-0", **made})
        return made

    def step(self, session: Session, asked: Mapping[str, Any], config: TrainConfig, **more: Any) -> Any:
        """The step; `more` is what `steps.made` takes."""
        return steps.made(session, steps.TUNE, "TUNING", self.request(asked, config), **more)
