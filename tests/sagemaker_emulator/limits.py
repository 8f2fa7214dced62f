"""What the service refuses at CreateTrainingJob, with its codes and words; and the type check that pipelines do."""

import re

import botocore.session
from botocore.validate import ParamValidator

JOB_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)(?::([\w.-]+))?(?:@(sha256:\w+))?")
CREATE = botocore.session.Session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape


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


def check_job(request):
    """Raise ServiceError for what the service refuses whatever the account's state."""
    if report := ParamValidator().validate(request, CREATE).generate_report():
        raise ServiceError("SerializationException", report)
    name = request["TrainingJobName"]
    if not JOB_NAME.fullmatch(name) or len(name) > 63:
        raise constraint(
            name, "trainingJobName", "satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
        )
    check_map(request.get("HyperParameters", {}), "hyperParameters", 256, 2500, newline=False)
    check_map(request.get("Environment", {}), "environment", 512, 512, newline=True)
    metrics = request["AlgorithmSpecification"].get("MetricDefinitions", [])
    if len(metrics) > 40:
        raise constraint(len(metrics), "metricDefinitions", "have length less than or equal to 40")
    if len(request.get("Tags", [])) > 50:
        raise constraint(len(request["Tags"]), "tags", "have length less than or equal to 50")
    for tag in request.get("Tags", []):
        if not re.fullmatch(r"[\w\s.:/=+\-@]{1,128}", tag["Key"]) or not re.fullmatch(
            r"[\w\s.:/=+\-@]{0,256}", tag["Value"]
        ):
            raise constraint(tag, "tags", "satisfy regular expression pattern: ([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)")
    for channel in request.get("InputDataConfig", []):
        if not re.fullmatch(r"[A-Za-z0-9.\-_]{1,64}", channel["ChannelName"]):
            raise constraint(
                channel["ChannelName"], "channelName", "satisfy regular expression pattern: [A-Za-z0-9\\.\\-_]+"
            )
    check_times(request)


def check_map(values, place, longest_key, longest, newline):
    if len(values) > 100:
        raise constraint(values, place, "have length less than or equal to 100")
    for key, value in values.items():
        if len(key) > longest_key or len(value) > longest:
            raise constraint(values, place, f"satisfy constraint: [length less than or equal to {longest}]")
        if not newline and "\n" in value + key:
            raise constraint(values, place, "satisfy constraint: [satisfy regular expression pattern: .*]")


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
