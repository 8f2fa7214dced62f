"""A SageMaker pipeline of one step that trains or searches, and what may come before and after: definition and start.

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
from ..sweeps.space import Space
from ..system.errors import ConfigError
from . import costs, shapes, staging
from .execution import Execution
from .messages import AwsError, explained
from .pipelines import starting, steps
from .pipelines.audit import Audit
from .pipelines.gate import Gate
from .pipelines.parameters import with_parameters
from .pipelines.search import Search
from .pipelines.starting import checkpoint_place, looked
from .search.request import Plan
from .search.start import check_ceiling
from .session import Session
from .tuning_step import ANY_ROLE, STEP, UNKNOWN_BUCKET, Job, model_trainer, refuse, request, tuning_step

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
    search: Search | None = None

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
    audit: bool | str = False,
    space: Space | Mapping[str, Any] | None = None,
    ceiling: float | None = None,
    gate: float | None = None,
    register: str | None = None,
    **job: Any,
) -> Execution:
    """Build, create or update, and start the SageMaker pipeline that trains `config`; returns its Execution at once.

    job: instance_type, instance_count, spot, max_run, role_arn, image_uri and the others of `Job`; what is not given is
    found in the environment or in the deployed stack. parameters: changes for this start, {"Rank": 8}.
    audit: look at the pictures first, on a small instance or one of this type; where training would fail on them, the
    execution does, with the reason, before a GPU is paid for. space: search it, in the place of one training, as
    `tune_sagemaker` does, whose strategy, max_jobs, max_parallel_jobs, early_stopping, search_seed and ceiling go with
    it; the best LoRA goes on. gate: the highest held-out loss that passes: a LoRA above it fails the execution, with
    the reason. register: the model package group (sdxl-nb-...) that a LoRA becomes a version of; `registered_lora`
    fetches it.
    Raises ConfigError, DataError or AwsError before anything is started.
    """
    search, first = searched(config, space, job, ceiling), audited(audit)
    prepared = prepare(
        config,
        _job(job),
        pipeline_name=pipeline_name,
        bucket=bucket,
        region=region,
        cached=cached,
        after=Gate(gate, register),
        audit=first,
        search=search,
    )
    for note in prepared.notes:
        print(note)
    execution = prepared.start(parameters)
    if wait:
        execution.wait()
    return execution


def audited(audit: bool | str | None) -> Audit | None:
    """The Audit that is asked for: True, or a type of instance. Raises ConfigError."""
    if not isinstance(audit, (bool, str, type(None))):
        raise ConfigError(f"audit must be True, False or a type of instance, not {shown(audit)}")
    return (Audit() if audit is True else Audit(audit)) if audit else None


def searched(
    config: TrainConfig, space: Space | Mapping[str, Any] | None, options: dict[str, Any], ceiling: float | None
) -> Search | None:
    """The Search that is asked for; its plan is taken out of the other `options`. Raises ConfigError."""
    plan = {name: options.pop(name) for name in Plan.__dataclass_fields__ if name in options}
    if space is None and (plan or ceiling is not None):
        raise ConfigError(f"{next(iter(plan), 'ceiling')} is for a search: give a space too, or leave it out")
    check_ceiling(ceiling)
    return None if space is None else Search(Space.of(config, space), Plan(**plan), ceiling)


def _job(options: dict[str, Any]) -> Job:
    for name in options:
        if name not in Job.__dataclass_fields__:
            close = nearest(name, (*Job.__dataclass_fields__, *Plan.__dataclass_fields__))
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
    audit: Audit | None = None,
    search: Search | None = None,
) -> Prepared:
    """The pipeline of a configuration; nothing is sent. With `dry` unknown places are shown by their names.

    after: what follows training; audit: what comes before it; search: what is done in its place; by default nothing.
    """
    after = after or Gate()
    if not re.fullmatch(r"(?=.{1,256}$)[a-zA-Z0-9](-*[a-zA-Z0-9])*", pipeline_name):
        raise ConfigError(f"pipeline_name must be at most 256 letters, digits and hyphens, not {shown(pipeline_name)}")
    if search:
        search.refuse(config, job)
        config = config.replace(load_best_model_at_end=True)  # each training delivers what it is judged by
    staged = planned = staging.plan(config, UNKNOWN["bucket"])
    refuse(config, job, staged)  # what is wrong with the settings is said first
    after.refuse(config)
    session, notes = _session(region, dry), []
    price = search.price(job, session.region) if search else costs.ceiling(job, session.region)

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
        session.check_role(role)
    job = replace(job, role_arn=role, image_uri=image)
    staged, unsaid = looked(session, config, planned.moved(UNKNOWN["bucket"], place), dry)
    notes += [*unsaid, *([audit.price()] if audit else []), *starting.too_little(config, job, staged, search), price]
    made = _definition(session, config, job, staged, place, pipeline_name, cached, after, audit, search)
    return Prepared(session, pipeline_name, *made, job, staged, notes, config, place, cached, after.register, search)


def _session(region: str | None, dry: bool) -> Session:
    try:
        return Session(region)
    except AwsError as error:
        if not dry or error.code:
            raise
        return Session("us-east-1")


def _definition(
    session: Session,
    config: TrainConfig,
    job: Job,
    staged: staging.Staged,
    bucket: str,
    name: str,
    cached: bool,
    after: Gate,
    audit: Audit | None,
    search: Search | None,
) -> tuple[str, dict[str, str]]:
    """The pipeline's definition as JSON, and its parameters with their defaults."""
    output = f"s3://{bucket}/runs/{name}"
    checkpoints = checkpoint_place(bucket, name, config, staged, cached, search)
    asked = request(config, job, staged, output=output, checkpoints=checkpoints)
    shapes.refuse(asked, unknown=tuple(UNKNOWN.values()))
    before = [] if audit is None else [steps.AUDIT]
    with session.sdk():
        from sagemaker.mlops.workflow.pipeline import Pipeline

        asked, parameters = with_parameters(config, asked, search.space.parameters if search else ())
        more: dict[str, Any] = {"cached": cached, "after": before}
        if search:
            step = search.step(session, asked, config, **more)
        elif job.fallbacks or job.mlflow or job.retries is not None:  # which the SDK's own step leaves out
            step = steps.made(session, STEP, "TRAINING", asked, **more)
        else:
            trainer = model_trainer(session, asked, bucket, job.job_name)
            step = tuning_step(session, trainer, **more)
        first = [audit.step(session, asked, f"{output}/audit", job)] if audit else []
        pipeline = Pipeline(
            name=name,
            parameters=parameters,
            steps=[*first, step, *after.steps(session, step, config, asked)],
            sagemaker_session=session.sagemaker(bucket),
            pipeline_experiment_config=None,  # experiments would need more permissions, and TensorBoard has the curves
        )
        definition = pipeline.definition()
    return definition, {parameter.name: str(parameter.default_value) for parameter in parameters}
