"""What the service refuses, refused here: a request held against the service's own model, which botocore brings along.

In: the arguments of CreateTrainingJob. Out: a ConfigError with one sentence that names the flag, or nothing. botocore
itself looks at types and least values alone; lengths, patterns, enumerations and counts go out as they are, and come
back after the upload. What no model says (tags that begin with aws:, keys for disks that take none) is here too.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..config.messages import nearest, shown
from ..system.errors import ConfigError
from .messages import explained

FLAGS = {  # a place in the request: the setting that it comes from
    "TrainingJobName": "job_name",
    "AlgorithmSpecification.TrainingImage": "image_uri",
    "RoleArn": "role_arn",
    "ResourceConfig.InstanceType": "instance_type",
    "ResourceConfig.InstancePreferences": "fallbacks",
    "ResourceConfig.InstanceCount": "instance_count",
    "ResourceConfig.VolumeSizeInGB": "volume_size_gb",
    "ResourceConfig.VolumeKmsKeyId": "kms_key",
    "OutputDataConfig.KmsKeyId": "kms_key",
    "OutputDataConfig.S3OutputPath": "the place for results",
    "CheckpointConfig.S3Uri": "the place for checkpoints",
    "StoppingCondition.MaxRuntimeInSeconds": "max_run",
    "StoppingCondition.MaxWaitTimeInSeconds": "max_wait",
    "StoppingCondition.MaxPendingTimeInSeconds": "max_pending",
    "ResourceConfig.KeepAlivePeriodInSeconds": "keep_alive",
    "RetryStrategy.MaximumRetryAttempts": "retries",
    "MlflowConfig.MlflowResourceArn": "mlflow",
    "MlflowConfig.MlflowExperimentName": "MLFLOW_EXPERIMENT_NAME",
    "EnableManagedSpotTraining": "spot",
    "VpcConfig.Subnets": "subnets",
    "VpcConfig.SecurityGroupIds": "security_group_ids",
    "Tags": "tags",
}
WORDS = {  # what a setting must look like, to people
    "image_uri": "an image in ECR, ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG",
    "role_arn": "the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME",
    "kms_key": "a key's id, ARN or alias/NAME",
    "subnets": "ids such as subnet-0123456789abcdef0",
    "security_group_ids": "ids such as sg-0123456789abcdef0",
    "tags": "letters, digits, spaces and _.:/=+-@",
    "job_name": "letters, digits and single hyphens",
}
NUMBERS: dict[str, Any] = {"integer": int, "long": int, "float": (int, float), "double": (int, float)}
SPACES = " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CLASSES = {r"\p{L}": r"\w", r"\p{N}": "", r"\p{Z}": SPACES, r"\p{Alnum}": "a-zA-Z0-9"}  # \w is letters, digits and _
LINES = "\n\r\u0085\u2028\u2029"  # which the service's dot does not match
IMAGE = re.compile(  # in every partition of AWS
    r"\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.[a-z0-9.-]+/"
    r"[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?"
)
BUCKET = re.compile(r"(?!.*(\.\.|\.-|-\.))(?!(\d+\.){3}\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|arn:aws[a-z-]*:s3.*")
MISSING = "must be given"
MOST_SECONDS = 28 * 24 * 3600


class Fault(NamedTuple):
    """What is wrong at a place of the request: `limit` is the rest of a sentence that begins with the place."""

    place: str
    limit: str


def refuse(request: Mapping[str, Any], *, unknown: tuple[str, ...] = ()) -> None:
    """Raise ConfigError for the first thing that the service would refuse; `unknown` texts stand for what is not known.

    Values of pipelines that are no texts or numbers yet are passed over; a pipeline's job is named by the service.
    """
    request = {"TrainingJobName": "pipelines-0"} | dict(request)
    for look in (partial(faults, request), partial(beyond, request, unknown)):  # the second takes a whole request
        if fault := next(look(), None):
            raise ConfigError(f"{_name(fault, request)} {fault.limit}")


def faults(request: Mapping[str, Any], operation: str = "CreateTrainingJob") -> Iterator[Fault]:
    """What the model forbids in a request, in the order of the request."""
    yield from _check(request, _shape(operation), "")


@functools.cache
def _shape(operation: str) -> Any:
    with explained():
        import botocore.session

        return botocore.session.Session().get_service_model("sagemaker").operation_model(operation).input_shape


def instance_types() -> list[str]:
    """Every type that the service trains on."""
    return list(_shape("CreateTrainingJob").members["ResourceConfig"].members["InstanceType"].enum)


def has_own_disk(instance_type: str) -> bool:
    """Whether an instance keeps its data on disks of its own, whose keys are their own: no volume, no key for it."""
    family = instance_type.removeprefix("ml.").split(".")[0]
    return "d" in family or family.startswith(("g5", "g6", "g7", "p5", "p6", "trn"))


# The model


def _check(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if hasattr(value, "expr"):  # a pipeline's parameter
        return
    kind = shape.type_name
    yield from {"structure": _structure, "list": _list, "map": _map, "string": _string, "boolean": _boolean}.get(
        kind, _number if kind in NUMBERS else _anything
    )(value, shape, place)


def _anything(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    yield from ()


def _structure(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if not isinstance(value, Mapping):
        yield Fault(place, f"must be a set of names and values, not {shown(value)}")
        return
    for name in shape.required_members:
        if name not in value:
            yield Fault(_join(place, name), MISSING)
    for name, item in value.items():
        if name in shape.members:
            yield from _check(item, shape.members[name], _join(place, name))
        else:
            close = nearest(name, shape.members)
            yield Fault(_join(place, name), "is not known to SageMaker" + (f": did you mean {close}?" if close else ""))


def _list(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if not isinstance(value, (list, tuple)):
        yield Fault(place, f"must be a list, not {shown(value)}")
        return
    yield from _counted(len(value), shape, place, "")
    for number, item in enumerate(value):
        yield from _check(item, shape.member, f"{place}[{number}]")


def _map(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if not isinstance(value, Mapping):
        yield Fault(place, f"must be a set of names and values, not {shown(value)}")
        return
    yield from _counted(len(value), shape, place, "")
    for name, item in value.items():
        for fault in _check(name, shape.key, _join(place, str(name))):
            yield Fault(fault.place, f"cannot be called so: its name {fault.limit}")
        yield from _check(item, shape.value, _join(place, str(name)))


def _counted(count: int, shape: Any, place: str, unit: str) -> Iterator[Fault]:
    """Lengths of texts and lists."""
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", math.inf)
    if count > most:
        yield Fault(place, f"takes {most}{unit} at most, not {count}")
    if count < least:
        yield Fault(place, f"takes {least}{unit} at least, not {count}")


def _string(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault(place, f"must be a text, not {shown(value)}")
    elif shape.enum:
        if value not in shape.enum:
            yield Fault(place, _of_enum(value, list(shape.enum)))
    else:
        yield from _counted(len(value), shape, place, " characters")
        if not _matches(shape.metadata.get("pattern"), value):
            yield Fault(place, _of_pattern(place, shape.metadata["pattern"], value))


def _of_enum(value: str, known: list[str]) -> str:
    close = _near(value, known) or nearest(value, known)
    advice = f"did you mean {close}?" if close else f"there are {', '.join(known[:6])}" + " ..." * (len(known) > 6)
    return f"must be one that SageMaker knows, not {value!r}: {advice}"


def _near(value: str, known: list[str]) -> str:
    """Of an instance type's own family the one whose size is next."""
    family, _, size = value.rpartition(".")
    sizes = {name: _size(name.rpartition(".")[2]) for name in known if name.rpartition(".")[0] == family and family}
    wanted = _size(size)
    return min(sizes, key=lambda name: (abs(sizes[name] - wanted), name)) if sizes and wanted else ""


