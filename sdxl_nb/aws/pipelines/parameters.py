"""What a start of the pipeline may change: its parameters, and a request whose values they are.

In: a configuration and a `request`. Out: the request with SageMaker's parameters in it, and these with their defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from ...config.train_config import TrainConfig
from ..identity import content
from ..identity.content import CHANNELS
from ..tuning_step import as_text

SETTINGS = (  # what a start may change; each is a pipeline parameter named in capitals, LearningRate for learning_rate
    "pretrained_model_name_or_path",
    "pretrained_vae_model_name_or_path",
    "dataset_name",
    "validation_prompt",
    "num_train_epochs",
    "max_train_steps",
    "train_batch_size",
    "resolution",
    "learning_rate",
    "rank",
    "seed",
    "mixed_precision",
)
LONGEST = 1024  # characters of a parameter's value, by the service
MAX_VARIABLE = 512  # of a variable of a job's environment
CONTENT = "Content"  # the parameter that says what the places hold; another text is another step for the cache
UNSEEN = {"OutputPath", "TrainingInstanceType", "TrainingInstanceCount"}  # of which SageMaker's cache knows nothing
JOB = {"TrainingInstanceType": "instance_type", "TrainingInstanceCount": "instance_count"}


def parameter_name(setting: str) -> str:
    """LearningRate for learning_rate."""
    return "".join(word.capitalize() for word in setting.split("_"))


def place_parameter(channel: str) -> str:
    """TrainS3Uri for train."""
    return f"{channel.capitalize()}S3Uri"


def with_parameters(
    config: TrainConfig, asked: dict[str, Any], searched: Collection[str] = ()
) -> tuple[dict[str, Any], list[Any]]:
    """A request whose changeable values are pipeline parameters, and these with their defaults.

    searched: settings that a search chooses, and no start. A job with fallbacks has no one type to be changed.
    Hyperparameters are texts, so theirs are ParameterString; one longer than a parameter may be stays as it is.
    """
    from sagemaker.core.workflow.parameters import ParameterInteger, ParameterString

    asked, made = copy.deepcopy(asked), []

    def parameter(name: str, value: Any) -> Any:
        made.append((ParameterInteger if isinstance(value, int) else ParameterString)(name=name, default_value=value))
        return made[-1]

    resource, values = asked["ResourceConfig"], asked["HyperParameters"]
    if "InstanceType" in resource:
        resource["InstanceType"] = parameter("TrainingInstanceType", resource["InstanceType"])
    resource["InstanceCount"] = parameter("TrainingInstanceCount", resource["InstanceCount"])
    output, checkpoints, environment = asked["OutputDataConfig"], asked["CheckpointConfig"], asked["Environment"]
    output["S3OutputPath"] = parameter("OutputPath", output["S3OutputPath"])
    checkpoints["S3Uri"] = parameter("CheckpointS3Uri", checkpoints["S3Uri"])
    for channel in asked.get("InputDataConfig", []):
        source = channel["DataSource"]["S3DataSource"]
        name = channel["ChannelName"]
        source["S3Uri"] = parameter(place_parameter(name), source["S3Uri"])
        if len(str(source["S3Uri"].default_value)) <= MAX_VARIABLE:
            environment[f"{content.PLACE}{name.upper()}"] = source["S3Uri"]
    if content.VARIABLE in environment:
        environment[content.VARIABLE] = parameter(CONTENT, environment[content.VARIABLE])
    channels = {channel["ChannelName"] for channel in asked.get("InputDataConfig", [])}
    for name in SETTINGS:
        if (name == "dataset_name" and "train" in channels) or CHANNELS.get(name, ("",))[0] in channels:
            continue
        if name in searched:
            continue
        text = values.get(name, as_text(getattr(config, name)))
        if len(text) <= LONGEST:
            values[name] = parameter(parameter_name(name), text)
    return asked, made
