"""python -m sdxl_nb.build_pipeline: train on Amazon SageMaker, as a pipeline.

    export AWS_REGION=us-east-1 BUCKET_NAME=your-s3-bucket
    python -m sdxl_nb.build_pipeline --dataset_name lambdalabs/naruto-blip-captions --validation_prompt "cute dragon"

In: the flags of sdxl_nb.train and those of the job; bucket, role and image come from flags, from the environment
(AWS_REGION, BUCKET_NAME, SDXL_NB_ROLE_ARN) or from the deployed stack. Out: the pipeline, created or updated, and
started. Without a seed it is 0, so that the same line is the same step, which SageMaker then need not run again.
Exit code: 0, 2 for a setting that cannot work, 1 for another error with a known reason.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .config.flags import Parser, read_flags, train_parser
from .config.train_config import TrainConfig
from .system.errors import ConfigError, SdxlNbError

PROG = "python -m sdxl_nb.build_pipeline"
TEXTS = {
    "instance_type": "Instances to train on. Default: ml.g5.2xlarge.",
    "role_arn": "Role of the training jobs; else SDXL_NB_ROLE_ARN, Studio's, the stack's, or the assumed role.",
    "image_uri": "Training image; else the newest in the stack's repository.",
    "kms_key": "KMS key for what the job writes.",
    "job_name": "What the job's name begins with. Default: sdxl-nb.",
    "hub_token_secret": "Name of the secret that holds the hub's token: sdxl-nb/hf-token, say.",
    "wandb_secret": "Name of the secret that holds the key of Weights & Biases.",
    "mlflow": "ARN of SageMaker's MLflow that gets the curves, with --report_to mlflow.",
}
NUMBERS = {
    "instance_count": "Instances. Default: 1.",
    "max_run": "Seconds of training at most; then it saves and ends. Default: 172800, two days.",
    "max_wait": "Seconds at most with the waiting for spot instances. Default: max_run and a day.",
    "max_pending": "Seconds that a job may wait for a GPU instance, 1800 at least. Default: without end.",
    "keep_alive": "Seconds that instances are kept, and paid, for the next job; not with spot. Default: none.",
    "volume_size_gb": "Disk in GB of instances that have none of their own. Default: 100.",
    "retries": "How often SageMaker starts the job again after a fault of its own. Default: never.",
}
LISTS = {
    "subnets": "Subnets of a VPC for the job.",
    "security_group_ids": "Its security groups.",
    "fallbacks": "Types to take, in this order, where instance_type is not to be had; with --no_spot.",
}
PLAN = {
    "strategy": "How to search: Bayesian, Hyperband, Random or Grid. Default: Bayesian.",
    "max_jobs": "Trainings of the search. Default: 10, or a grid's combinations.",
    "max_parallel_jobs": "Trainings at once. Default: 2.",
    "search_seed": "Seed of the search.",
}


def parser() -> Parser:
    """All flags of training, and those of the job and the pipeline."""
    made = train_parser(PROG, "Fine-tune a LoRA on SDXL as an Amazon SageMaker pipeline.")
    job = made.add_argument_group("SageMaker")
    for name, sentence in TEXTS.items():
        job.add_argument(f"--{name}", metavar="VALUE", default=argparse.SUPPRESS, help=sentence)
    for name, sentence in NUMBERS.items():
        job.add_argument(f"--{name}", metavar="N", type=_whole, default=argparse.SUPPRESS, help=sentence)
    for name, sentence in LISTS.items():
        job.add_argument(f"--{name}", metavar="ID", nargs="+", default=argparse.SUPPRESS, help=sentence)
    job.add_argument("--tags", metavar="KEY=VALUE", nargs="+", default=argparse.SUPPRESS, help="Tags of what is made.")
    job.add_argument("--spot", action="store_true", default=argparse.SUPPRESS, help="Spot instances: the default.")
    job.add_argument("--no_spot", dest="spot", action="store_false", help=argparse.SUPPRESS, default=argparse.SUPPRESS)
    job.add_argument("--bucket", metavar="NAME", help="Bucket for data and runs; else BUCKET_NAME or the stack's.")
    job.add_argument("--pipeline_name", metavar="NAME", default="sdxl-nb", help="Default: sdxl-nb.")
    job.add_argument("--audit", metavar="TYPE", nargs="?", const=True, help="Audit the pictures first: ml.m5.xlarge.")
    job.add_argument("--space", metavar="FILE", help="JSON of settings to search, in the place of one training.")
    for name, sentence in PLAN.items():
        kind = str if name == "strategy" else _whole
        job.add_argument(f"--{name}", metavar="VALUE", type=kind, default=argparse.SUPPRESS, help=sentence)
    job.add_argument("--ceiling", metavar="DOLLARS", type=float, help="What the search may cost at most.")
    job.add_argument("--gate", metavar="LOSS", type=float, help="Highest held-out loss that passes; above it fails.")
    job.add_argument("--register", metavar="GROUP", help="Model package group, sdxl-nb-..., to register the LoRA in.")
    job.add_argument("--no_cache", action="store_true", help="Train even if an equal step has ended well lately.")
    job.add_argument("--wait", action="store_true", help="Follow the pipeline until it is over.")
    job.add_argument("--dry_run", action="store_true", help="Print the pipeline's definition and send nothing.")
    return made


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text}")
    return int(text)


def read(argv: Sequence[str] | None) -> tuple[TrainConfig, argparse.Namespace]:
    """The configuration and the other flags; a seed that nobody gave is 0."""
    config, flags = read_flags(parser(), argv)
    if read_flags(parser(), argv)[0].seed != config.seed:  # drawn anew each time
        config = config.replace(seed=0)
    return config, flags


def job_options(flags: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of Job that were given."""
    given = {name: getattr(flags, name) for name in (*TEXTS, *NUMBERS, "spot") if hasattr(flags, name)}
    given |= {name: tuple(getattr(flags, name)) for name in LISTS if hasattr(flags, name)}
    for tag in getattr(flags, "tags", ()):
        key, equals, value = tag.partition("=")
        if not equals:
            raise ConfigError(f"tags are written KEY=VALUE, not {tag!r}")
        given.setdefault("tags", {})[key] = value
    return given


