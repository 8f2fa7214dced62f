"""Tuning jobs: the service's actions on them, and their trials, which really run as training jobs.

Grid takes every combination, the first range's values changing slowest. Random draws with random.Random(RandomSeed),
for each trial in the order integer, continuous, categorical ranges: uniform, on a logarithmic scale over the logarithm.
Bayesian and Hyperband are checked as requests and then fail: what they would choose is not known here. A trial's
objective is the last value that its metric had; one that failed has none.
"""

import itertools
import math
import random
import secrets
import threading
import time

from .job import ACCOUNT, OVER
from .limits import ServiceError, check_model, invalid

OBJECTIVE = "_tuning_objective_metric"
DONE = ("Completed", "Failed", "Stopped")


def check_tuning(request):
    """Raise ServiceError for what the service refuses whatever the account's state."""
    check_model(request, "CreateHyperParameterTuningJob")
    config, definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
    check_ranges(config["Strategy"], config["ParameterRanges"], definition.get("StaticHyperParameters", {}))
    objective = config["HyperParameterTuningJobObjective"]["MetricName"]
    if objective not in {metric["Name"] for metric in definition["AlgorithmSpecification"]["MetricDefinitions"]}:
        raise invalid(f"Objective metric {objective} is not among the metric definitions")
    early = config.get("TrainingJobEarlyStoppingType", "Off")
    if config["Strategy"] == "Hyperband":
        if early != "Off":
            raise invalid("TrainingJobEarlyStoppingType must be Off to use the Hyperband strategy")
        if "MaxResource" not in config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {}):
            raise invalid("Unable to infer MaxResource")
    limits = config["ResourceLimits"]
    if config["Strategy"] != "Grid" and "MaxNumberOfTrainingJobs" not in limits:
        raise invalid("MaxNumberOfTrainingJobs must be given")
    if request.get("WarmStartConfig") and config["Strategy"] not in ("Bayesian", "Random"):
        raise invalid(f"Warm start is not supported for strategy {config['Strategy']}")


def check_ranges(strategy, ranges, static):
    """Numbers in order, of the range's kind; nothing both fixed and searched; a grid of categories alone."""
    names = [item["Name"] for kind in ranges.values() for item in kind]
    if len(set(names)) < len(names) or set(names) & set(static):
        raise invalid("Hyperparameter names must be unique among ranges and static hyperparameters")
    if not names:
        raise invalid("At least one range must be given")
    for kind, read in (("IntegerParameterRanges", int), ("ContinuousParameterRanges", float)):
        for item in ranges.get(kind, []):
            try:
                low, high = read(item["MinValue"]), read(item["MaxValue"])
            except ValueError as error:
                raise invalid(f"Range of {item['Name']} holds no number: {error}") from error
            if not low < high or (item.get("ScalingType") == "Logarithmic" and low <= 0):
                raise invalid(f"Range of {item['Name']} is not valid for its scale")
            if strategy == "Grid":
                raise invalid("Grid strategy supports categorical ranges only")


class Tunings:
    """The actions, as methods (region, parameters) -> answer; and the tuning jobs by name."""

    def __init__(self, emulator):
        self.emulator, self.known = emulator, {}

    def __getitem__(self, name):
        return self.known[name]

    def find(self, region, request):
        found = self.known.get(request["HyperParameterTuningJobName"])
        if found is None or found.region != region:
            raise ServiceError("ResourceNotFound", "Amazon SageMaker can't find a tuning job with this name.")
        return found

    def CreateHyperParameterTuningJob(self, region, request):
        check_tuning(request)
        parents = []
        for parent in request.get("WarmStartConfig", {}).get("ParentHyperParameterTuningJobs", []):
            parents.append(self.find(region, parent))
            if parents[-1].status not in DONE:
                raise invalid("Parent tuning job must be in a terminal state")
        name = request["HyperParameterTuningJobName"]
        if name in self.known:
            raise ServiceError("ResourceInUse", f"Tuning job names must be unique: {name}")
        tuning = self.known[name] = Tuning(self.emulator, region, request, parents)
        tuning.thread.start()
        return {"HyperParameterTuningJobArn": tuning.arn}

    def DescribeHyperParameterTuningJob(self, region, request):
        return self.find(region, request).describe()

    def ListTrainingJobsForHyperParameterTuningJob(self, region, request):
        tuning = self.find(region, request)
        return {"TrainingJobSummaries": [tuning.summary(job) for job in list(tuning.jobs)]}

    def StopHyperParameterTuningJob(self, region, request):
        tuning = self.find(region, request)
        if tuning.status != "InProgress":
            raise invalid(f"The request was rejected because the tuning job is in status {tuning.status}.")
        tuning.stop()
        return {}


