"""A SageMaker pipeline of one tuning step, and what may follow it: its definition and its start.

In: a TrainConfig, a Job, and what the session finds. Out: `prepare` makes a Prepared (definition, and nothing sent),
whose `start` uploads local pictures, creates or updates the pipeline and returns an Execution. The same configuration
always gives the same definition, byte by byte, so that a step that ended well is found again and not paid for twice.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..config.messages import nearest, shown
from ..config.train_config import TrainConfig
from ..system.errors import ConfigError
from . import costs, shapes, staging
from .execution import Execution
from .messages import AwsError, explained
from .pipelines import starting
from .pipelines.gate import Gate
from .pipelines.parameters import with_parameters
from .pipelines.starting import checkpoint_place, looked
from .session import Session
from .tuning_step import ANY_ROLE, UNKNOWN_BUCKET, Job, model_trainer, refuse, request, tuning_step

PIPELINE = "sdxl-nb"
UNKNOWN = {  # what a dry run shows where nothing is known
    "bucket": UNKNOWN_BUCKET,
    "role": ANY_ROLE,
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
    config: TrainConfig
    bucket: str
    cached: bool
    register: str | None = None

    def start(self, parameters: Mapping[str, Any] | None = None) -> Execution:
        """Upload, create or update, and start; says what a changed parameter means.

        Raises ConfigError for a wrong parameter, DataError for a place with nothing in it, else AwsError.
        """
        values = starting.values(self, parameters or {})
        sent = staging.upload(self.session, self.staged, self.job.kms_key)
        if self.staged.uploads:
            print(f"Uploaded {sent} files to {', '.join(self.staged.uploads)}.")
        with explained("The pipeline was not made"):
            self._upsert(self.session.client("sagemaker"))
            self._make_group(self.session.client("sagemaker"))
        given = [{"Name": name, "Value": value} for name, value in values.items()]
        with explained("The pipeline was not started"):
            started = self.session.client("sagemaker").start_pipeline_execution(
                PipelineName=self.name, PipelineParameters=given, ClientRequestToken=uuid.uuid4().hex
            )
        return Execution(started["PipelineExecutionArn"], self.session)

    def _upsert(self, client: Any) -> None:
        """Create or update it with the very definition that was checked.

        The SDK's Pipeline would make it anew, with checks that take seconds, and its start would try for minutes to
        get round an AccessDenied.
        """
        tags = self._tags()
        asked = {"PipelineName": self.name, "PipelineDefinition": self.definition, "RoleArn": self.job.role_arn}
        try:
            client.create_pipeline(**asked, Tags=tags, ClientRequestToken=uuid.uuid4().hex)
        except client.exceptions.ClientError as error:
            if "already exist" not in str(error) and "must be unique" not in str(error):
                raise
            client.add_tags(ResourceArn=client.update_pipeline(**asked)["PipelineArn"], Tags=tags)

    def _tags(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in ({"project": PIPELINE} | self.job.tags).items()]

    def _make_group(self, client: Any) -> None:
        """The model package group that versions are registered in, unless it is there."""
        if self.register is None:
            return
        try:
            client.create_model_package_group(
                ModelPackageGroupName=self.register,
                ModelPackageGroupDescription="LoRAs of sdxl_nb that passed their pipeline's gate.",
                Tags=self._tags(),
            )
        except client.exceptions.ClientError as error:
            if "already exist" not in str(error):
                raise


def start_pipeline(
    config: TrainConfig,
    *,
    parameters: Mapping[str, Any] | None = None,
    pipeline_name: str = PIPELINE,
    bucket: str | None = None,
    region: str | None = None,
    cached: bool = True,
    wait: bool = False,
    gate: float | None = None,
    register: str | None = None,
    **job: Any,
) -> Execution:
    """Build, create or update, and start the SageMaker pipeline that trains `config`; returns its Execution at once.

    job: instance_type, instance_count, spot, max_run, role_arn, image_uri and the others of `Job`; what is not given is
    found in the environment or in the deployed stack. parameters: changes for this start, {"Rank": 8}.
    gate: the highest held-out loss that passes: a LoRA above it fails the execution, with the reason. register: the
    model package group (sdxl-nb-...) that a LoRA becomes a version of; `registered_lora` fetches it.
    Raises ConfigError, DataError or AwsError before anything is started.
    """
    after = Gate(gate, register)
    prepared = prepare(
        config, _job(job), pipeline_name=pipeline_name, bucket=bucket, region=region, cached=cached, after=after
    )
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
    after: Gate | None = None,
) -> Prepared:
    """The pipeline of a configuration; nothing is sent. With `dry` unknown places are shown by their names.

    after: what follows training; nothing by default.
    """
    after = after or Gate()
    if not re.fullmatch(r"(?=.{1,256}$)[a-zA-Z0-9](-*[a-zA-Z0-9])*", pipeline_name):
        raise ConfigError(f"pipeline_name must be at most 256 letters, digits and hyphens, not {shown(pipeline_name)}")
    staged = planned = staging.plan(config, UNKNOWN["bucket"])
    if job.retries is not None:
        raise ConfigError("retries is not for a pipeline, whose step the SDK makes without it: use launch_sagemaker")
    if job.fallbacks:
        raise ConfigError("fallbacks are not for a pipeline, whose instance type is a parameter: use launch_sagemaker")
    if job.mlflow:
        raise ConfigError("mlflow is not for a pipeline, whose step the SDK makes without it: use launch_sagemaker")
    refuse(config, job, staged)  # what is wrong with the settings is said first
    after.refuse(config)
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
    job = replace(job, role_arn=role, image_uri=image)
    staged, unsaid = looked(session, config, planned.moved(UNKNOWN["bucket"], place), dry)
    notes += [*unsaid, costs.ceiling(job, session.region)]
    return _define(session, config, job, staged, place, pipeline_name, cached, notes, after)


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
    after: Gate,
) -> Prepared:
    asked = request(
        config,
        job,
        staged,
        output=f"s3://{bucket}/runs/{name}",
        checkpoints=checkpoint_place(bucket, name, config, staged, cached),
    )
    shapes.refuse(asked, unknown=tuple(UNKNOWN.values()))
    with session.sdk():
        from sagemaker.mlops.workflow.pipeline import Pipeline

        asked, parameters = with_parameters(config, asked)
        step = tuning_step(session, model_trainer(session, asked, bucket, job.job_name), cached=cached)
        pipeline = Pipeline(
            name=name,
            parameters=parameters,
            steps=[step, *after.steps(session, step, config, asked)],
            sagemaker_session=step.step_args.func_args[0].sagemaker_session,
            pipeline_experiment_config=None,  # experiments would need more permissions, and TensorBoard has the curves
        )
        definition = pipeline.definition()
    defaults = {parameter.name: str(parameter.default_value) for parameter in parameters}
    return Prepared(session, name, definition, defaults, job, staged, notes, config, bucket, cached, after.register)
