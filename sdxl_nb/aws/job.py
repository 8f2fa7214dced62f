"""Training on SageMaker: the same configuration, one call, and a Run that looks like a local one.

    run = launch_sagemaker(config, instance_type="ml.g5.2xlarge")   # says first what it costs at most
    run.wait(); run.lora; run.cost

In: a TrainConfig and what the job runs on. Out: a JobRun, whose folder is a copy of the run folder that SageMaker
keeps in S3 while it trains: events, pictures, logs and the LoRA appear in it. Opened again with
Run.open("job name"), Run.open("s3://bucket/runs/JOB") or by its folder. Nothing here stops a job unless asked to.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..config.train_config import TrainConfig
from ..system.errors import ConfigError, SdxlNbError
from . import costs, shapes, staging, tuning_step
from .job_run import MARKER, JobRun, first_job, newest_job
from .messages import NO_JOB, AwsError, explained
from .mirror import Mirror
from .session import Session

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def launch_sagemaker(
    config: TrainConfig,
    *,
    instance_type: str = "ml.g5.2xlarge",
    instance_count: int = 1,
    spot: bool = True,
    max_run: int = 48 * tuning_step.HOUR,
    max_wait: int | None = None,
    role_arn: str | None = None,
    image_uri: str | None = None,
    bucket: str | None = None,
    region: str | None = None,
    kms_key: str | None = None,
    subnets: Sequence[str] = (),
    security_group_ids: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    job_name: str = "sdxl-nb",
    hub_token_secret: str | None = None,
    wandb_secret: str | None = None,
    volume_size_gb: int = 100,
    retries: int | None = None,
    max_pending: int | None = None,
    keep_alive: int | None = None,
    fallbacks: Sequence[str] = (),
    mlflow: str | None = None,
    agreed: bool = True,
) -> JobRun:
    """Train as `config` says in a SageMaker job; says what it costs at most, starts it and returns its JobRun.

    max_run, max_wait: seconds of training, and of training and waiting for spot instances together. Role, image and
    bucket are those of the deployed stack where they are not given. Local pictures and models are uploaded once and
    for all; an s3:// place is read from there. The results come to `config.output_dir`. hub_token_secret and
    wandb_secret name secrets in Secrets Manager. retries: new starts after a fault of the service's own; max_pending:
    seconds to wait for a GPU instance; keep_alive: seconds that instances stay, paid, for a next job. fallbacks: types
    that are taken, in this order, where `instance_type` is not to be had, on demand (spot=False); the price said is
    that of the dearest, the cost of a run that of the one it got. mlflow: the ARN of an MLflow App or tracking server
    of SageMaker, for report_to mlflow (or all); the experiment is MLFLOW_EXPERIMENT_NAME, else sdxl_nb, the MLflow run
    is called as the job. With agreed=False
    all is checked, and in place of the start the price is raised as an SdxlNbError. Raises ConfigError, DataError or
    AwsError before anything is paid.
    """
    asked = tuning_step.Job(
        instance_type, instance_count, spot, max_run, max_wait, role_arn, image_uri, kms_key, tuple(subnets or ()),
        tuple(security_group_ids or ()), dict(tags or {}), job_name, hub_token_secret, wandb_secret, volume_size_gb,
        retries, max_pending, keep_alive, fallbacks if isinstance(fallbacks, str) else tuple(fallbacks),  # type: ignore[arg-type]
        mlflow,
    )  # fmt: skip
    folder = _free_folder(config)
    planned = staging.plan(config, tuning_step.UNKNOWN_BUCKET)
    tuning_step.refuse(config, asked, planned)
    session = Session(region)
    bucket = session.bucket(bucket)
    role, image = session.role(role_arn), session.image(image_uri)
    job = replace(asked, role_arn=role, image_uri=image)
    session.check_bucket(bucket)
    session.check_image(image)
    session.check_role(role)
    name = unique_name(job_name)
    prefix = f"s3://{bucket}/runs/{name}"
    staged, notes = staging.look(session, config, planned.moved(tuning_step.UNKNOWN_BUCKET, bucket))
    request = tuning_step.request(config, job, staged, output=f"{prefix}/output", checkpoints=f"{prefix}/checkpoints")
    if job.mlflow:
        request["MlflowConfig"]["MlflowRunName"] = name
    shapes.refuse(request | {"TrainingJobName": name})
    said = [costs.ceiling(job, session.region), *costs.too_little(config, job, staged), *notes]
    if not agreed:
        raise SdxlNbError(f"Nothing was started. {' '.join(said)} With agreed=True it is started.")
    for note in said:
        print(note)
    if sent := staging.upload(session, staged, kms_key):
        print(f"Uploaded {sent} files.")
    return JobRun.start(session, name, request, folder)


def _free_folder(config: TrainConfig) -> Path:
    """output_dir, where the results go, unless something is there already. Raises ConfigError."""
    folder = Path(config.output_dir)
    taken = next((name for name in (MARKER, "run.json", "process.json") if (folder / name).exists()), None)
    if taken:
        raise ConfigError(f"output_dir {folder} already holds a run: choose another folder for this one")
    return folder


def unique_name(base: str) -> str:
    """A job's name: sdxl-nb first, as the role's permissions ask, then the time, and letters against a second one."""
    base = base if base.startswith("sdxl-nb") else f"sdxl-nb-{base}"
    return f"{base}-{time.strftime('%y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def open_run(place: str, folder: Path | None = None) -> JobRun:
    """The run of a job by its name, its ARN or any s3:// prefix of its own. Raises AwsError when there is none.

    Its files come to `folder`, by default runs/JOB below the working directory.
    """
    name, region = place, None
    if place.startswith("arn:"):
        region, name = place.split(":")[3], place.rpartition("/")[2]
    session = Session(region)
    if place.startswith("s3://"):
        name = job_of(session, place)
    run = JobRun(folder or Path("runs") / first_job(name), name, session)
    run.describe()
    run.remember()
    return run


def job_of(session: Session, url: str) -> str:
    """The job whose files lie at an s3:// prefix: its results, or its checkpoints. Raises AwsError."""
    parts = url.removeprefix("s3://").strip("/").split("/")
    for part in reversed(parts[1:]):
        if NAME.fullmatch(part) and part not in ("runs", "checkpoints", "output") and _exists(session, part):
            return newest_job(session, part)
    for depth in (len(parts), len(parts) - 1):  # a folder of checkpoints, or one run in it
        if depth > 1 and (job := _noted(session, parts[0], "/".join(parts[1:depth]), parts[depth:])):
            return job
    raise AwsError(f"{url} is not the prefix of a run: give s3://BUCKET/runs/JOB, or the job's name.")


def _exists(session: Session, name: str) -> bool:
    try:
        with explained():
            session.client("sagemaker").describe_training_job(TrainingJobName=name)
    except AwsError as error:
        if error.code in NO_JOB:
            return False
        raise
    return True


def _noted(session: Session, bucket: str, prefix: str, run: list[str]) -> str | None:
    """The job that noted last that it writes in a folder of checkpoints, or a run of it."""
    place = Mirror(session, f"s3://{bucket}/{prefix}", Path())
    with contextlib.suppress(AwsError):
        noted = [name for name in place.newest("job-") if not run or (place.read(name) or {}).get("run") == run[0]]
        return noted[0].removeprefix("job-").removesuffix(".json") if noted else None
    return None
