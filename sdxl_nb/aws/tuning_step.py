"""The fine-tuning job: what SageMaker is asked to run, the same for one job and for a pipeline's step.

In: a TrainConfig and a Job (instance, spot, limits, role, image, network, tags, secrets). Out: the arguments of
CreateTrainingJob (`request`), and for pipelines a ModelTrainer and its TrainingStep. The image is our own and there is
no `source_code`: SageMaker runs `IMAGE train`, and a definition is the same whenever it is made. What the service
would refuse is refused here, in one sentence, before anything is sent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config import mlflow_store
from ..config.formats import MAX_HYPERPARAMETER_LENGTH, MAX_HYPERPARAMETERS
from ..config.train_config import TrainConfig
from ..system.errors import ConfigError
from . import shapes, staging
from .identity import content
from .session import Session
from .staging import Staged

HOUR = 3600
UNKNOWN_BUCKET = "BUCKET_NAME"  # in the place of one that is not known yet
ANY_ROLE = "arn:aws:iam::111122223333:role/SDXL_NB_ROLE_ARN"
ANY_IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/sdxl-nb/training"
NUMBERS = (("instance_count", 1, 64), ("max_run", 60, 28 * 24 * HOUR), ("volume_size_gb", 1, 16384))
MOST_TYPES = 5  # that a job may prefer, by the service
PERHAPS = (("retries", 1, 30), ("max_pending", 1800, 28 * 24 * HOUR), ("keep_alive", 1, 21600))  # by the service
STEP = "FineTune"
EXPIRES = "P30D"  # how long an equal step that ended well is found again
NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"
METRICS = {  # of the line that the container prints for each step: step=3 train_loss=0.0512 lr=0.0001 seconds=0.8
    "train_loss": rf"train_loss={NUMBER}",
    "lr": rf" lr={NUMBER}",
    "seconds_per_step": rf" seconds={NUMBER}",
    "heldout_loss": rf"heldout_loss={NUMBER}",
}
HUB_SECRET, WANDB_SECRET = "SDXL_NB_HUB_TOKEN_SECRET", "SDXL_NB_WANDB_SECRET"  # names of secrets, never their values
TOKEN = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,}|sk-[\w-]{20,})")
OWN = (
    "cache_dir",
    "latents_cache_dir",
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
)  # the container's to say
WORDS = {
    "instance_type": (r"ml\.[a-z0-9-]+\.[a-z0-9]+", "an instance type such as ml.g5.2xlarge"),
    "role_arn": (r"arn:aws[a-z-]*:iam::\d{12}:role/\S+", "the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME"),
    "job_name": (r"(?=.{1,32}$)[a-zA-Z0-9](-?[a-zA-Z0-9])*", "at most 32 letters, digits and single hyphens"),
    "mlflow": (
        r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:mlflow-(app|tracking-server)/[\w-]+",
        "the ARN of an MLflow App or tracking server, arn:aws:sagemaker:REGION:ACCOUNT:mlflow-app/NAME",
    ),
    "hub_token_secret": (r"sdxl-nb/[\w/+=.@-]+", "the name of a secret under sdxl-nb/, not a token"),
    "wandb_secret": (r"sdxl-nb/[\w/+=.@-]+", "the name of a secret under sdxl-nb/, not a key"),
}


@dataclass(frozen=True)
class Job:
    """What a job runs on, and under what limits. Raises ConfigError, which names the flag."""

    instance_type: str = "ml.g5.2xlarge"
    instance_count: int = 1
    spot: bool = True
    max_run: int = 48 * HOUR  # seconds of training; a job that reaches them saves and ends
    max_wait: int | None = None  # seconds with the waiting for spot; null is max_run and a day
    role_arn: str | None = None
    image_uri: str | None = None
    kms_key: str | None = None
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    job_name: str = "sdxl-nb"
    hub_token_secret: str | None = None
    wandb_secret: str | None = None
    volume_size_gb: int = 100  # for instances without a disk of their own
    retries: int | None = None  # how often the service starts it again after a fault of its own
    max_pending: int | None = None  # seconds that it may wait for a GPU instance, before it is given up
    keep_alive: int | None = None  # seconds that instances are kept, and paid, for the next job with the same settings
    fallbacks: tuple[str, ...] = ()  # types that it takes, in this order, where instance_type is not to be had
    mlflow: str | None = None  # the ARN of SageMaker's MLflow that gets the curves and pictures

    def __post_init__(self) -> None:
        self._check_kinds()
        for name, (pattern, words) in WORDS.items():
            value = getattr(self, name)
            if value is not None and not re.fullmatch(pattern, value):
                shown = "" if name.endswith("secret") else f", not {value!r}"
                raise ConfigError(f"{name} must be {words}{shown}")
        for name, least, most in NUMBERS:
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name} must be {least} to {most}, not {getattr(self, name)}")
        for name, least, most in PERHAPS:
            if (value := getattr(self, name)) is not None and not least <= value <= most:
                raise ConfigError(f"{name} must be {least} to {most}, not {value}")
        self._check_fallbacks()
        if self.keep_alive is not None and self.spot:
            raise ConfigError("keep_alive is not for spot instances, which nobody can keep: add --no_spot, or drop it")
        if not self.spot and self.max_wait is not None:
            raise ConfigError("max_wait is for spot instances: leave it out with --no_spot")
        if self.waiting < self.max_run:
            raise ConfigError(
                f"max_wait {self.max_wait} is less than max_run {self.max_run}: raise it, or leave it out"
            )
        if bool(self.subnets) != bool(self.security_group_ids):
            raise ConfigError("subnets and security_group_ids go together: give both or neither")
        for key, value in self.tags.items():
            if not re.fullmatch(r"[\w .:/=+@-]{1,128}", key) or not re.fullmatch(r"[\w .:/=+@-]{0,256}", value):
                raise ConfigError(
                    f"tags holds {key}={value}, which AWS does not take: letters, digits and _.:/=+-@ only"
                )

    def _check_fallbacks(self) -> None:
        pattern, _ = WORDS["instance_type"]
        if other := next((name for name in self.fallbacks if not re.fullmatch(pattern, name)), None):
            raise ConfigError(f"fallbacks must be instance types such as ml.g5.2xlarge, not {other!r}")
        if twice := next((name for name in self.types if self.types.count(name) > 1), None):
            raise ConfigError(f"fallbacks and instance_type hold {twice} twice: leave one out")
        if len(self.types) > MOST_TYPES:
            raise ConfigError(
                f"fallbacks and instance_type are {len(self.types)} types, and SageMaker takes {MOST_TYPES} at most: "
                "leave some out"
            )
        if self.fallbacks and self.spot:
            raise ConfigError(
                "fallbacks are not for spot instances, by the service: set spot=False, or give instance_type alone"
            )

    def _check_kinds(self) -> None:
        """True is a whole number to Python, and a text that stands where a list belongs is a list of letters."""
        perhaps = ("max_wait", *(name for name, _, _ in PERHAPS))
        whole = [name for name, _, _ in NUMBERS] + [name for name in perhaps if getattr(self, name) is not None]
        kinds: dict[str, tuple[Any, str]] = {"spot": (bool, "True or False")}
        kinds |= dict.fromkeys(whole, (int, "a whole number"))
        kinds |= {name: (str, "a text") for name in (*WORDS, "image_uri", "kms_key") if getattr(self, name) is not None}
        kinds |= dict.fromkeys(("subnets", "security_group_ids"), ((tuple, list), "a list of ids"))
        kinds |= {"fallbacks": ((tuple, list), "a list of instance types")}
        kinds |= {"tags": (dict, "keys and values")}
        for name, (kind, words) in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise ConfigError(f"{name} must be {words}, not {value!r}")
        if other := next((name for name in self.fallbacks if not isinstance(name, str)), None):
            raise ConfigError(f"fallbacks hold instance types, not {other!r}")
        texts = (*self.subnets, *self.security_group_ids, *self.tags, *self.tags.values())
        if other := next((value for value in texts if not isinstance(value, str)), None):
            raise ConfigError(f"subnets, security_group_ids and tags hold texts, not {other!r}")

    @property
    def types(self) -> tuple[str, ...]:
        """The instance types that it may run on, the preferred one first."""
        return (self.instance_type, *self.fallbacks)

    @property
    def waiting(self) -> int:
        """Seconds after which SageMaker gives up, the waiting for spot instances counted in."""
        return self.max_run + 24 * HOUR if self.spot and self.max_wait is None else self.max_wait or self.max_run


def hyperparameters(config: TrainConfig, staged: Staged) -> dict[str, str]:
    """The settings that differ from the defaults, with the job's paths. Raises ConfigError for what is too much.

    What is this machine's own (output_dir, caches, resume) stays here: the container has its own places. The service
    takes 100 texts of one line, of 2,500 characters at most.
    """
    values = {name: value for name, value in config.essentials().items() if name not in OWN}
    values |= staged.paths | {"output_name": re.sub(r"[\x00-\x1f\x7f-\x9f\\]", "-", config.lora_name())}
    if "train_data_dir" in staged.paths:
        values.pop("dataset_name", None)
    if mapping := values.pop("dataset_name_mapping", None):
        values["dataset_name_mapping"] = _mapped(mapping, config.dataset_name, staged)
    if len(values) > MAX_HYPERPARAMETERS:
        raise ConfigError(
            f"SageMaker takes {MAX_HYPERPARAMETERS} settings and {len(values)} differ from the defaults: leave some out"
        )
    texts = {name: as_text(value) for name, value in values.items()}
    for name, text in texts.items():
        if TOKEN.search(text):
            raise ConfigError(f"{name} holds what looks like a token, which whoever sees the job would see: remove it")
        if len(text) > MAX_HYPERPARAMETER_LENGTH:
            raise ConfigError(
                f"{name} takes {len(text)} characters as a SageMaker hyperparameter, more than "
                f"{MAX_HYPERPARAMETER_LENGTH}: shorten it"
            )
    return texts


def _mapped(mapping: dict[str, Any], name: str | None, staged: Staged) -> dict[str, Any]:
    """The columns of data sets, this job's by its path there; those of other folders of this machine stay here."""
    kept = {key: value for key, value in mapping.items() if key == name or not key.startswith(staging.PATHS)}
    return {staged.paths.get("dataset_name", key) if key == name else key: value for key, value in kept.items()}


