"""The life of one training job, in a thread of its own; see jobs.py for the actions that reach it.

A job goes through Starting, Downloading, Training (Interrupted, Restarting and Downloading again on spot), Uploading
to Completed, Failed, Stopped or MaxRuntimeExceeded. While it trains, /opt/ml/checkpoints is synced to S3 (nothing is
ever deleted there), what is printed goes to CloudWatch, and what the metric regexes find too: as of the service's
agent, a moment later and many lines at once.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
import time
from pathlib import Path

from .limits import ServiceError, select
from .machine import Instance, free_port, host_names

ACCOUNT = "123456789012"
LOGS = "/aws/sagemaker/TrainingJobs"
OVER = ("Completed", "Failed", "Stopped")
KEPT = (
    "TrainingJobName", "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig",
    "ResourceConfig", "VpcConfig", "StoppingCondition", "CheckpointConfig", "Environment", "EnableManagedSpotTraining",
    "EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "RetryStrategy", "MlflowConfig",
)  # fmt: skip
MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading the training image",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Interrupted": "Training job interrupted",
    "Restarting": "Restarting the training job",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "Failed": "Training job failed",
}
SYNC_EVERY, SPOT_SHARE, GRACE = 0.25, 0.3, 120


class Job:
    """One training job, and the thread that lives it."""

    def __init__(self, emulator, region, request):
        self.emulator, self.region, self.request, self.name = emulator, region, request, request["TrainingJobName"]
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:training-job/{self.name}"
        self.tags = list(request.get("Tags", []))
        self.folder = Path(emulator.folder) / "jobs" / self.name
        self.created = self.modified = time.time()
        self.status, self.secondary, self.transitions = "InProgress", "Starting", []
        self.training_began = self.training_ended = None
        self.seconds, self.reason, self.artifacts = 0.0, None, None
        self.stop_asked, self.interruption, self.killed, self.timed_out = False, None, False, False
        self.instances, self.synced, self.metrics, self.lines = [], {}, {}, []
        self.restarts, self.unsent, self.selected = 0, [], {}
        self.s3, self.logs = emulator.client("s3"), emulator.client("logs", region)
        self.watch = emulator.client("cloudwatch", region)
        self.thread = threading.Thread(target=self._live, daemon=True, name=self.name)

    # From outside

    def start(self):
        self._turn("Starting")
        self.thread.start()

    def stop(self):
        with self.emulator.lock:
            if self.status in OVER:  # just now
                return
            self.stop_asked, self.status = True, "Stopping"
            self._turn("Stopping")

    def interrupt(self, hard=False):
        self.interruption = "hard" if hard else "soft"

    def kill(self):
        self.killed = True
        for instance in self.instances:
            instance.kill()

    def wait(self, timeout=1200):
        """Until it is over; its status."""
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"{self.name} still {self.secondary} after {timeout} s:\n{self.log()}"
        return self.status

    def wait_for(self, text, timeout=1200):
        """Until a line of the log holds the text."""
        end, goes_on = time.monotonic() + timeout, True
        while not any(text in line for line in list(self.lines)):
            assert goes_on, f"no {text!r} in the log:\n{self.log()}"
            time.sleep(0.02)
            goes_on = time.monotonic() < end and self.thread.is_alive()  # before the last look at the log

    def log(self):
        return "\n".join(self.lines)

    def describe(self):
        answer = {key: self.request[key] for key in KEPT if key in self.request}
        answer |= {
            "TrainingJobArn": self.arn,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.secondary,
            "ResourceConfig": self.request["ResourceConfig"] | self.selected,
            "SecondaryStatusTransitions": self.transitions,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "EnableManagedSpotTraining": self.request.get("EnableManagedSpotTraining", False),
            "FinalMetricDataList": [
                {"MetricName": name, "Value": value, "Timestamp": when} for name, (value, when) in self.metrics.items()
            ],
        }
        if self.artifacts:
            answer["ModelArtifacts"] = {"S3ModelArtifacts": self.artifacts}
        known = {"FailureReason": self.reason, "TrainingStartTime": self.training_began}
        answer |= {name: value for name, value in known.items() if value is not None}
        if self.status in OVER:
            answer["TrainingEndTime"] = self.training_ended or self.modified
            answer["TrainingTimeInSeconds"] = max(1, round(self.seconds))
            answer["BillableTimeInSeconds"] = max(1, round(self.seconds * (SPOT_SHARE if self._spot() else 1)))
        return answer

    # Its life

    def _spot(self):
        return self.request.get("EnableManagedSpotTraining", False)

    def _turn(self, secondary, message=None):
        now = time.time()
        turn = {"Status": secondary, "StartTime": now, "StatusMessage": message or MESSAGES[secondary]}
        with self.emulator.lock:
            if self.transitions:
                self.transitions[-1]["EndTime"] = now
            self.transitions.append(turn)
            self.secondary, self.modified = secondary, now

    def _live(self):
        try:
            while self._attempt() == "interrupted":
                self.restarts += 1
                self._turn("Restarting")
        except ServiceError as error:
            self._fail(error.message)
        except Exception as error:
            if not self.killed:
                self._fail(f"InternalServerError: {type(error).__name__}: {error}")
        self.modified = time.time()

    def _fail(self, reason):
        self.reason = reason[:1024]
        with self.emulator.lock:
            self._turn("Failed", self.reason)
            self.status = "Failed"

    def _attempt(self):
        """From download to the end, or to the interruption."""
        if self.stop_asked and not self.instances:
            return self._end([])
        kind, count = select(self.request["ResourceConfig"], self.emulator.capacity)
        if "InstancePreferences" in self.request["ResourceConfig"]:
            self.selected = {"SelectedInstanceType": kind, "SelectedInstanceCount": count}
        names = host_names(count)
        self._turn("Downloading")
        shutil.rmtree(self.folder, ignore_errors=True)
        roots = [self._furnish(name, names, kind) for name in names]
        self.synced = {}
        self._restore(roots)
        if self.stop_asked and not self.instances:
            return self._end(roots)
        self._turn("Training")
        began = time.time()
        self.training_began = self.training_began or began
        port = free_port()
        self.instances = [self._boot(name, root, port) for name, root in zip(names, roots, strict=True)]
        try:
            outcome = self._watch(roots, began)
        finally:
            for instance in self.instances:
                instance.kill()
                instance.drain()
            self._send()
            self.seconds += time.time() - began
        if outcome == "interrupted":
            self._turn("Interrupted")
            return outcome
        if not self.killed:
            self._sync(roots)
            self._end(roots)
        return None

    def _furnish(self, name, names, kind):
        """An instance's /opt/ml before the container starts."""
        root = self.folder / name
        for part in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (root / part).mkdir(parents=True)
        config = root / "input" / "config"
        channels = {c["ChannelName"]: c for c in self.request.get("InputDataConfig", [])}
        described = {
            n: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
            for n in channels
        }
        resources = {
            "current_host": name,
            "current_instance_type": kind,
            "current_group_name": "homogeneousCluster",
            "hosts": names,
            "instance_groups": [{"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": names}],
            "network_interface_name": "eth0",
        }
        (config / "hyperparameters.json").write_text(json.dumps(self.request.get("HyperParameters", {})))
        (config / "resourceconfig.json").write_text(json.dumps(resources))
        (config / "inputdataconfig.json").write_text(json.dumps(described))
        for channel, settings in channels.items():
            source = settings["DataSource"]["S3DataSource"]["S3Uri"]
            if not download(self.s3, source, root / "input" / "data" / channel):
                raise ServiceError(
                    "", f"ClientError: Data download failed:No S3 objects found under S3 URL \"{source}\" given in "
                    "input data source. Please ensure that the bucket exists in the selected region "
                    f"({self.region}), that objects exist under that S3 prefix, and that the role "
                    f"\"{self.request['RoleArn']}\" has \"s3:ListBucket\" permissions on bucket \"{split(source)[0]}\"."
                )  # fmt: skip
        return root

    def _restore(self, roots):
        place = self.request.get("CheckpointConfig", {}).get("S3Uri")
        for root in roots if place else ():
            download(self.s3, place.rstrip("/") + "/", root / "checkpoints")
            for path in (p for p in root.rglob("*") if p.is_file() and p.is_relative_to(root / "checkpoints")):
                self.synced[path] = _stamp(path)

    def _boot(self, name, root, port):
        environment = {
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.arn,
            "MASTER_PORT": str(port),  # so that jobs which run at once on this machine do not meet
            **inside(self.emulator, self.region),
            **self.request.get("Environment", {}),
        }
        stream = f"{self.name}/{name}-{int(time.time())}"
        _quietly(self.logs.create_log_group, logGroupName=LOGS)
        _quietly(self.logs.create_log_stream, logGroupName=LOGS, logStreamName=stream)
        return Instance(name, root, environment, lambda line: self._line(stream, line))

    def _line(self, stream, line):
        self.lines.append(line)
        self.unsent.append((stream, {"timestamp": round(time.time() * 1000), "message": line or " "}))

    def _send(self):
        """What was printed since the last time, to CloudWatch."""
        sent, self.unsent = self.unsent, []
        for stream in dict.fromkeys(stream for stream, _ in sent):
            events = [event for its, event in sent if its == stream]
            _quietly(self.logs.put_log_events, logGroupName=LOGS, logStreamName=stream, logEvents=events)
        if data := [datum for _, event in sent for datum in self._measured(event["message"])]:
            _quietly(self.watch.put_metric_data, Namespace=LOGS, MetricData=data)

    def _measured(self, line):
        """What the metric regexes find in a line."""
        for metric in self.request["AlgorithmSpecification"].get("MetricDefinitions", []):
            if found := re.search(metric["Regex"], line):
                name, value, job = metric["Name"], float(found[1]), {"Name": "TrainingJobName", "Value": self.name}
                self.metrics[name] = value, time.time()
                yield {"MetricName": name, "Value": value, "Dimensions": [job]}

    def _watch(self, roots, began):
        """Until all containers have ended or the instances are gone."""
        terminated = None
        while True:
            limit = self.request["StoppingCondition"].get("MaxRuntimeInSeconds", 86400)
            codes = [instance.poll() for instance in self.instances]
            if self.interruption == "hard":
                self.interruption = None
                return "interrupted"
            if self.interruption == "soft" and terminated is None:
                terminated = self._terminate()
            if self.interruption is None and terminated is None:
                self.timed_out = time.time() - began > limit
                if self.stop_asked or self.timed_out:
                    terminated = self._terminate()
            self._sync(roots)
            self._send()
            over = None not in codes or any(codes) or (terminated and time.time() > terminated + GRACE)
            if over and self.interruption == "soft":
                self._sync(roots)
                self.interruption = None
                return "interrupted"
            if over or self.killed:
                self.codes = codes
                return None
            time.sleep(SYNC_EVERY)

    def _terminate(self):
        for instance in self.instances:
            instance.terminate()
        return time.time()

    def _sync(self, roots):
        """Upload what is new in /opt/ml/checkpoints; as in the service nothing is deleted in S3."""
        place = self.request.get("CheckpointConfig", {}).get("S3Uri")
        for root in roots if place else ():
            folder = root / "checkpoints"
            # unlike rglob, walk goes on where a folder is gone meanwhile, as that of a checkpoint's draft
            for path in sorted(Path(where, name) for where, _, names in os.walk(folder) for name in names):
                stamp = _stamp(path)
                if stamp is not None and self.synced.get(path) != stamp:
                    bucket, prefix = split(place)
                    key = f"{prefix.rstrip('/')}/{path.relative_to(folder)}".lstrip("/")
                    try:
                        data = path.read_bytes()
                    except OSError:
                        continue  # gone meanwhile
                    self.s3.put_object(Bucket=bucket, Key=key, Body=data)
                    self.synced[path] = stamp

    def _end(self, roots):
        """Status, failure reason and model.tar.gz."""
        self.training_ended = time.time()
        stopped = self.stop_asked or self.timed_out
        failed = not stopped and any(code != 0 for code in self.codes)
        if failed:
            return self._fail(self._failure(roots))
        if roots:
            self._turn("Uploading")
            self._upload(roots, "model", "model.tar.gz")
            if any(any((root / "output" / "data").iterdir()) for root in roots):
                self._upload(roots, "output/data", "output.tar.gz")
        last = "MaxRuntimeExceeded" if self.timed_out else "Stopped" if stopped else "Completed"
        with self.emulator.lock:
            self._turn(last)
            self.status = "Stopped" if stopped else "Completed"
        return None

    def _failure(self, roots):
        code = next(code for code in self.codes if code)
        for root in roots:
            file = root / "output" / "failure"
            if file.is_file():
                return f"AlgorithmError: {file.read_text(errors='replace')[: 1024 - 40]}, exit code: {code}"
        return f"AlgorithmError: , exit code: {code}"

    def _upload(self, roots, part, name):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for root in roots:
                for path in sorted((root / part).rglob("*")):
                    archive.add(path, str(path.relative_to(root / part)), recursive=False)
        place = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output/{name}"
        bucket, key = split(place)
        self.s3.put_object(Bucket=bucket, Key=key, Body=packed.getvalue())
        if name == "model.tar.gz":
            self.artifacts = place


def inside(emulator, region):
    """The environment in a container, but for the request's own."""
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}  # the role's, elsewhere by an address
    return {"AWS_REGION": region, "AWS_ENDPOINT_URL": emulator.endpoint, **keys, **emulator.job_environment}


def download(s3, place, folder):
    """Every object under a prefix, but for what the console makes of folders; how many there were."""
    bucket, prefix = split(place)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    except Exception:
        return 0
    items = [item for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    for item in items:
        name = item["Key"][len(prefix) :].lstrip("/") or item["Key"].rpartition("/")[2]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, item["Key"], str(target))
    return len(items)


def split(place):
    """Bucket and key of an s3:// address."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    return bucket, key


def _stamp(path):
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _quietly(call, **arguments):
    """A call whose failure (it exists already, the server has gone) is no news."""
    with contextlib.suppress(Exception):
        call(**arguments)
