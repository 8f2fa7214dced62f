"""Pipeline executions: parameters put in and checked, training steps really run, unchanged steps taken from the cache;
condition, fail and register steps (the registry is moto's, the request checked by the service's model); processing and
tuning steps really run too, and are never taken from the cache.

moto keeps the pipelines themselves (CreatePipeline, UpdatePipeline, DescribePipeline ...).
"""

import hashlib
import json
import operator
import re
import secrets
import threading
import time

from .limits import ServiceError, as_strings, check_package, invalid

ACCOUNT = "123456789012"
KINDS = {"String": str, "Integer": int, "Float": float, "Boolean": lambda text: {"true": True, "false": False}[text]}
COMPARED = {"LessThanOrEqualTo": operator.le, "GreaterThanOrEqualTo": operator.ge, "Equals": operator.eq}
CALLS = {"Training": "CreateTrainingJob", "RegisterModel": "CreateModelPackage", "Condition": "-", "Fail": "-"}
CALLS |= {"Processing": "CreateProcessingJob", "Tuning": "CreateHyperParameterTuningJob"}
CACHED_BY = ("AlgorithmSpecification", "CheckpointConfig", "Environment", "HyperParameters", "InputDataConfig")


class Pipelines:
    """The actions on executions, as methods (region, parameters) -> answer."""

    def __init__(self, emulator):
        self.emulator, self.executions, self.cache = emulator, {}, {}

    def find(self, request):
        arn = request["PipelineExecutionArn"]
        if arn not in self.executions:
            raise ServiceError("ResourceNotFound", f"Pipeline execution {arn} does not exist.")
        return self.executions[arn]

    def CreatePipeline(self, region, request):
        check_definition(request)

    def UpdatePipeline(self, region, request):
        check_definition(request)

    def StartPipelineExecution(self, region, request):
        client = self.emulator.client("sagemaker", region)
        name = request["PipelineName"].rpartition("/")[2]
        try:
            pipeline = client.describe_pipeline(PipelineName=name)
        except Exception as error:
            raise ServiceError(
                "ResourceNotFound", f"Pipeline 'arn:aws:sagemaker:{region}:{ACCOUNT}:pipeline/{name}' does not exist."
            ) from error
        execution = Execution(self, region, name, pipeline, request)
        self.executions[execution.arn] = execution
        execution.thread.start()
        return {"PipelineExecutionArn": execution.arn}

    def DescribePipelineExecution(self, region, request):
        return self.find(request).describe()

    def ListPipelineExecutionSteps(self, region, request):
        return {"PipelineExecutionSteps": list(reversed(self.find(request).steps))}

    def ListPipelineParametersForExecution(self, region, request):
        values = self.find(request).values
        return {"PipelineParameters": [{"Name": name, "Value": str(value)} for name, value in values.items()]}

    def DescribePipelineDefinitionForExecution(self, region, request):
        execution = self.find(request)
        return {"PipelineDefinition": json.dumps(execution.definition), "CreationTime": execution.created}

    def ListPipelineExecutions(self, region, request):
        name = request["PipelineName"].rpartition("/")[2]
        found = [execution for execution in self.executions.values() if execution.pipeline == name]
        keys = ("PipelineExecutionArn", "StartTime", "PipelineExecutionStatus", "PipelineExecutionDisplayName")
        return {
            "PipelineExecutionSummaries": [
                {key: value for key, value in (e.describe() | {"StartTime": e.created}).items() if key in keys}
                for e in reversed(found)
            ]
        }

    def StopPipelineExecution(self, region, request):
        execution = self.find(request)
        execution.stop()
        return {"PipelineExecutionArn": execution.arn}


def check_definition(request):
    """Raise as the service does for a definition that it cannot read."""
    try:
        definition = json.loads(request.get("PipelineDefinition") or "{}")
    except ValueError as error:
        raise invalid(f"Unable to parse pipeline definition. {error}") from error
    declared = {p["Name"] for p in definition.get("Parameters", [])}
    used = set(re.findall(r'"Get": ?"Parameters\.([^"]+)"', json.dumps(definition)))
    if unknown := used - declared:
        raise invalid(f"Unable to parse pipeline definition. Invalid property reference 'Parameters.{min(unknown)}'")
    steps = list(every_step(definition.get("Steps", [])))
    names = [step["Name"] for step in steps]
    if unknown := {name for step in steps for name in step.get("DependsOn", [])} - set(names):
        raise invalid(f"Unable to parse pipeline definition. Step {min(unknown)} does not exist")
    if len(set(names)) < len(names):
        raise invalid("Unable to parse pipeline definition. Step names must be unique within the pipeline")