def as_text(value: Any) -> str:
    """A setting as TrainConfig.from_hyperparameters reads it: a text as it is where that is safe, else JSON."""
    # one text NAME=VALUE NAME=VALUE would be read as several of optimizer_args
    single = value[0] if isinstance(value, list) and len(value) == 1 and "=" not in str(value[0]) else value
    if isinstance(single, str) and single.isprintable() and single == single.strip():
        try:
            json.loads(single)
        except (ValueError, RecursionError):
            return single
    return json.dumps(value)


def environment(job: Job, staged: Staged) -> dict[str, str]:
    """The job's environment: names of secrets, the hub's address where it is not the usual one, what was staged.

    The last is what makes other pictures under the same prefix another job for SageMaker's cache, and what the
    container compares with what came.
    """
    found = {HUB_SECRET: job.hub_token_secret, WANDB_SECRET: job.wandb_secret, "HF_ENDPOINT": os.getenv("HF_ENDPOINT")}
    found[content.VARIABLE] = staged.told()
    if job.mlflow:
        found |= {mlflow_store.URI: job.mlflow, mlflow_store.EXPERIMENT: os.getenv(mlflow_store.EXPERIMENT)}
    if "@" in (found["HF_ENDPOINT"] or ""):
        raise ConfigError("HF_ENDPOINT holds a password, which every reader of the job would see: set it without")
    return {name: value for name, value in found.items() if value}


