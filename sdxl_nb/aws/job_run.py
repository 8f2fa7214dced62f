"""A SageMaker job as a Run: what it wrote, how it is, what it costs; stopped and resumed.

In: a job's name and a folder. Out: a Run whose folder is a copy of the run folder that SageMaker keeps in S3 while it
trains. Looking never stops a job, and an AWS that cannot be reached for a while leaves what is here readable.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.layout import LORA
from ..runs.events import update
from ..runs.run import GOING_ON, Run
from ..system.errors import SdxlNbError
from . import costs, shapes, tuning_step
from .messages import SLOWER, TROUBLE, UNREACHABLE, AwsError, explain_end, explained, not_there
from .mirror import Mirror
from .session import Session

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

MARKER = "sagemaker.json"
LOGS = "/aws/sagemaker/TrainingJobs"
STATUSES = {"Completed": "completed", "Failed": "failed", "Stopped": "stopped"}
PASSING = SLOWER | TROUBLE | UNREACHABLE  # what may be well again in a while
RESUMED = re.compile(r"-r(\d+)$")
COPIED = (
    "AlgorithmSpecification", "RoleArn", "HyperParameters", "Environment", "InputDataConfig", "OutputDataConfig",
    "CheckpointConfig", "VpcConfig", "RetryStrategy", "MlflowConfig",
)  # fmt: skip


def first_job(name: str) -> str:
    """The name without what `resume` added."""
    return RESUMED.sub("", name)


def newest_job(session: Session, name: str) -> str:
    """The job that was started last of a run: the first one or one that resumed it."""
    first = first_job(name)
    with explained(f"The jobs of {first} were not listed"):
        pages = session.client("sagemaker").get_paginator("list_training_jobs")
        found = [
            job["TrainingJobName"]
            for page in pages.paginate(NameContains=first)
            for job in page["TrainingJobSummaries"]
        ]
    ours = [job for job in found if first_job(job) == first]
    return max(ours, key=_attempt, default=first)


def _attempt(name: str) -> int:
    found = RESUMED.search(name)
    return int(found[1]) if found else 1


class JobRun(Run):
    """A SageMaker job's run. Its folder is fetched from S3 as it grows; `interval` seconds pass between two looks."""

    interval = 5.0
    patience = 600.0  # seconds that `wait` bears a network that is away

    def __init__(self, folder: Path, job: str, session: Session | None = None):
        super().__init__(folder)
        self.job = job
        self._session, self._looked, self._fetched = session, -1e9, -1e9
        self._said: dict[str, Any] = {}
        self._refusal: AwsError | None = None
        self._lost: SdxlNbError | None = None
        self._fetching = threading.Lock()
        self._in_s3: list[int] = []
        self._mirror: Mirror | None = None

    @classmethod
    def start(
        cls, session: Session, name: str, request: dict[str, Any], folder: Path, say: Callable[[str], object] = print
    ) -> JobRun:
        """Start a job with the arguments of CreateTrainingJob, and say its name. Raises AwsError."""
        with explained(f"Job {name} was not started"):
            session.client("sagemaker").create_training_job(TrainingJobName=name, **request)
        say(f"Job {name} is starting; Run.open({name!r}) finds it again.")
        run = cls(folder, name, session)
        run.remember()
        return run

    @classmethod
    def at(cls, folder: str | Path) -> JobRun:
        """The run whose files this folder holds."""
        about = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
        run = cls(Path(folder), about["job"])
        run.region = about["region"]
        return run

    def _marker(self) -> dict[str, Any]:
        path = self.folder / MARKER
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    region: str | None = None

    def remember(self) -> None:
        """Note in the folder which job it belongs to, and how it ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        update(self.folder / MARKER, job=self.job, region=self.session.region, status=self._ended())

    def _ended(self) -> str | None:
        return STATUSES.get(self._said.get("TrainingJobStatus", ""))

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(self.region)
        return self._session

    # What the job does

    def describe(self) -> dict[str, Any]:
        """What SageMaker says of the job, asked at most every `interval` seconds. Raises AwsError."""
        if not self._ended() and time.monotonic() > self._looked + self.interval:
            self._refusal = None
            try:
                with explained(f"Job {self.job}"):
                    self._said = self.session.client("sagemaker").describe_training_job(TrainingJobName=self.job)
            except AwsError as error:
                self._refusal = not_there(error, self.job, self.session.region)
            self._looked = time.monotonic()
            if self._ended():
                self._fetched = -1e9  # one look more
                self.remember()
        if self._refusal:
            raise self._refusal
        return self._said

    @property
    def status(self) -> str:
        """starting, running, completed, stopped or failed; without a network what it was at the last look."""
        with contextlib.suppress(AwsError):
            self.describe()
        return self._status()

    def _status(self) -> str:
        if not self._said:
            return self._marker().get("status") or self.info.get("status", "starting")
        began = self.info or self._said.get("SecondaryStatus") in ("Training", "Uploading", "Stopping")
        return self._ended() or ("running" if began else "starting")

    @property
    def preparing(self) -> str:
        """What SageMaker is doing before the training begins."""
        return f"SageMaker says {self._said.get('SecondaryStatus', 'nothing yet')}"

    @property
    def config(self) -> TrainConfig:
        """The TrainConfig of the run; as long as it has not begun, that of the job. Raises SdxlNbError."""
        from .container import config_of

        if not (self.folder / "config.json").is_file():
            return config_of(self.describe()["HyperParameters"])
        return super().config

    @property
    def error(self) -> str | None:
        """Why the job failed, or ended before the run did, and what to do; None when neither."""
        self.status  # noqa: B018 - asks
        return explain_end(self._said, self.job)

    @property
    def trouble(self) -> SdxlNbError | None:  # type: ignore[override]  # nobody sets a job's: it is what a look found
        """Why the last look found nothing, if it did not; what is here already stays readable."""
        return self._refusal or self._lost

    # What it wrote

    @property
    def mirror(self) -> Mirror:
        """The run folder in S3 and here. Raises AwsError."""
        if self._mirror is None:
            mirror = Mirror(self.session, f"{self._checkpoints()}/{self._run_folder()}", self.folder)
            if self._marker().get("run_of") != self.job and not self._ended():
                return mirror  # the job has not said yet which folder it writes
            self._mirror = mirror
        return self._mirror

    def _checkpoints(self) -> str:
        return self.describe()["CheckpointConfig"]["S3Uri"].rstrip("/")

    def _run_folder(self) -> str:
        """The name of the run folder, as the job says it, or the job that it resumes; of older images the settings'."""
        from .container import config_of

        marker = self._marker()
        if marker.get("run_of") == self.job:
            return marker["run"]
        place = Mirror(self.session, self._checkpoints(), self.folder)
        for job in dict.fromkeys((self.job, first_job(self.job))):
            if said := place.read(f"job-{job}.json"):
                self.folder.mkdir(parents=True, exist_ok=True)
                update(self.folder / MARKER, run_of=job, run=said["run"])
                return said["run"]
        return config_of(self.describe()["HyperParameters"]).fingerprint()

    def refresh(self) -> None:
        """Fetch what is new, at most every `interval` seconds; an AWS that cannot be reached is `trouble`, no error."""
        with self._fetching, contextlib.suppress(AwsError):
            if time.monotonic() < self._fetched + self.interval:
                return
            self.describe()
            ended = self._ended()  # asked first: what is there now is the last
            self._fetched, self._lost = time.monotonic(), None
            try:
                self._fetch()
                self._fetched = float("inf") if ended else self._fetched
            except SdxlNbError as error:
                self._lost = error

    def _fetch(self, lora_of: str | None = None) -> None:
        old = self._bytes_of_events()
        if "events.jsonl" in self.mirror.fetch(lora_of) and not self._bytes_of_events().startswith(old):
            self._reader._forget()  # after an interruption the file goes on from an older state
        self._in_s3 = self.mirror.whole

    def checkpoints_elsewhere(self) -> list[int]:
        """The steps of the checkpoints that were whole in S3 at the last look."""
        self.refresh()
        return self._in_s3

    def fetch_lora(self, step: int) -> Path | None:
        """The folder of a checkpoint with its LoRA files, fetched from S3 once; None if it is gone. Raises AwsError."""
        if step not in self.checkpoints_elsewhere():
            return None
        with self._fetching:
            self._fetch(f"checkpoint-{step}")
        return self.folder / f"checkpoint-{step}"

    def _bytes_of_events(self) -> bytes:
        path = self.folder / "events.jsonl"
        return path.read_bytes() if path.is_file() else b""

    def _read(self) -> list[dict[str, Any]]:
        self.refresh()
        return self._reader()

    @property
    def lora(self):
        """The finished LoRA, or that of the newest checkpoint, fetched for it. Raises AwsError, ModelError."""
        from ..lora.files.file import LoraFile

        steps = self.checkpoints_elsewhere()
        newest = self.fetch_lora(steps[-1]) if steps and not (self.folder / LORA).is_file() else None
        return LoraFile(newest) if newest else super().lora

    @property
    def log_file(self) -> None:
        """None: a job's log is CloudWatch's."""
        return None

    def log(self, lines: int = 20) -> str:
        """The last lines that the job printed, from CloudWatch; of several instances the first's. Raises AwsError."""
        with explained(f"The log of job {self.job}"):
            client = self.session.client("logs")
            try:
                streams = client.describe_log_streams(logGroupName=LOGS, logStreamNamePrefix=f"{self.job}/")
            except client.exceptions.ResourceNotFoundException:
                return ""  # no job has printed anything yet
            names = [stream["logStreamName"] for stream in streams["logStreams"]]
            first = [name for name in names if "/algo-1-" in name] or names
            if not first:
                return ""
            events = client.get_log_events(
                logGroupName=LOGS, logStreamName=max(first), limit=lines, startFromHead=False
            )["events"]
        return "\n".join(event["message"] for event in events)

    # What it costs

    @property
    def cost(self) -> dict[str, float | None]:
        """Seconds of training and billed, dollars so far, and the share that spot saved. Raises AwsError."""
        return costs.so_far(self.describe(), self.session.region)

    # What can be done to it

    def stop(self) -> None:
        """Ask the job to save its state and end; it is billed until then, about a minute. Raises AwsError."""
        with explained(f"Job {self.job} was not stopped"):
            try:
                self.session.client("sagemaker").stop_training_job(TrainingJobName=self.job)
            except Exception as error:
                self._looked = -1e9
                if self.status in GOING_ON:
                    raise
                if self.trouble:
                    raise self.trouble from error
        self._looked = -1e9

    def _ask(self, wish: str) -> None:
        raise SdxlNbError(f"Job {self.job} hears nothing but stop: its pictures and checkpoints come at their steps.")

    @property
    def price(self) -> str:  # type: ignore[override]  # nobody sets it
        """The sentence about what `resume` costs at most. Raises AwsError."""
        return self._priced(self._next_job())

    def _priced(self, job: tuning_step.Job) -> str:
        kind, _ = costs.instances_of(self.describe()["ResourceConfig"])
        pace = self.seconds_per_step if job.types == (kind,) else None
        return costs.of_rest(job, self.session.region, pace, self.steps or 0, self.step)

    def _next_job(
        self,
        instance_type: str | None = None,
        spot: bool | None = None,
        max_run: int | None = None,
        max_wait: int | None = None,
    ) -> tuning_step.Job:
        """The job that goes on with this one, on the same instances and limits where none are given."""
        said = self.describe()
        resources, limits = said["ResourceConfig"], said["StoppingCondition"]
        kinds = [one["InstanceType"] for one in shapes.preferences(resources)] or [resources.get("InstanceType")]
        return tuning_step.Job(
            instance_type=instance_type or kinds[0],
            fallbacks=() if instance_type else tuple(kinds[1:]),
            instance_count=costs.instances_of(resources)[1],
            spot=said.get("EnableManagedSpotTraining", False) if spot is None else spot,
            max_run=max_run or limits["MaxRuntimeInSeconds"],
            max_wait=max_wait,
            kms_key=said["OutputDataConfig"].get("KmsKeyId") or None,
            volume_size_gb=resources.get("VolumeSizeInGB", tuning_step.Job.volume_size_gb),
            max_pending=limits.get("MaxPendingTimeInSeconds"),
            keep_alive=None if spot else resources.get("KeepAlivePeriodInSeconds"),
        )

    def resume(  # type: ignore[override]  # a job is resumed on other machines, not in other processes
        self,
        *,
        instance_type: str | None = None,
        spot: bool | None = None,
        max_run: int | None = None,
        max_wait: int | None = None,
        say: Callable[[str], object] = print,
    ) -> JobRun:
        """Go on from the newest checkpoint in a new job, on other instances or limits if given; returns its JobRun.

        `say` gets what it costs at most, and the job's name. Raises SdxlNbError when the run goes on or is completed,
        and AwsError.
        """
        said = self.describe()
        if (status := self.status) in GOING_ON or status == "completed":
            raise SdxlNbError(f"Job {self.job} is {status}: there is nothing to resume.")
        job = self._next_job(instance_type, spot, max_run, max_wait)
        request = {name: said[name] for name in COPIED if name in said} | tuning_step.machines(job)
        with explained(f"The tags of job {self.job} were not read"):
            tags = self.session.client("sagemaker").list_tags(ResourceArn=said["TrainingJobArn"])["Tags"]
        request["Tags"] = [tag for tag in tags if not tag["Key"].startswith("aws:")]  # are AWS's to give
        newest = newest_job(self.session, self.job)
        shapes.refuse(request | {"TrainingJobName": f"{first_job(newest)}-r{_attempt(newest) + 1}"})
        say(self._priced(job))
        return self.start(self.session, f"{first_job(newest)}-r{_attempt(newest) + 1}", request, self.folder, say)

    def wait(self, timeout: float | None = None, interval: float | None = None) -> str:
        """Wait until the job is over and its files are here; returns the status.

        An interrupt of the kernel detaches: the job goes on. TimeoutError after `timeout` seconds; AwsError where
        credentials end, or the network stays away for long; the job goes on then too.
        """
        begun = well = time.monotonic()
        try:
            while True:
                status = self.status
                if status not in GOING_ON and not self.trouble:
                    self.refresh()
                if not self.trouble:
                    well = time.monotonic()
                    if status not in GOING_ON:
                        return status
                elif getattr(self.trouble, "code", "") not in PASSING or time.monotonic() > well + self.patience:
                    raise self.trouble
                if timeout is not None and time.monotonic() > begun + timeout:
                    raise TimeoutError(f"Job {self.job} is still going after {timeout:g} s.")
                self.refresh()
                time.sleep(self.interval if interval is None else interval)
        except KeyboardInterrupt:
            print(f"No longer watching. Job {self.job} goes on, and is billed: Run.open({self.job!r}).stop() ends it.")
            return self._status()

    def summary(self) -> dict[str, Any]:
        """The few numbers one asks for first."""
        known = {"job": self.job, **super().summary()}
        with contextlib.suppress(AwsError):
            spent = self.cost
            known |= {"billed_seconds": spent["billed_seconds"], "dollars": spent["dollars"], "saving": spent["saving"]}
        return known | {"trouble": str(self.trouble) if self.trouble else None}
