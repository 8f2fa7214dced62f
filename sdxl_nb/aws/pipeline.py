"""A SageMaker pipeline of one tuning step: its definition and its start.

In: a TrainConfig, a Job, and what the session finds. Out: `prepare` makes a Prepared (definition, and nothing sent),
whose `start` uploads local pictures, creates or updates the pipeline and returns an Execution. The same configuration
always gives the same definition, byte by byte, so that a step that ended well is found again and not paid for twice.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config import formats
from ..config.messages import nearest
from ..config.train_config import TrainConfig
from ..system.errors import ConfigError
from . import costs, staging
from .execution import Execution
from .messages import AwsError, explained
from .session import Session
from .tuning_step import Job, as_text, model_trainer, request, tuning_step

PIPELINE = "sdxl-nb"
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
UNKNOWN = {  # what a dry run shows where nothing is known
    "bucket": "BUCKET_NAME",
    "role": "arn:aws:iam::111122223333:role/SDXL_NB_ROLE_ARN",
    "image": "IMAGE_URI",
}


@dataclass(frozen=True)
class Prepared:
    """A pipeline that could be started. `notes` say what was assumed; `parameters` are its defaults, all texts."""

    session: Session
    name: str
    definition: str
    parameters: dict[str, str]
    job: Job
    staged: staging.Staged
    notes: list[str]

    def start(self, parameters: Mapping[str, Any] | None = None) -> Execution:
        """Upload, create or update, and start. Raises ConfigError for a wrong parameter, else AwsError."""
        values = self._overrides(parameters or {})
        sent = staging.upload(self.session, self.staged, self.job.kms_key)
        if self.staged.uploads:
            print(f"Uploaded {sent} files to {', '.join(self.staged.uploads)}.")
        with explained("The pipeline was not made"):
            self._upsert(self.session.client("sagemaker"))
        with explained("The pipeline was not started"):
            started = self.session.client("sagemaker").start_pipeline_execution(
                PipelineName=self.name, PipelineParameters=values, ClientRequestToken=uuid.uuid4().hex
            )
        return Execution(started["PipelineExecutionArn"], self.session)

    def _upsert(self, client: Any) -> None:
        """Create or update it with the very definition that was checked.

        The SDK's Pipeline would make it anew, with checks that take seconds, and its start would try for minutes to
        get round an AccessDenied.
        """
        tags = [{"Key": key, "Value": value} for key, value in ({"project": PIPELINE} | self.job.tags).items()]
        asked = {"PipelineName": self.name, "PipelineDefinition": self.definition, "RoleArn": self.job.role_arn}
        try:
            client.create_pipeline(**asked, Tags=tags, ClientRequestToken=uuid.uuid4().hex)
        except client.exceptions.ClientError as error:
            if "already exist" not in str(error) and "must be unique" not in str(error):
                raise
            client.add_tags(ResourceArn=client.update_pipeline(**asked)["PipelineArn"], Tags=tags)

    def _overrides(self, given: Mapping[str, Any]) -> list[dict[str, str]]:
        for name in given:
            if name not in self.parameters:
                close = nearest(name, self.parameters)
                advice = f"did you mean {close}?" if close else f"there are {', '.join(self.parameters)}"
                raise ConfigError(f"unknown pipeline parameter {name}: {advice}")
        values = {name: as_text(value) for name, value in given.items()}
        for name, value in values.items():
            if len(value) > LONGEST:
                raise ConfigError(f"pipeline parameter {name} takes {LONGEST} characters at most, not {len(value)}")
        return [{"Name": name, "Value": value} for name, value in values.items()]


def start_pipeline(
    config: TrainConfig,
    *,
    parameters: Mapping[str, Any] | None = None,
    pipeline_name: str = PIPELINE,
    bucket: str | None = None,
    region: str | None = None,
    cached: bool = True,
    wait: bool = False,
    **job: Any,
) -> Execution:
    """Build, create or update, and start the SageMaker pipeline that trains `config`; returns its Execution at once.

    job: instance_type, instance_count, spot, max_run, role_arn, image_uri and the others of `Job`; what is not given is
    found in the environment or in the deployed stack. parameters: changes for this start, {"Rank": 8}.
    Raises ConfigError, DataError or AwsError before anything is started.
    """
    prepared = prepare(config, _job(job), pipeline_name=pipeline_name, bucket=bucket, region=region, cached=cached)
    for note in prepared.notes:
        print(note)
    execution = prepared.start(parameters)
    if wait:
        execution.wait()
    return execution


def _job(options: dict[str, Any]) -> Job:
    for name in options:
        if name not in Job.__dataclass_fields__:
            close = nearest(name, Job.__dataclass_fields__)
            raise TypeError(f"start_pipeline() takes no {name}" + (f": did you mean {close}?" if close else ""))
    return Job(**options)


def prepare(
    config: TrainConfig,
    job: Job,
    *,
    pipeline_name: str = PIPELINE,
    bucket: str | None = None,
    region: str | None = None,
    cached: bool = True,
    dry: bool = False,
) -> Prepared:
    """The pipeline of a configuration; nothing is sent. With `dry` unknown places are shown by their names."""
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,255}", pipeline_name):
        raise ConfigError(f"pipeline_name must be letters, digits and hyphens, not {pipeline_name!r}")
    staged = staging.plan(config, UNKNOWN["bucket"])
    request(config, job, staged, output="", checkpoints="")  # what is wrong with the settings is said first
    session, notes = _session(region, dry), []

    def find(what: str, look: Callable[[], str]) -> str:
        try:
            return look()
        except AwsError as error:
            if not dry:
                raise
            notes.append(f"{UNKNOWN[what]} stands for what is not known here: {error}")
            return UNKNOWN[what]

    place = find("bucket", lambda: session.bucket(bucket, make=not dry))
    role, image = find("role", lambda: session.role(job.role_arn)), find("image", lambda: session.image(job.image_uri))
    if not dry:
        session.check_bucket(place)
        session.check_image(image)
    job, staged = replace(job, role_arn=role, image_uri=image), staged.moved(UNKNOWN["bucket"], place)
    notes.append(costs.ceiling(job, session.region))
    return _define(session, config, job, staged, place, pipeline_name, cached, notes)


def _session(region: str | None, dry: bool) -> Session:
    try:
        return Session(region)
    except AwsError as error:
        if not dry or error.code:
            raise
        return Session("us-east-1")


def _define(
    session: Session,
    config: TrainConfig,
    job: Job,
    staged: staging.Staged,
    bucket: str,
    name: str,
    cached: bool,
    notes: list[str],
) -> Prepared:
    asked = request(
        config,
        job,
        staged,
        output=f"s3://{bucket}/runs/{name}",
        checkpoints=f"s3://{bucket}/checkpoints/{name}/{_checkpoint_folder(config, staged, cached)}",
    )
    with session.sdk():
        from sagemaker.mlops.workflow.pipeline import Pipeline

        asked, parameters = with_parameters(config, asked)
        step = tuning_step(session, model_trainer(session, asked, bucket, job.job_name), cached=cached)
        pipeline = Pipeline(
            name=name,
            parameters=parameters,
            steps=[step],
            sagemaker_session=step.step_args.func_args[0].sagemaker_session,
            pipeline_experiment_config=None,  # experiments would need more permissions, and TensorBoard has the curves
        )
        definition = pipeline.definition()
    defaults = {parameter.name: str(parameter.default_value) for parameter in parameters}
    return Prepared(session, name, definition, defaults, job, staged, notes)


def _checkpoint_folder(config: TrainConfig, staged: staging.Staged, cached: bool) -> str:
    """The same for the same settings and data, so that a run that failed goes on; anew to train without the cache."""
    told = formats.digest({"settings": config.identity(), "channels": staged.channels})[:16]
    return told if cached else f"{told}-{uuid.uuid4().hex[:6]}"


def parameter_name(setting: str) -> str:
    """LearningRate for learning_rate."""
    return "".join(word.capitalize() for word in setting.split("_"))


def with_parameters(config: TrainConfig, asked: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """A request whose changeable values are pipeline parameters, and these with their defaults.

    Hyperparameters are texts, so theirs are ParameterString; one longer than a parameter may be stays as it is.
    """
    from sagemaker.core.workflow.parameters import ParameterInteger, ParameterString

    asked, made = copy.deepcopy(asked), []

    def parameter(name: str, value: Any) -> Any:
        made.append((ParameterInteger if isinstance(value, int) else ParameterString)(name=name, default_value=value))
        return made[-1]

    resource, values = asked["ResourceConfig"], asked["HyperParameters"]
    resource["InstanceType"] = parameter("TrainingInstanceType", resource["InstanceType"])
    resource["InstanceCount"] = parameter("TrainingInstanceCount", resource["InstanceCount"])
    output, checkpoints = asked["OutputDataConfig"], asked["CheckpointConfig"]
    output["S3OutputPath"] = parameter("OutputPath", output["S3OutputPath"])
    checkpoints["S3Uri"] = parameter("CheckpointS3Uri", checkpoints["S3Uri"])
    for channel in asked.get("InputDataConfig", []):
        source = channel["DataSource"]["S3DataSource"]
        source["S3Uri"] = parameter(f"{channel['ChannelName'].capitalize()}S3Uri", source["S3Uri"])
    channels = {channel["ChannelName"] for channel in asked.get("InputDataConfig", [])}
    for name in SETTINGS:
        if (name == "dataset_name" and "train" in channels) or staging.CHANNELS.get(name, ("",))[0] in channels:
            continue
        text = values.get(name, as_text(getattr(config, name)))
        if len(text) <= LONGEST:
            values[name] = parameter(parameter_name(name), text)
    return asked, made