def request(config: TrainConfig, job: Job, staged: Staged, *, output: str, checkpoints: str) -> dict[str, Any]:
    """The arguments of CreateTrainingJob but for TrainingJobName; `job` must name its role and image.

    output, checkpoints: s3:// prefixes for model.tar.gz and for the run folder, synced while it trains.
    """
    vpc = {"Subnets": list(job.subnets), "SecurityGroupIds": list(job.security_group_ids)}
    own = {} if "project" in map(str.lower, job.tags) else {"project": "sdxl-nb"}
    tags = own | job.tags
    metrics = [{"Name": name, "Regex": pattern} for name, pattern in METRICS.items()]
    channels = [_channel(name, url) for name, url in staged.channels.items()]
    return {
        "AlgorithmSpecification": {
            "TrainingImage": job.image_uri,
            "TrainingInputMode": "File",
            "MetricDefinitions": metrics,
        },
        "RoleArn": job.role_arn,
        "HyperParameters": hyperparameters(config, staged),
        "Environment": environment(job, staged),
        "OutputDataConfig": {"S3OutputPath": output} | ({"KmsKeyId": job.kms_key} if job.kms_key else {}),
        "CheckpointConfig": {"S3Uri": checkpoints},
        **machines(job),
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
        **({"InputDataConfig": channels} if channels else {}),  # the service takes one or more
        **({"VpcConfig": vpc} if job.subnets else {}),
        **({"MlflowConfig": _mlflow(job.mlflow, job.job_name)} if job.mlflow else {}),
        **({"RetryStrategy": {"MaximumRetryAttempts": job.retries}} if job.retries else {}),
    }


def refuse(config: TrainConfig, job: Job, staged: Staged) -> None:
    """Raise ConfigError for what the service would refuse, before anybody is asked where bucket, role and image are."""
    if job.mlflow and config.report_to not in ("mlflow", "all"):
        raise ConfigError(f"mlflow is for report_to mlflow or all, not {config.report_to}: set report_to to mlflow")
    known = replace(job, role_arn=job.role_arn or ANY_ROLE, image_uri=job.image_uri or ANY_IMAGE)
    asked = request(config, known, staged, output="s3://some-bucket", checkpoints="s3://some-bucket")
    shapes.refuse(asked, unknown=(UNKNOWN_BUCKET, "IMAGE_URI"))


