"""The pictures that a delivered LoRA drew, laid open in S3 beside its model.tar.gz, where a browser shows them.

In: in the container, a run's configuration and folder. Out: OUTPUT/JOB/output/previews/ with one PNG for each prompt
and seed. A version in the model registry keeps its address as the metadata `pictures` (../pipelines/gate.py): of what
a version may have, nothing holds a picture itself, and its card holds texts and graphs alone. Whatever AWS refuses
here fails no job: the pictures are in model.tar.gz too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...config.layout import drawings
from ..messages import AwsError, explained
from .run_folder import delivered_step

if TYPE_CHECKING:
    from ...config.train_config import TrainConfig

FOLDER = "previews"
METADATA = "pictures"  # what a version of the registry calls their address
PATIENCE = {"connect_timeout": 5, "read_timeout": 20, "retries": {"total_max_attempts": 3}}  # a job ends behind it


def pictures(config: TrainConfig) -> list[Path]:
    """What the LoRA that is delivered drew, or the last that was drawn before it; none where nothing was drawn."""
    step, drawn = delivered_step(config), drawings(Path(config.output_dir))
    before = [path for at, path in drawn.items() if step is None or at <= step]
    return sorted(before[-1].glob("*.png")) if before else []


def lay_open(config: TrainConfig) -> None:
    """Send the pictures to S3, and print where they are; where that is not allowed, print that."""
    found, job = pictures(config), os.environ.get("TRAINING_JOB_NAME")
    if not found or job is None:
        return
    try:
        with explained("The pictures are in model.tar.gz alone, and not beside it"):
            place = _send(found, job)
    except AwsError as error:
        print(f"Note: {error}", flush=True)
    else:
        what = f"{len(found)} pictures of this LoRA are" if len(found) > 1 else "1 picture of this LoRA is"
        print(f"{found[0].parent.name}: {what} at {place}", flush=True)


def _send(found: list[Path], job: str) -> str:
    """Upload them to where the job's own results go, encrypted as those are; the prefix."""
    import boto3
    from botocore.config import Config

    quick, region = Config(**PATIENCE), os.environ.get("AWS_REGION")
    sagemaker, s3 = (boto3.client(service, region_name=region, config=quick) for service in ("sagemaker", "s3"))
    output = sagemaker.describe_training_job(TrainingJobName=job)["OutputDataConfig"]
    bucket, _, prefix = output["S3OutputPath"].removeprefix("s3://").partition("/")
    below = "/".join(part for part in (prefix.strip("/"), job, "output", FOLDER) if part)
    key = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": output["KmsKeyId"]} if output.get("KmsKeyId") else {}
    for path in found:
        kind = {"ContentType": "image/png", **key}
        s3.upload_file(str(path), bucket, f"{below}/{path.name}", ExtraArgs=kind)
    return f"s3://{bucket}/{below}/"