def _size(text: str) -> int:
    """4 for 4xlarge, 1 for xlarge; 0 for what is no such size."""
    found = re.fullmatch(r"(\d*)xlarge", text)
    return int(found[1] or 1) if found else 0


def _of_pattern(place: str, pattern: str, value: str) -> str:
    words = WORDS.get(FLAGS.get(re.sub(r"\[\d+\].*", "", place), ""))
    return f"must be {words or f'made as SageMaker asks ({pattern})'}, not {shown(value)}"


def _matches(pattern: str | None, value: str) -> bool:
    if pattern is None:
        return True
    if pattern in (".*", ".+"):
        return not any(mark in value for mark in LINES)
    return bool(_compiled(pattern).fullmatch(value))


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of the model, which is Java's, as Python writes it."""
    for theirs, ours in CLASSES.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(pattern)


def _boolean(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if not isinstance(value, bool):
        yield Fault(place, f"must be true or false, not {shown(value)}")


def _number(value: Any, shape: Any, place: str) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, NUMBERS[shape.type_name]) or not math.isfinite(value):
        yield Fault(place, f"must be a whole number, not {shown(value)}")
        return
    least, most = shape.metadata.get("min", -math.inf), shape.metadata.get("max", math.inf)
    if not least <= value <= most:
        yield Fault(place, f"must be at least {least}, not {value}" if value < least else f"takes {most} at most")


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


