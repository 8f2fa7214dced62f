"""What follows training in a pipeline, if it is asked for: a gate on the held-out loss, and the model registry.

In: the training or tuning step, its request, a Gate. Out: the steps after it. A LoRA whose held-out loss is above the
gate's ends the execution before it is registered, with the reason in it; one that passes becomes a version in a group
of the registry, with a model card that says what it was measured to be. The loss is the training job's own metric, of
the very LoRA that it delivers, so that no other machine has to be paid for evaluating it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...config.train_config import TrainConfig
from ...system.errors import ConfigError
from .. import shapes
from ..identity import previews
from ..search.request import OBJECTIVE
from ..session import Session
from . import steps

GATE, FELL_SHORT, REGISTER = "Gate", "FellShort", "Register"  # the steps' names
ANY_ARTIFACT = "s3://some-bucket/model.tar.gz"
CONTENT_TYPE = "application/x-tar"
NAMES = {
    "ModelPackageGroupName": "register",
    "ModelCard.ModelCardContent": "the LoRA's model card",
    "InferenceSpecification.Containers": "image_uri",
}


@dataclass(frozen=True)
class Gate:
    """`gate`: the highest held-out loss that passes; `register`: the model package group. Raises ConfigError."""

    gate: float | None = None
    register: str | None = None

    def __post_init__(self) -> None:
        wrong = isinstance(self.gate, bool) or not isinstance(self.gate, (int, float, type(None)))
        if wrong or (self.gate is not None and not 0 < self.gate < math.inf):
            raise ConfigError(f"gate must be a held-out loss, a number above 0, not {self.gate!r}")
        pattern = r"(?=.{1,63}$)sdxl-nb(-*[a-zA-Z0-9])*"
        if self.register is not None and not (isinstance(self.register, str) and re.fullmatch(pattern, self.register)):
            raise ConfigError(
                "register must be the name of a model package group that begins with sdxl-nb, as the roles' "
                f"permissions do: letters, digits and hyphens, 63 at most, not {self.register!r}"
            )

    def refuse(self, config: TrainConfig) -> None:
        """Raise ConfigError where there would be no held-out loss to judge by."""
        if self.gate is not None and not config.validation_split and config.validation_data_dir is None:
            raise ConfigError(
                "gate judges by the loss on pictures that are held out: set validation_split (0.1, say) or "
                "validation_data_dir"
            )

    def steps(self, session: Session, training: Any, config: TrainConfig, asked: Mapping[str, Any]) -> list[Any]:
        """The steps after `training`; none where nothing is asked for."""
        registering = [] if self.register is None else [self._registration(session, training, config, asked)]
        if self.gate is None:
            return registering
        with session.sdk():
            from sagemaker.core.workflow.conditions import ConditionLessThanOrEqualTo
            from sagemaker.core.workflow.functions import Join
            from sagemaker.mlops.workflow.condition_step import ConditionStep
            from sagemaker.mlops.workflow.fail_step import FailStep

            loss = loss_of(training)
            texts = ["The held-out loss of this LoRA is ", loss, f", above the gate's {self.gate:g}: "]
            texts[-1] += "it was not registered" if self.register else "it does not pass"
            texts.append("; its run is kept, see execution.run.")
            failing = FailStep(name=FELL_SHORT, error_message=Join(on="", values=texts))
            condition = ConditionLessThanOrEqualTo(left=loss, right=float(self.gate))
            return [ConditionStep(name=GATE, conditions=[condition], if_steps=registering, else_steps=[failing])]

    def _registration(self, session: Session, training: Any, config: TrainConfig, asked: Mapping[str, Any]) -> Any:
        """The step that makes a version in the registry."""
        with session.sdk():
            from sagemaker.core.workflow.functions import Join

            card = card_texts(
                config, loss_of(training) if config.validation_split or config.validation_data_dir else None
            )
            content = card[0] if len(card) == 1 else Join(on="", values=card)
            package = self.package(config, asked, artifact_of(training, asked), content)
            if config.drawings() and training.name != steps.TUNE:  # whose trainings may not ask where results go
                package["CustomerMetadataProperties"] = {previews.METADATA: pictures_of(training, asked)}
        # CreateModelPackage as it is: the SDK's own ModelStep takes what serves predictions alone
        return steps.made(session, REGISTER, "REGISTER_MODEL", package)

    def package(self, config: TrainConfig, asked: Mapping[str, Any], artifact: Any, card: Any) -> dict[str, Any]:
        """The arguments of CreateModelPackage. Raises ConfigError for what the service would refuse.

        The registry is for what serves predictions and asks for an image: it is the one that trained. A version waits
        for somebody's approval.
        """
        image = asked["AlgorithmSpecification"]["TrainingImage"]
        made = {
            "ModelPackageGroupName": self.register,
            "InferenceSpecification": {
                "Containers": [{"Image": image, "ModelDataUrl": artifact}],
                "SupportedContentTypes": [CONTENT_TYPE],
                "SupportedResponseMIMETypes": [CONTENT_TYPE],
            },
            "ModelApprovalStatus": "PendingManualApproval",
            "ModelCard": {"ModelCardContent": card, "ModelCardStatus": "Draft"},
        }
        if fault := next(shapes.faults(made, "CreateModelPackage"), None):
            place = re.sub(r"\[\d+\].*", "", fault.place)
            raise ConfigError(f"{NAMES.get(place, fault.place)} {fault.limit}")
        return made


def loss_of(training: Any) -> Any:
    """The held-out loss of a training step, or of a search's best, as the service knows it when the job is over."""
    if training.name == steps.TUNE:
        return training.properties.BestTrainingJob.FinalHyperParameterTuningJobObjectiveMetric.Value
    return training.properties.FinalMetricDataList[OBJECTIVE].Value