def machines(job: Job) -> dict[str, Any]:
    """The members of a request about instances and times: one type, or the first to be had of several in order."""
    kinds = [{"InstanceType": name} for name in job.types]
    resources: dict[str, Any] = {"InstancePreferences": kinds} if job.fallbacks else kinds[0]
    resources |= {"InstanceCount": job.instance_count, "VolumeSizeInGB": job.volume_size_gb}
    if job.kms_key and not any(map(shapes.has_own_disk, job.types)):  # an instance's own disks have their own keys
        resources["VolumeKmsKeyId"] = job.kms_key
    if job.keep_alive is not None:
        resources["KeepAlivePeriodInSeconds"] = job.keep_alive
    stopping = {"MaxRuntimeInSeconds": job.max_run} | ({"MaxWaitTimeInSeconds": job.waiting} if job.spot else {})
    if job.max_pending is not None:
        stopping["MaxPendingTimeInSeconds"] = job.max_pending
    spot = {} if job.fallbacks else {"EnableManagedSpotTraining": job.spot}  # the service takes one or the other
    return {"ResourceConfig": resources, "StoppingCondition": stopping, **spot}


def _mlflow(arn: str, run: str) -> dict[str, str]:
    """The service's own note of where a job's MLflow run is. The tracker in the container goes by its environment.

    SageMaker's documentation does not say what else the service does with this for a job with an image of one's own.
    """
    experiment = os.environ.get(mlflow_store.EXPERIMENT, mlflow_store.PROJECT)
    return {"MlflowResourceArn": arn, "MlflowExperimentName": experiment, "MlflowRunName": run}


def _channel(name: str, url: Any) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": url, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def model_trainer(session: Session, asked: dict[str, Any], bucket: str, job_name: str = "sdxl-nb") -> Any:
    """The ModelTrainer of SageMaker's SDK for a `request`, whose values may be pipeline parameters."""
    with session.sdk():
        from sagemaker.core.training import configs
        from sagemaker.train import ModelTrainer

        resource, stopping = asked["ResourceConfig"], asked["StoppingCondition"]
        compute = configs.Compute(
            instance_type=resource["InstanceType"],
            instance_count=resource["InstanceCount"],
            volume_size_in_gb=resource["VolumeSizeInGB"],
            volume_kms_key_id=resource.get("VolumeKmsKeyId"),
            keep_alive_period_in_seconds=resource.get("KeepAlivePeriodInSeconds"),
            enable_managed_spot_training=asked["EnableManagedSpotTraining"],
        )
        limits = configs.StoppingCondition(
            max_runtime_in_seconds=stopping["MaxRuntimeInSeconds"],
            max_wait_time_in_seconds=stopping.get("MaxWaitTimeInSeconds"),
            max_pending_time_in_seconds=stopping.get("MaxPendingTimeInSeconds"),
        )
        output = asked["OutputDataConfig"]
        trainer = ModelTrainer(
            sagemaker_session=session.sagemaker(bucket),
            role=asked["RoleArn"],
            base_job_name=job_name,
            training_image=asked["AlgorithmSpecification"]["TrainingImage"],
            compute=compute,
            stopping_condition=limits,
            output_data_config=configs.OutputDataConfig(
                s3_output_path=output["S3OutputPath"], kms_key_id=output.get("KmsKeyId")
            ),
            checkpoint_config=configs.CheckpointConfig(s3_uri=asked["CheckpointConfig"]["S3Uri"]),
            networking=_networking(configs, asked.get("VpcConfig")),
            input_data_config=[_input_data(configs, channel) for channel in asked.get("InputDataConfig", [])],
            hyperparameters=asked["HyperParameters"],
            environment=asked["Environment"],
            tags=[configs.Tag(key=tag["Key"], value=tag["Value"]) for tag in asked["Tags"]],
        )
        metrics = asked["AlgorithmSpecification"]["MetricDefinitions"]
        return trainer.with_metric_definitions(
            [configs.MetricDefinition(name=metric["Name"], regex=metric["Regex"]) for metric in metrics]
        )


def _networking(configs: Any, vpc: dict[str, Any] | None) -> Any:
    return vpc and configs.Networking(subnets=vpc["Subnets"], security_group_ids=vpc["SecurityGroupIds"])


def _input_data(configs: Any, channel: dict[str, Any]) -> Any:
    return configs.InputData(
        channel_name=channel["ChannelName"], data_source=channel["DataSource"]["S3DataSource"]["S3Uri"]
    )


def tuning_step(session: Session, trainer: Any, *, cached: bool = True, after: Sequence[str] = ()) -> Any:
    """The TrainingStep of a ModelTrainer; an equal one that ended well in the last 30 days is not run again.

    after: names of steps that must have ended well before.
    """
    with session.sdk():
        from sagemaker.mlops.workflow.steps import CacheConfig, TrainingStep

        caching = CacheConfig(enable_caching=True, expire_after=EXPIRES) if cached else None
        return TrainingStep(name=STEP, step_args=trainer.train(), cache_config=caching, depends_on=list(after) or None)