def read_space(path: str) -> dict[str, Any]:
    """The search space in a file of JSON. Raises ConfigError."""
    try:
        space = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"space {path} cannot be read as JSON: {error}") from error
    if not isinstance(space, dict):
        raise ConfigError(f'space {path} must map settings to values, such as {{"rank": [8, 16]}}')
    return space


def main(argv: Sequence[str] | None = None) -> int:
    """Build and start the pipeline; errors a user can mend are one sentence on stderr and never a traceback."""
    try:
        config, flags = read(argv)
        return _run(config, flags)
    except SdxlNbError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("Interrupted: what was started on AWS goes on.", file=sys.stderr)
        return 130


def _run(config: TrainConfig, flags: argparse.Namespace) -> int:
    from .aws.pipeline import audited, prepare, searched
    from .aws.pipelines.gate import Gate
    from .aws.tuning_step import Job

    job = Job(**job_options(flags))
    plan = {name: getattr(flags, name) for name in PLAN if hasattr(flags, name)}
    search = searched(config, None if flags.space is None else read_space(flags.space), plan, flags.ceiling)
    prepared = prepare(
        config,
        job,
        pipeline_name=flags.pipeline_name,
        bucket=flags.bucket,
        cached=not flags.no_cache,
        dry=flags.dry_run,
        after=Gate(flags.gate, flags.register),
        audit=audited(flags.audit),
        search=search,
    )
    for note in prepared.notes:
        print(note, file=sys.stderr)
    if flags.dry_run:
        print(prepared.definition)
        return 0
    execution = prepared.start()
    print(f"Pipeline {prepared.name} in {prepared.session.region} has started: {execution.arn}")
    if flags.wait and execution.wait() != "Succeeded":
        reason = (execution.failure or "it was stopped.").splitlines()[0]  # what follows is a traceback
        raise SdxlNbError(f"The pipeline did not succeed: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