def every_step(steps):
    """All steps, those of a condition's branches too."""
    for step in steps:
        yield step
        for branch in ("IfSteps", "ElseSteps"):
            yield from every_step(step["Arguments"].get(branch, []) if step["Type"] == "Condition" else [])


class Execution:
    """One execution, and the thread that lives it."""

    def __init__(self, pipelines, region, name, pipeline, request):
        self.pipelines, self.emulator, self.region, self.pipeline = pipelines, pipelines.emulator, region, name
        self.id = secrets.token_hex(6)
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:pipeline/{name}/execution/{self.id}"
        self.definition = json.loads(pipeline["PipelineDefinition"])
        self.pipeline_arn, self.role = pipeline["PipelineArn"], pipeline["RoleArn"]
        self.display, self.description = (
            request.get("PipelineExecutionDisplayName"),
            request.get("PipelineExecutionDescription"),
        )
        self.values = parameters(self.definition, request.get("PipelineParameters", []))
        self.created = self.modified = time.time()
        self.status, self.reason, self.steps, self.outputs, self.jobs, self.stopping = "Executing", None, [], {}, [], 0
        self.cards = {}  # model cards by group, which moto does not keep
        self.thread = threading.Thread(target=self._live, daemon=True, name=self.arn)

    def describe(self):
        answer = {
            "PipelineArn": self.pipeline_arn,
            "PipelineExecutionArn": self.arn,
            "PipelineExecutionDisplayName": self.display,
            "PipelineExecutionDescription": self.description,
            "PipelineExecutionStatus": self.status,
            "FailureReason": self.reason,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
        }
        return {name: value for name, value in answer.items() if value is not None}

    def stop(self):
        self.stopping, self.status = 1, "Stopping"
        for job in self.jobs:
            if job.thread.is_alive():
                job.stop()

    def wait(self, timeout=1200):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"{self.arn} still {self.status}"
        return self.status

    def _live(self):
        if self._run(self.definition["Steps"]):
            self.status = "Succeeded"

    def _run(self, steps):
        """Whether all of these steps ended well."""
        for step in steps:
            record = {"StepName": step["Name"], "StartTime": time.time(), "StepStatus": "Executing", "AttemptCount": 1}
            self.steps.append(record)
            try:
                branch = getattr(self, f"_{step['Type']}")(step, record) or []
            except ServiceError as error:
                record["StepStatus"] = "Failed"
                record["FailureReason"] = (
                    f"ClientError: Failed to invoke sagemaker:{CALLS[step['Type']]}. Error Details: {error.message}"
                )
            except Exception as error:
                record["StepStatus"], record["FailureReason"] = "Failed", f"InternalServerError: {error}"
            record["EndTime"] = self.modified = time.time()
            if record["StepStatus"] != "Succeeded":
                self.status = record["StepStatus"]
                self.reason = "Step failure: One or multiple steps failed." if self.status == "Failed" else None
                return False
            if not self._run(branch):
                return False
        return True

    def _Condition(self, step, record):
        """The branch that the conditions choose."""
        arguments = step["Arguments"]
        pairs = [
            (c["Type"], self.resolve(c["LeftValue"]), self.resolve(c["RightValue"])) for c in arguments["Conditions"]
        ]
        met = all(COMPARED[kind](left, right) for kind, left, right in pairs)
        record["Metadata"], record["StepStatus"] = {"Condition": {"Outcome": str(met)}}, "Succeeded"
        return arguments["IfSteps" if met else "ElseSteps"]

    def _Fail(self, step, record):
        message = self.resolve(step["Arguments"]["ErrorMessage"])
        record["Metadata"], record["StepStatus"] = {"Fail": {"ErrorMessage": message}}, "Failed"
        record["FailureReason"] = message

    def _RegisterModel(self, step, record):
        request = self.resolve(step["Arguments"])
        check_package(request)
        self.cards[request["ModelPackageGroupName"]] = json.loads(request.pop("ModelCard")["ModelCardContent"])
        client = self.emulator.client("sagemaker", self.region)
        try:
            arn = client.create_model_package(**request)["ModelPackageArn"]
        except client.exceptions.ClientError as error:
            raise invalid(error.response["Error"]["Message"]) from error
        record["Metadata"], record["StepStatus"] = {"RegisterModel": {"Arn": arn}}, "Succeeded"

    def _Training(self, step, record):
        request = self.resolve(step["Arguments"])
        as_strings(request)
        key = self._key(step, request)
        hit = self.pipelines.cache.get(key) if step.get("CacheConfig", {}).get("Enabled") else None
        if hit:
            job, record["CacheHitResult"] = hit[0], {"SourcePipelineExecutionArn": hit[1]}
        else:
            name = f"pipelines-{self.id}-{step['Name'][:20]}-{secrets.token_hex(5)}"
            job = self.emulator.jobs.create(self.region, {**request, "TrainingJobName": name})
            self.jobs.append(job)
            if self.stopping:
                job.stop()
        self._ends_as(job, "TrainingJob", step, record)
        if job.status == "Failed":
            record["FailureReason"] = f"ClientError: {record['FailureReason']}"
        elif job.status == "Completed" and not hit:
            self.pipelines.cache[key] = job, self.arn

    def _ends_as(self, job, kind, step, record):
        """Wait for the job of a step, which ends as that does."""
        record["Metadata"] = {kind: {"Arn": job.arn}}
        job.thread.join()
        self.outputs[step["Name"]] = job.describe()
        record["StepStatus"] = {"Completed": "Succeeded", "Stopped": "Stopped"}.get(job.status, "Failed")
        if job.status == "Failed":
            record["FailureReason"] = f"ClientError: {job.reason}"

    def _Processing(self, step, record):
        request = self.resolve(step["Arguments"])
        name = f"pipelines-{self.id}-{step['Name'][:20]}-{secrets.token_hex(5)}"
        job = self.emulator.processings.create(self.region, {**request, "ProcessingJobName": name})
        self.jobs.append(job)
        self._ends_as(job, "ProcessingJob", step, record)

    def _Tuning(self, step, record):
        request = self.resolve(step["Arguments"])
        as_strings({"HyperParameters": request["TrainingJobDefinition"].get("StaticHyperParameters", {})})
        name = f"{self.id}-{step['Name'][:8]}-{secrets.token_hex(5)}"
        asked = {**request, "HyperParameterTuningJobName": name}
        self.emulator.tunings.CreateHyperParameterTuningJob(self.region, asked)
        tuning = self.emulator.tunings[name]
        self.jobs.append(tuning)
        self._ends_as(tuning, "TuningJob", step, record)

    def _key(self, step, request):
        """By what the service finds an earlier run of the step."""
        parts = {name: request.get(name) for name in CACHED_BY}
        content = json.dumps([self.pipeline, step["Name"], parts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def resolve(self, value):
        """Parameters, execution variables, joins and earlier steps' properties put in."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if set(value) == {"Get"}:
            return self._get(value["Get"])
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            return join["On"].join(str(self.resolve(item)) for item in join["Values"])
        return {name: self.resolve(item) for name, item in value.items()}

    def _get(self, path):
        kind, _, rest = path.partition(".")
        if kind == "Parameters":
            return self.values[rest]
        if kind == "Execution":
            return {
                "PipelineExecutionId": self.id, "PipelineExecutionArn": self.arn, "PipelineName": self.pipeline,
                "PipelineArn": self.pipeline_arn, "StartDateTime": str(self.created),
            }[rest]  # fmt: skip
        step, _, attribute = rest.partition(".")
        found = self.outputs[step]
        for part in attribute.split("."):
            name, _, item = part.partition("['")
            found = found[name]
            if item:  # a metric by its name
                metrics = {metric["MetricName"]: metric for metric in found}
                if item.removesuffix("']") not in metrics:
                    raise invalid(f"Property reference Steps.{rest} could not be resolved")
                found = metrics[item.removesuffix("']")]
        return found


def parameters(definition, given):
    """The values of an execution's parameters, each of its type; raises as the service does."""
    declared = {p["Name"]: p for p in definition.get("Parameters", [])}
    given = {item["Name"]: item["Value"] for item in given}
    if unknown := set(given) - set(declared):
        raise invalid(f"Parameters [{', '.join(sorted(unknown))}] are not defined in the pipeline definition")
    values = {}
    for name, parameter in declared.items():
        if name not in given and "DefaultValue" not in parameter:
            raise invalid(f"Parameter [{name}] has no default value and was not given")
        value = given.get(name, parameter.get("DefaultValue"))
        try:
            value = KINDS[parameter["Type"]](value) if isinstance(value, str) else value
        except (KeyError, ValueError) as error:
            raise invalid(f"Parameter [{name}] value {value} is not of type {parameter['Type']}") from error
        if parameter.get("EnumValues") and value not in parameter["EnumValues"]:
            raise invalid(f"Parameter [{name}] value {value} is not one of {parameter['EnumValues']}")
        values[name] = value
    return values
