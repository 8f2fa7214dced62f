"""One execution of a pipeline, watched: its status, its training job, waiting for it and stopping it.

In: the ARN of an execution. Out: plain values, lines while it goes on, the Run of its training job, and why it ended.
Whoever stops watching stops nothing.
"""

from __future__ import annotations

import html
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .messages import AwsError, explained
from .pipelines.gate import REGISTER
from .pipelines.steps import TUNE
from .session import Session
from .tuning_step import STEP

if TYPE_CHECKING:
    from .job_run import JobRun
    from .search.tuning_job import TuningJob

OVER = ("Succeeded", "Failed", "Stopped")
PATIENCE = 10  # failed looks in a row, while watching, before it is said that AWS cannot be reached


class Execution:
    """One execution of a pipeline: its status, its training job, and how to wait for it or stop it."""

    def __init__(self, arn: str, session: Session | None = None):
        self.arn, self.session = arn, session or Session(arn.split(":")[3])

    def describe(self) -> dict[str, Any]:
        """What the service says of the execution."""
        with explained():
            return self.session.client("sagemaker").describe_pipeline_execution(PipelineExecutionArn=self.arn)

    @property
    def status(self) -> str:
        """Executing, Stopping, Stopped, Failed or Succeeded."""
        return self.describe()["PipelineExecutionStatus"]

    def steps(self) -> list[dict[str, Any]]:
        """What the service says of each step that has begun, the first one first."""
        with explained():
            found = self.session.client("sagemaker").list_pipeline_execution_steps(PipelineExecutionArn=self.arn)
        return list(reversed(found["PipelineExecutionSteps"]))

    def step(self, name: str = STEP) -> dict[str, Any]:
        """What the service says of a step, by default the tuning step; empty before it begins."""
        return next((step for step in self.steps() if step["StepName"] == name), {})

    @property
    def registered(self) -> str | None:
        """The ARN of the version in the model registry; None where none was made."""
        arn: str | None = self.step(REGISTER).get("Metadata", {}).get("RegisterModel", {}).get("Arn")
        return arn

    @property
    def job_name(self) -> str | None:
        """The name of the training job (a cached step's is the earlier one's); None before it begins.

        Of a search it is the best training's. Raises AwsError where none has a held-out loss yet.
        """
        if self.search is not None:
            return self.search.best_name()
        step = self.step()
        job = step.get("Metadata", {}).get("TrainingJob", {}).get("Arn")
        if job is None and (source := step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")):
            return Execution(source, self.session).job_name
        return job and job.rpartition("/")[2]

    @property
    def search(self) -> TuningJob | None:
        """The search of a pipeline that has one, as `tune_sagemaker` returns it; None without, and before it begins."""
        from .search.tuning_job import TuningJob

        step = self.step(TUNE)
        job = step.get("Metadata", {}).get("TuningJob", {}).get("Arn")
        if job is None and (source := step.get("CacheHitResult", {}).get("SourcePipelineExecutionArn")):
            return Execution(source, self.session).search
        name = job and job.rpartition("/")[2]
        return name and TuningJob(name, Path("runs") / name, self.session)

    @property
    def run(self) -> JobRun:
        """The run of the training job, as `launch_sagemaker` returns one. Raises AwsError before the job is there."""
        from .job import open_run

        if (name := self.job_name) is None:
            raise AwsError(f"The pipeline has no training job yet (it is {self.status}): look again in a minute.")
        return open_run(name)

    @property
    def failure(self) -> str | None:
        """Why it failed: in the job's own words, what the audit found, or that its LoRA did not pass the gate."""
        for step in self.steps():
            said = step.get("Metadata", {}).get("Fail", {}).get("ErrorMessage") or step.get("FailureReason")
            if said:
                return self._of_audit(step) or str(said)
        return self.describe().get("FailureReason")

    def _of_audit(self, step: dict[str, Any]) -> str | None:
        """What a processing job that failed said itself, which the service keeps as the job's exit message.

        Where nobody lets us look at the job, that is said beside what the step has.
        """
        job = step.get("Metadata", {}).get("ProcessingJob", {}).get("Arn")
        if job is None:
            return None
        name = job.rpartition("/")[2]
        try:
            with explained(f"What the audit found was not read (it is in the log of {name})"):
                said = self.session.client("sagemaker").describe_processing_job(ProcessingJobName=name)
        except AwsError as error:
            return f"{step.get('FailureReason', 'The audit failed')} {error}"
        return said.get("ExitMessage")

    def stop(self) -> None:
        """Ask the service to stop it: the job saves a checkpoint and its LoRA, and ends within two minutes."""
        with explained():
            self.session.client("sagemaker").stop_pipeline_execution(
                PipelineExecutionArn=self.arn, ClientRequestToken=uuid.uuid4().hex
            )

    def wait(self, *, interval: float = 30, say: Callable[[str], None] = print) -> str:
        """Say each change of status until it is over; returns the status. Interrupting leaves it running.

        Raises AwsError where AWS cannot be reached for several minutes: the execution goes on and can be watched again.
        """
        said, missed, pause = "", 0, min(1.0, interval)
        while True:
            try:
                status, line = self._look()
                missed = 0
            except AwsError:
                missed += 1
                if missed == PATIENCE:
                    raise
                status = line = ""
            if line and line != said:
                say(line)
                said = line
            if status in OVER:
                return status
            time.sleep(pause)
            pause = min(interval, pause * 1.3)  # a step from the cache ends in seconds, training in hours

    def _look(self) -> tuple[str, str]:
        """The status, and the line that says it."""
        status, steps = self.status, self.steps()
        said = ", ".join(_said(step) for step in steps)
        return status, f"{status}. {said}" if said else f"{status}."

    def __repr__(self) -> str:
        return f"Execution({self.arn!r})"

    def _repr_html_(self) -> str:
        region, name = self.session.region, self.arn.split("/")[1]
        return f"Pipeline <b>{html.escape(name)}</b> in {html.escape(region)}: <code>{html.escape(self.arn)}</code>"


def _said(step: dict[str, Any]) -> str:
    """A step in a few words, with the job that it is, or the way that a gate went."""
    about = step.get("Metadata", {})
    jobs = (about.get(kind, {}).get("Arn", "") for kind in ("TrainingJob", "TuningJob", "ProcessingJob"))
    job = next((arn.rpartition("/")[2] for arn in jobs if arn), "")
    outcome = {"True": "passed", "False": "not passed"}.get(about.get("Condition", {}).get("Outcome", ""), "")
    found = "(found: it has run before)" if "CacheHitResult" in step else ""
    return " ".join(word for word in (f"{step['StepName']}: {step['StepStatus']}", job, outcome, found) if word)
