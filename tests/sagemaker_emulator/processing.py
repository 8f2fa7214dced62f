"""Processing jobs: checked by the service's model, and really run, as `IMAGE audit ...` over an /opt/ml of their own.

Inputs come from S3 to their LocalPath, outputs go from theirs to S3 when the job ends, however it ends, and what the
container wrote to /opt/ml/output/message is the job's ExitMessage.
"""

import threading
import time
from pathlib import Path

from .job import ACCOUNT, download, inside, split
from .limits import check_model, check_resources, invalid
from .machine import Instance

ENTRY = ["python", "-m", "sdxl_nb.container"]
ML = "/opt/ml/"


def check_processing(request):
    """Raise ServiceError for what the service refuses whatever the account's state."""
    check_model(request, "CreateProcessingJob")
    check_resources(request["ProcessingResources"]["ClusterConfig"])
    outputs = request.get("ProcessingOutputConfig", {}).get("Outputs", [])
    sources = [one["S3Input"] for one in request.get("ProcessingInputs", [])] + [one["S3Output"] for one in outputs]
    for source in sources:
        if not source.get("LocalPath", "").startswith("/opt/ml/processing/"):
            raise invalid(f"LocalPath {source.get('LocalPath')} must begin with /opt/ml/processing/")
    if request["AppSpecification"].get("ContainerEntrypoint", ENTRY)[:3] != ENTRY:
        raise invalid("the emulator runs the image's own entry point alone")


class Processings:
    """The actions, as methods (region, parameters) -> answer; and the jobs by name."""

    def __init__(self, emulator):
        self.emulator, self.known = emulator, {}

    def create(self, region, request):
        check_processing(request)
        job = self.known[request["ProcessingJobName"]] = Processing(self.emulator, region, request)
        job.thread.start()
        return job

    def DescribeProcessingJob(self, region, request):
        found = self.known.get(request["ProcessingJobName"])
        if found is None or found.region != region:
            raise invalid("Could not find requested job with name: " + request["ProcessingJobName"])
        return found.describe()

    def kill_all(self):
        for job in self.known.values():
            job.stop()
        for job in self.known.values():
            job.thread.join(1200)


class Processing:
    """One processing job, and the thread that lives it."""

    def __init__(self, emulator, region, request):
        self.emulator, self.region, self.request, self.name = emulator, region, request, request["ProcessingJobName"]
        self.arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:processing-job/{self.name}"
        self.root = Path(emulator.folder) / "processing" / self.name / "ml"
        self.created, self.status, self.reason, self.message, self.lines = time.time(), "InProgress", None, None, []
        self.stopping, self.instance, self.s3 = False, None, emulator.client("s3")
        self.thread = threading.Thread(target=self._live, daemon=True, name=self.name)

    def stop(self):
        self.stopping = True
        if self.instance is not None:
            self.instance.kill()

    def log(self):
        return "\n".join(self.lines)

    def describe(self):
        kept = {key: value for key, value in self.request.items() if key != "Tags"}
        answer = {"ProcessingJobArn": self.arn, "ProcessingJobStatus": self.status, "CreationTime": self.created}
        answer |= {"ExitMessage": self.message} if self.message is not None else {}
        return kept | answer | ({"FailureReason": self.reason} if self.reason is not None else {})

    def _live(self):
        try:
            status = self._run()
        except Exception as error:
            self.reason, status = f"InternalServerError: {type(error).__name__}: {error}", "Failed"
        self.status = "Stopped" if self.stopping else status

    def _run(self):
        for part in ("config", "output", "processing"):
            (self.root / part).mkdir(parents=True)
        for channel in self.request.get("ProcessingInputs", []):
            source = channel["S3Input"]
            if not download(self.s3, source["S3Uri"], self._here(source["LocalPath"])):
                raise invalid(f"No S3 objects found under S3 URL {source['S3Uri']}")
        application = self.request["AppSpecification"]
        command = [*application.get("ContainerEntrypoint", ENTRY)[3:], *application.get("ContainerArguments", [])]
        environment = inside(self.emulator, self.region) | self.request.get("Environment", {})
        self.instance = Instance("algo-1", self.root, environment, self.lines.append, command)
        if self.stopping:
            self.instance.kill()
        code = self.instance.process.wait()
        self.instance.drain()
        message = self.root / "output" / "message"
        self.message = message.read_bytes()[:1024].decode(errors="replace") if message.is_file() else None
        for output in self.request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            self._send(self._here(output["S3Output"]["LocalPath"]), output["S3Output"]["S3Uri"])
        self.reason = f"AlgorithmError: See job logs for more information, exit code: {code}" if code else None
        return "Failed" if code else "Completed"

    def _here(self, path):
        return self.root / path.removeprefix(ML)

    def _send(self, folder, place):
        bucket, prefix = split(place)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.s3.upload_file(str(path), bucket, f"{prefix.rstrip('/')}/{path.relative_to(folder)}")