# Beyond the model


def beyond(request: Mapping[str, Any], unknown: tuple[str, ...] = ()) -> Iterator[Fault]:
    """What the service refuses although its model allows it."""
    yield from _tags(request.get("Tags", ()))
    yield from _resources(request.get("ResourceConfig", {}))
    yield from _preferences(request)
    yield from _times(request)
    image = request.get("AlgorithmSpecification", {}).get("TrainingImage", "")
    if image not in unknown and not IMAGE.fullmatch(image):
        yield Fault("AlgorithmSpecification.TrainingImage", f"must be {WORDS['image_uri']}, not {shown(image)}")
    for flag, start in (("Subnets", "subnet-"), ("SecurityGroupIds", "sg-")):
        for value in request.get("VpcConfig", {}).get(flag, ()):
            if not value.startswith(start):
                yield Fault(f"VpcConfig.{flag}", f"must be {WORDS[FLAGS[f'VpcConfig.{flag}']]}, not {shown(value)}")
    yield from _places(request, unknown)


def _tags(tags: Any) -> Iterator[Fault]:
    keys = [tag["Key"] for tag in tags]
    for key in keys:
        if key.lower().startswith("aws:"):
            yield Fault("Tags", f"holds {key}, and names that begin with aws: are AWS's own: call it something else")
        if sum(key.lower() == other.lower() for other in keys) > 1:  # capitals are the same to the service
            yield Fault("Tags", f"holds {key} twice: leave one out")


def _resources(resources: Mapping[str, Any]) -> Iterator[Fault]:
    kinds = [resources.get("InstanceType", ""), *(one["InstanceType"] for one in preferences(resources))]
    own = next((kind for kind in kinds if isinstance(kind, str) and has_own_disk(kind)), None)
    if own and "VolumeKmsKeyId" in resources:
        yield Fault(
            "ResourceConfig.VolumeKmsKeyId",
            f"is not for the disks of {own}, which have keys of their own: leave it out",
        )
    count, volume = resources.get("InstanceCount", 1), resources.get("VolumeSizeInGB", 1)
    if isinstance(count, int) and count < 1:
        yield Fault("ResourceConfig.InstanceCount", f"must be at least 1, not {count}")
    if isinstance(volume, int) and not 1 <= volume <= 16384:
        yield Fault("ResourceConfig.VolumeSizeInGB", f"must be 1 to 16384, not {volume}")