class Tuning:
    """One tuning job, and the thread that lives it."""

    def __init__(self, emulator, region, request, parents):
        self.emulator, self.region, self.request, self.parents = emulator, region, request, parents
        self.name = request["HyperParameterTuningJobName"]
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:hyper-parameter-tuning-job/{self.name}"
        self.config, self.definition = request["HyperParameterTuningJobConfig"], request["TrainingJobDefinition"]
        self.objective = self.config["HyperParameterTuningJobObjective"]
        self.created, self.status, self.reason, self.jobs, self.values = time.time(), "InProgress", None, [], {}
        self.thread = threading.Thread(target=self._live, daemon=True, name=self.name)

    def stop(self):
        with self.emulator.lock:
            self.status = "Stopping"
            running = [job for job in self.jobs if job.status not in OVER]
        for job in running:
            job.stop()

    def wait(self, timeout=1200):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"{self.name} still {self.status}"
        return self.status

    # Its life

    def _live(self):
        try:
            waiting = list(self.choices())
        except ServiceError as error:
            self.reason, self.status = error.message, "Failed"
            return
        most = self.config["ResourceLimits"]["MaxParallelTrainingJobs"]
        while waiting or any(job.thread.is_alive() for job in self.jobs):
            with self.emulator.lock:
                running = sum(job.thread.is_alive() for job in self.jobs)
                if self.status == "Stopping":
                    waiting = []
                while waiting and running < most:
                    self._begin(waiting.pop(0))
                    running += 1
            time.sleep(0.05)
        failed = self.jobs and all(job.status == "Failed" for job in self.jobs)
        self.reason = "All training jobs failed." if failed else None
        self.status = "Stopped" if self.status == "Stopping" else "Failed" if failed else "Completed"

    def _begin(self, values):
        definition = dict(self.definition)
        texts = definition.pop("StaticHyperParameters", {}) | values
        for name in ("DefinitionName", "TuningObjective", "HyperParameterRanges"):
            definition.pop(name, None)
        name = f"{self.name}-{len(self.jobs) + 1:03d}-{secrets.token_hex(4)}"
        request = {"TrainingJobName": name, "HyperParameters": texts | {OBJECTIVE: self.objective["MetricName"]}}
        job = self.emulator.jobs.create(self.region, definition | request)
        self.values[job.name] = values
        self.jobs.append(job)

    def choices(self):
        """The values of each trial, as texts."""
        ranges = self.config["ParameterRanges"]
        if self.config["Strategy"] == "Grid":
            lists = [[(item["Name"], text) for text in item["Values"]] for item in ranges["CategoricalParameterRanges"]]
            return [dict(combination) for combination in itertools.product(*lists)]
        if self.config["Strategy"] != "Random":
            raise invalid(f"the emulator does not search as {self.config['Strategy']} does")
        draw = random.Random(self.config.get("RandomSeed", 0))
        return [drawn(draw, ranges) for _ in range(self.config["ResourceLimits"]["MaxNumberOfTrainingJobs"])]

    # What is said of it

    def value(self, job):
        """A trial's objective; None where it has none."""
        found = job.metrics.get(self.objective["MetricName"])
        return None if found is None or job.status not in ("Completed", "Stopped") else found[0]

    def summary(self, job):
        """A trial as the service lists it."""
        said, value = job.describe(), self.value(job)
        kept = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingJobStatus", "FailureReason")
        answer = {name: said[name] for name in (*kept, "TrainingStartTime", "TrainingEndTime") if name in said}
        answer |= {"TunedHyperParameters": self.values[job.name], "TuningJobName": self.name}
        answer["ObjectiveStatus"] = "Succeeded" if value is not None else "Failed" if job.status in OVER else "Pending"
        if value is not None:
            answer["FinalHyperParameterTuningJobObjectiveMetric"] = self.objective | {"Value": value}
        return answer

    def best(self, tunings):
        sign = 1 if self.objective["Type"] == "Minimize" else -1
        found = [(sign * t.value(job), t, job) for t in tunings for job in t.jobs if t.value(job) is not None]
        return min(found, key=lambda item: item[0])[1:] if found else None

    def describe(self):
        counts = {"Completed": 0, "InProgress": 0, "RetryableError": 0, "NonRetryableError": 0, "Stopped": 0}
        kinds = {"Completed": "Completed", "Failed": "NonRetryableError", "Stopped": "Stopped"}
        for job in list(self.jobs):
            counts[kinds.get(job.status, "InProgress")] += 1
        definition = dict(self.definition)
        definition["StaticHyperParameters"] = definition.get("StaticHyperParameters", {}) | {
            OBJECTIVE: self.objective["MetricName"]
        }
        answer = {
            "HyperParameterTuningJobName": self.name,
            "HyperParameterTuningJobArn": self.arn,
            "HyperParameterTuningJobConfig": self.config,
            "TrainingJobDefinition": definition,
            "HyperParameterTuningJobStatus": self.status,
            "CreationTime": self.created,
            "TrainingJobStatusCounters": counts,
            "ObjectiveStatusCounters": {"Succeeded": counts["Completed"], "Pending": counts["InProgress"], "Failed": 0},
        }
        if best := self.best([self]):
            answer["BestTrainingJob"] = best[0].summary(best[1])
        warm = self.request.get("WarmStartConfig")
        if warm:
            answer["WarmStartConfig"] = warm
        if warm and warm["WarmStartType"] == "IdenticalDataAndAlgorithm" and (best := self.best([self, *self.parents])):
            answer["OverallBestTrainingJob"] = best[0].summary(best[1])
        if self.reason:
            answer["FailureReason"] = self.reason
        return answer


def drawn(draw, ranges):
    """One random trial's values, as texts."""
    values = {}
    for item in ranges.get("IntegerParameterRanges", []):
        values[item["Name"]] = str(round(between(draw, item)))
    for item in ranges.get("ContinuousParameterRanges", []):
        values[item["Name"]] = str(between(draw, item))
    for item in ranges.get("CategoricalParameterRanges", []):
        values[item["Name"]] = draw.choice(item["Values"])
    return values


def between(draw, item):
    low, high = float(item["MinValue"]), float(item["MaxValue"])
    if item.get("ScalingType") != "Logarithmic":
        return draw.uniform(low, high)
    return min(high, max(low, math.exp(draw.uniform(math.log(low), math.log(high)))))
