"""The audit as a pipeline's first step: a processing job, without a GPU, that looks for faults in the pictures.

In: the request of the training job, whose settings may be pipeline parameters. Out: the step. It runs `python -m
sdxl_nb.container audit` in the training image (../audit_job.py) over the same places. Where training would fail on the
pictures it fails, the execution ends before a GPU is paid for, and the reason is the job's exit message. It is never
taken from the cache: it takes minutes, and its environment is too small for what tells other pictures apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...system.errors import ConfigError
from .. import shapes
from ..identity.content import CHANNELS
from ..session import Session
from ..staging import INPUT
from ..tuning_step import HUB_SECRET, Job
from . import steps

PROCESSING = "/opt/ml/processing"
FOUND = f"{PROCESSING}/output"  # where the job leaves audit.json
COMMAND = ["python", "-m", "sdxl_nb.container", "audit"]
LONGEST = 256  # characters of an argument, by the service
HOURS = 4
UNREAD = ("model", "vae", "lora")  # channels that it does without: SDXL's tokenizers are those of the default base
LONG = ("validation_prompt",)  # a parameter that may be longer than an argument: its default is told, and never read


@dataclass(frozen=True)
class Audit:
    """`instance_type`: what it runs on. Raises ConfigError for one that the service does not process on."""

    instance_type: str = "ml.m5.xlarge"

    def __post_init__(self) -> None:
        resources = {"ClusterConfig": {"InstanceType": self.instance_type, "InstanceCount": 1, "VolumeSizeInGB": 1}}
        for fault in shapes.faults({"ProcessingResources": resources}, "CreateProcessingJob"):
            if fault.limit != shapes.MISSING:
                raise ConfigError(f"audit's instance type {fault.limit}")

    def step(self, session: Session, asked: Mapping[str, Any], output: str, job: Job) -> Any:
        """The step; `output` is the prefix below which its findings come."""
        return steps.made(session, steps.AUDIT, "PROCESSING", self.request(asked, output, job))

    def request(self, asked: Mapping[str, Any], output: str, job: Job) -> dict[str, Any]:
        """The arguments of CreateProcessingJob but for its name. Raises ConfigError for what the service would refuse.

        asked: the training job's.
        """
        cluster: dict[str, Any] = {"InstanceType": self.instance_type, "InstanceCount": 1}
        cluster["VolumeSizeInGB"] = job.volume_size_gb
        if job.kms_key and not shapes.has_own_disk(self.instance_type):
            cluster["VolumeKmsKeyId"] = job.kms_key
        upload = {"S3Uri": output, "LocalPath": FOUND, "S3UploadMode": "EndOfJob"}
        outputs = {"Outputs": [{"OutputName": "findings", "S3Output": upload}]}
        told = {name: asked["Environment"].get(name) for name in (HUB_SECRET, "HF_ENDPOINT")}
        made = {
            "ProcessingInputs": inputs(asked.get("InputDataConfig", [])),
            "ProcessingOutputConfig": outputs | ({"KmsKeyId": job.kms_key} if job.kms_key else {}),
            "ProcessingResources": {"ClusterConfig": cluster},
            "StoppingCondition": {"MaxRuntimeInSeconds": HOURS * 3600},
            "AppSpecification": {
                "ImageUri": asked["AlgorithmSpecification"]["TrainingImage"],
                "ContainerEntrypoint": COMMAND,
                "ContainerArguments": arguments(asked["HyperParameters"]),
            },
            "Environment": {name: value for name, value in told.items() if value},
            "RoleArn": asked["RoleArn"],
            "Tags": asked["Tags"],
            **({"NetworkConfig": {"VpcConfig": asked["VpcConfig"]}} if "VpcConfig" in asked else {}),
        }
        for fault in shapes.faults({"ProcessingJobName": "pipelines-0", **made}, "CreateProcessingJob"):
            raise ConfigError(f"audit cannot be run: {fault.place} {fault.limit}")
        return made

    def price(self) -> str:
        """The sentence about what it costs."""
        return f"The audit runs on one {self.instance_type} first, for {HOURS} h at most and usually for minutes."


def inputs(channels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The training job's channels but for models, as a processing job takes them."""
    sources = {channel["ChannelName"]: channel["DataSource"]["S3DataSource"] for channel in channels}
    return [
        {
            "InputName": name,
            "S3Input": {
                "S3Uri": source["S3Uri"],
                "LocalPath": f"{PROCESSING}/{name}",
                "S3DataType": "S3Prefix",
                "S3InputMode": "File",
                "S3DataDistributionType": "FullyReplicated",
            },
        }
        for name, source in sources.items()
        if name not in UNREAD
    ]


def arguments(settings: Mapping[str, Any]) -> list[Any]:
    """The settings as names and values in turn; a value that is too long for one argument comes in several."""
    told: list[Any] = []
    for name, value in settings.items():
        text = str(getattr(value, "default_value", value))
        channel = _channel(text) if name in CHANNELS else None
        if channel in UNREAD:
            continue
        if channel:
            value = f"{PROCESSING}{text[len(INPUT) :]}"
        if name in LONG or not hasattr(value, "expr"):
            value = str(getattr(value, "default_value", value))
            for start in range(0, len(value), LONGEST):
                told += [name, value[start : start + LONGEST]]
        else:
            told += [name, value]
    return told


def _channel(text: str) -> str | None:
    """The channel that a path of the training job lies in."""
    found = re.match(rf"{re.escape(INPUT)}/([^/]+)", text)
    return found and found[1]
