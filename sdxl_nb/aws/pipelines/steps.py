"""A step of a pipeline by the request that it makes, where the SDK's own step takes less than the service does.

In: the step's name and kind, the arguments of the service's action (values may be pipeline parameters and properties of
other steps). Out: a Step for the SDK's Pipeline, whose properties are what the service's Describe says of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..session import Session
from ..tuning_step import EXPIRES

AUDIT, TUNE = "Audit", "Tune"  # names; the training step is tuning_step.STEP
SHAPES = {  # kind of step: what its properties are
    "PROCESSING": ["DescribeProcessingJobResponse"],
    "TRAINING": ["DescribeTrainingJobResponse"],
    "TUNING": ["DescribeHyperParameterTuningJobResponse"],
    "REGISTER_MODEL": ["DescribeModelPackageOutput"],
}


def made(
    session: Session,
    name: str,
    kind: str,
    arguments: Mapping[str, Any],
    *,
    cached: bool = False,
    after: Sequence[str] = (),
) -> Any:
    """The step; `kind` is one of SHAPES, `after` names steps that must have ended well before it begins."""
    with session.sdk():
        from sagemaker.core.workflow.properties import Properties
        from sagemaker.mlops.workflow.steps import CacheConfig, Step, StepTypeEnum

        request = arguments  # whose name is the class's too
        caching = CacheConfig(enable_caching=True, expire_after=EXPIRES).config if cached else {}

        class Made(Step):
            """The request as it is."""

            arguments = property(lambda step: dict(request))
            properties = property(lambda step: Properties(step.name, step=step, shape_names=SHAPES[kind]))

            def to_request(self) -> dict[str, Any]:
                return super().to_request() | caching

        return Made(name, step_type=StepTypeEnum[kind], depends_on=list(after) or None)
