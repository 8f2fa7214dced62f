"""What the service refuses by its model and by its words, all of a training job; and the type check of pipelines."""

import functools
import json
import re

import botocore.session
import regex
from botocore.validate import ParamValidator

IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)(?::([\w.-]+))?(?:@(sha256:\w+))?")
OWN_DISKS = ("g5", "g6", "g7", "p5", "p6", "trn1", "trn2")  # and every family with a d: g4dn, p4d


def instance_supports_kms(kind):
    """As sagemaker.core.common_utils has it, which takes seconds to import; test_shapes.py holds it to that."""
    family = kind.split(".")[1]
    return "d" not in family and not family.startswith(OWN_DISKS)


class ServiceError(Exception):
    """An error answer."""

    def __init__(self, code, message, status=400):
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


def invalid(message):
    return ServiceError("ValidationException", message)


def constraint(value, place, limit):
    return invalid(
        f"1 validation error detected: Value '{value}' at '{place}' failed to satisfy constraint: Member must {limit}"
    )


@functools.cache
def shape(operation):
    """What the service's model says of an action's arguments."""
    return botocore.session.Session().get_service_model("sagemaker").operation_model(operation).input_shape


def check_model(request, operation):
    """Raise ServiceError for arguments that the service's model forbids, and for tags that it does not take."""
    if report := ParamValidator().validate(request, shape(operation)).generate_report():
        raise ServiceError("SerializationException", report)
    for place, value, limit in violations(request, shape(operation), ""):
        raise constraint(value, place, limit)
    check_tags(request)


def check_job(request):
    """Raise ServiceError for what the service refuses whatever the account's state."""
    check_model(request, "CreateTrainingJob")
    check_resources(request["ResourceConfig"])
    check_preferences(request)
    check_times(request)


def check_package(request):
    """Raise ServiceError for what the registry refuses; a model package's card has its own schema."""
    check_model(request, "CreateModelPackage")
    card = json.loads(request["ModelCard"]["ModelCardContent"])
    if set(card) - {
        "model_overview",
        "intended_uses",
        "training_details",
        "evaluation_details",
        "additional_information",
    }:
        raise invalid("The model card does not follow the schema of model packages")
    if set(card.get("model_overview", {})) - {"model_creator", "model_artifact"}:
        raise invalid("model_overview of a model package has model_creator and model_artifact only")


def violations(value, shape, place):
    """What a value breaks of the service's model: (place, value, what it must)."""
    rules = shape.metadata
    counted = len(value) if isinstance(value, (str, list, dict)) else value
    measure = "have length" if isinstance(value, (str, list, dict)) else "have value"
    if not isinstance(value, bool) and isinstance(counted, (int, float)):
        if counted > rules.get("max", counted):
            yield place, value, f"{measure} less than or equal to {rules['max']}"
        if counted < rules.get("min", counted):
            yield place, value, f"{measure} greater than or equal to {rules['min']}"
    if isinstance(value, bool) and shape.type_name in ("integer", "long"):
        yield place, value, "be a number"
    if "enum" in rules and value not in rules["enum"]:
        yield place, value, f"satisfy enum value set: {sorted(rules['enum'])[:9]}"
    elif "pattern" in rules and not javas(rules["pattern"]).fullmatch(value):
        yield place, value, f"satisfy regular expression pattern: {rules['pattern']}"
    if shape.type_name == "structure":
        for name, item in value.items():
            yield from violations(item, shape.members[name], f"{place}.{name}".lstrip("."))
    if shape.type_name == "list":
        for number, item in enumerate(value, 1):
            yield from violations(item, shape.member, f"{place}.{number}.member")
    if shape.type_name == "map":
        for name, item in value.items():
            yield from violations(name, shape.key, f"{place}.key")
            yield from violations(item, shape.value, f"{place}.{name}")


@functools.cache
def javas(pattern):
    """A pattern of Java's; `regex` knows its classes of characters, and where its dot ends."""
    return regex.compile(pattern.replace(r"\p{Alnum}", "a-zA-Z0-9").replace(".*", r"[^\n\r\x85\u2028\u2029]*"))


def check_tags(request):
    keys = [tag["Key"] for tag in request.get("Tags", [])]
    for key in keys:
        if key.lower().startswith("aws:"):
            raise invalid(f"aws: prefixed tag key names are not allowed for external use: {key}")
    if len(set(keys)) < len(keys):
        raise invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")


def check_resources(resources):
    """Instances with disks of their own take no key for a volume, as the SDK's list says."""
    for kind in types_of(resources):
        if "VolumeKmsKeyId" in resources and not instance_supports_kms(kind):
            raise invalid(f"VolumeKmsKeyId is not supported for instance type {kind}")
    if resources.get("InstanceCount", 1) < 1 or resources.get("VolumeSizeInGB", 1) < 1:
        raise invalid("InstanceCount and VolumeSizeInGB must be greater than or equal to 1")


def types_of(resources):
    """The instance types of a request, in the order in which they are tried."""
    return [one["InstanceType"] for one in resources.get("InstancePreferences", [resources])]


def select(resources, capacity):
    """The type and number of the instances: the first type that there is room for."""
    for one in resources.get("InstancePreferences", [resources]):
        kind, count = one["InstanceType"], one.get("InstanceCount", resources.get("InstanceCount"))
        if count <= capacity.get(kind, count):
            return kind, count
    words = "Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
    raise ServiceError("", f"CapacityError: {words}")


def check_preferences(request):
    """Of InstancePreferences what the service's model says in words."""
    resources = request["ResourceConfig"]
    if {"SelectedInstanceType", "SelectedInstanceCount"} & set(resources):
        raise invalid("SelectedInstanceType and SelectedInstanceCount are not accepted in CreateTrainingJob requests")
    if "InstancePreferences" not in resources:
        if not {"InstanceType", "InstanceCount"} <= set(resources):
            raise invalid("InstanceType and InstanceCount must be specified in ResourceConfig")
        return
    others = {"InstanceType", "InstanceGroups", "InstancePlacementConfig"} & set(resources)
    if others or "EnableManagedSpotTraining" in request:
        raise invalid(
            "InstancePreferences is mutually exclusive with InstanceType, InstanceGroups, InstancePlacementConfig and "
            "EnableManagedSpotTraining"
        )
    kinds, counted = types_of(resources), ["InstanceCount" in one for one in resources["InstancePreferences"]]
    if len(set(kinds)) < len(kinds):
        raise invalid("An instance type can appear only once in an InstancePreferences list")
    if any(counted) == ("InstanceCount" in resources) or any(counted) != all(counted):
        raise invalid("Specify InstanceCount either on every preference or in ResourceConfig")


def check_times(request):
    stopping = request["StoppingCondition"]
    runtime, wait = stopping.get("MaxRuntimeInSeconds", 86400), stopping.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None:
            raise invalid("For managed spot training, MaxWaitTimeInSeconds must be present in StoppingCondition.")
        if wait < runtime:
            raise invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait is not None:
        raise invalid("MaxWaitTimeInSeconds above 0 is not supported unless EnableManagedSpotTraining is set to true.")


def as_strings(request):
    """Raise as the service does where a pipeline's number stands in a map of strings."""
    for place in ("HyperParameters", "Environment"):
        for value in request.get(place, {}).values():
            if not isinstance(value, str):
                kind = "BOOLEAN" if isinstance(value, bool) else "NUMBER"
                raise ServiceError("ValidationException", f"{kind}_VALUE can not be converted to a String")