def artifact_of(training: Any, asked: Mapping[str, Any]) -> Any:
    """The place of the model.tar.gz of a training step, or of a search's best; needs the SDK."""
    if training.name != steps.TUNE:
        return training.properties.ModelArtifacts.S3ModelArtifacts
    from sagemaker.core.workflow.functions import Join

    name = training.properties.BestTrainingJob.TrainingJobName
    return Join(on="/", values=[asked["OutputDataConfig"]["S3OutputPath"], name, "output/model.tar.gz"])


def pictures_of(training: Any, asked: Mapping[str, Any]) -> Any:
    """The place of the pictures that a training step's LoRA drew; needs the SDK."""
    from sagemaker.core.workflow.functions import Join

    name = training.properties.TrainingJobName
    return Join(on="/", values=[asked["OutputDataConfig"]["S3OutputPath"], name, "output", previews.FOLDER])


def card_texts(config: TrainConfig, loss: Any = None) -> list[Any]:
    """A model card by the registry's schema, as texts to be joined: before, around and after the loss.

    Settings are those that differ from the defaults, without places and names of this machine.
    """
    mark = "\0loss\0"
    settings = {name: value for name, value in config.essentials().items() if name in config.identity()}
    places = ("train_data_dir", "class_data_dir", "validation_data_dir", "slider_negative_dir", "lora_weights")
    details = {name: json.dumps(value) for name, value in settings.items() if name not in places}
    card: dict[str, Any] = {
        "model_overview": {"model_creator": "sdxl_nb"},
        "intended_uses": {"purpose_of_model": f"The LoRA {config.lora_name()}, made by sdxl_nb."[:2048]},
        "additional_information": {"custom_details": {name: text[:300] for name, text in details.items()}},
    }
    if loss is not None:
        data = {"name": OBJECTIVE, "type": "number", "value": mark}
        group = {"name": "held-out pictures", "metric_data": [data]}
        card["evaluation_details"] = [{"name": "held-out loss", "metric_groups": [group]}]
    before, _, after = json.dumps(card).partition(json.dumps(mark))
    return [before] if loss is None else [before, loss, after]