def preferences(resources: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The instance types of which a job takes the first that is to be had, in order; none where it names one type."""
    return list(resources.get("InstancePreferences", ()))


def _preferences(request: Mapping[str, Any]) -> Iterator[Fault]:
    """What the service's words about InstancePreferences forbid."""
    resources, place = request.get("ResourceConfig", {}), "ResourceConfig.InstancePreferences"
    for name in ("SelectedInstanceType", "SelectedInstanceCount"):
        if name in resources:
            yield Fault(f"ResourceConfig.{name}", "is SageMaker's to say: leave it out")
    if not (listed := preferences(resources)):
        return
    for name in ("InstanceType", "InstanceGroups", "InstancePlacementConfig"):
        if name in resources:
            yield Fault(place, f"cannot be given with {name}: leave one of them out")
    if "EnableManagedSpotTraining" in request:
        yield Fault(place, "are not for spot instances: leave them out, or EnableManagedSpotTraining")
    kinds = [one["InstanceType"] for one in listed]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        yield Fault(place, f"hold {twice} twice: leave one out")
    counts = sum("InstanceCount" in one for one in listed)
    if counts != (0 if "InstanceCount" in resources else len(listed)):
        yield Fault(place, "need one InstanceCount for all, or one for each of them")


def _times(request: Mapping[str, Any]) -> Iterator[Fault]:
    limits = request.get("StoppingCondition", {})
    run, wait = limits.get("MaxRuntimeInSeconds", 24 * 3600), limits.get("MaxWaitTimeInSeconds")
    if run > MOST_SECONDS:
        yield Fault("StoppingCondition.MaxRuntimeInSeconds", f"takes {MOST_SECONDS} at most, 28 days, not {run}")
    if request.get("EnableManagedSpotTraining") and (wait is None or wait < run):
        yield Fault("StoppingCondition.MaxWaitTimeInSeconds", f"must be at least max_run, {run}, on spot, not {wait}")
    if wait is not None and not request.get("EnableManagedSpotTraining"):
        yield Fault("StoppingCondition.MaxWaitTimeInSeconds", "is for spot instances: leave it out")


def _places(request: Mapping[str, Any], unknown: tuple[str, ...]) -> Iterator[Fault]:
    """Buckets that cannot exist."""
    urls = {"OutputDataConfig.S3OutputPath": request.get("OutputDataConfig", {}).get("S3OutputPath")}
    urls["CheckpointConfig.S3Uri"] = request.get("CheckpointConfig", {}).get("S3Uri")
    for number, channel in enumerate(request.get("InputDataConfig", ())):
        urls[f"InputDataConfig[{number}].DataSource.S3DataSource.S3Uri"] = channel["DataSource"]["S3DataSource"][
            "S3Uri"
        ]
    for place, url in urls.items():
        bucket = url.removeprefix("s3://").split("/")[0] if isinstance(url, str) else None
        if bucket is not None and bucket not in unknown and not BUCKET.fullmatch(bucket):
            yield Fault(
                place, f"names the bucket {shown(bucket)}, which cannot exist: lower-case letters, digits, - and ."
            )


# To people


def _name(fault: Fault, request: Mapping[str, Any]) -> str:
    """The setting that a place of the request comes from."""
    place = fault.place
    top = re.sub(r"\[\d+\].*", "", place)
    if place.startswith("InputDataConfig[") and (found := re.match(r"InputDataConfig\[(\d+)\]", place)):
        return f"the s3:// place of channel {request['InputDataConfig'][int(found[1])].get('ChannelName')}"
    if place.startswith("ResourceConfig.InstancePreferences[0]"):  # the first is what was asked for
        return "instance_type"
    for start, words in (("HyperParameters.", "{}"), ("Environment.", "the variable {} of the job")):
        if place.startswith(start):
            return words.format(place.removeprefix(start))
    return place if fault.limit == MISSING and place != top else FLAGS.get(top, place)
