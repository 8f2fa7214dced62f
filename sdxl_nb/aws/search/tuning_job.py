"""A search on SageMaker seen from here: its trials with values, objective and cost; the best of them as a Run.

In: a tuning job's name. Out: a TuningJob, which shows as a table. Looking stops nothing; whoever opens the name again,
from a fresh kernel, finds the same.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import costs
from ..messages import NO_JOB, AwsError, explained
from ..session import Session

if TYPE_CHECKING:
    from ..job_run import JobRun

STATES = {"Completed": "completed", "Failed": "failed", "Stopped": "stopped", "Stopping": "stopping"}
OVER = ("completed", "failed", "stopped")
COLUMNS = ("trial", "state", "held-out loss", "minutes", "dollars")


@dataclass(frozen=True)
class Trial:
    """One training of a search: `loss` is None as long as it has none, `why` the reason where it failed.

    minutes: of training; dollars: as billed once it is over, else the most that it can be so far.
    """

    name: str
    state: str
    values: dict[str, Any]
    loss: float | None
    minutes: float | None
    dollars: float | None
    why: str | None = None


class TuningJob:
    """A tuning job: `TuningJob.open(name)`; `trials()`, `best()`, `wait()`, `stop()`, `cost`."""

    interval = 15.0  # seconds between two looks of `wait`

    def __init__(self, name: str, folder: Path, session: Session):
        self.name, self.folder, self.session = name, folder, session
        self._ended: dict[str, dict[str, Any]] = {}  # descriptions of trainings that are over, which never change

    @classmethod
    def open(cls, name: str, folder: str | Path | None = None, region: str | None = None) -> TuningJob:
        """The tuning job of this name; results come to `folder`, by default runs/NAME. Raises AwsError for none."""
        job = cls(name, Path(folder or Path("runs") / name), Session(region))
        job.describe()
        return job

    def describe(self) -> dict[str, Any]:
        """What SageMaker says of it. Raises AwsError."""
        try:
            with explained(f"Tuning job {self.name}"):
                return self.session.client("sagemaker").describe_hyper_parameter_tuning_job(
                    HyperParameterTuningJobName=self.name
                )
        except AwsError as error:
            if error.code in NO_JOB or error.code == "ResourceNotFound":
                raise AwsError(
                    f"There is no tuning job {self.name} in {self.session.region}: check its name, and set AWS_REGION "
                    "to its region.",
                    error.code,
                ) from error
            raise

    @property
    def status(self) -> str:
        """running, stopping, completed, failed or stopped. Raises AwsError."""
        return STATES.get(self.describe()["HyperParameterTuningJobStatus"], "running")

    @property
    def error(self) -> str | None:
        """Why the search failed, in SageMaker's words; None where it did not. Raises AwsError."""
        return self.describe().get("FailureReason")

    def trials(self) -> list[Trial]:
        """Every training that was started, the first one first. Raises AwsError."""
        with explained(f"The trainings of {self.name} were not listed"):
            pages = self.session.client("sagemaker").get_paginator("list_training_jobs_for_hyper_parameter_tuning_job")
            asked = pages.paginate(HyperParameterTuningJobName=self.name, SortBy="CreationTime", SortOrder="Ascending")
            return [self._trial(summary) for page in asked for summary in page["TrainingJobSummaries"]]

    def _trial(self, said: dict[str, Any]) -> Trial:
        name, state = said["TrainingJobName"], STATES.get(said["TrainingJobStatus"], "running")
        found = said.get("FinalHyperParameterTuningJobObjectiveMetric")
        spent = costs.so_far(self._described(name, state in OVER), self.session.region)
        seconds = spent["training_seconds"]
        return Trial(
            name,
            state,
            {key: _value(text) for key, text in said["TunedHyperParameters"].items()},
            None if found is None else found["Value"],
            None if seconds is None else seconds / 60,
            spent["dollars"],
            said.get("FailureReason"),
        )

    def _described(self, name: str, over: bool) -> dict[str, Any]:
        if name not in self._ended:
            said = self.session.client("sagemaker").describe_training_job(TrainingJobName=name)
            if not over:
                return said
            self._ended[name] = said
        return self._ended[name]

    def best_name(self) -> str:
        """The training with the least held-out loss, those of earlier searches that it went on from among them.

        Raises AwsError where none has one yet.
        """
        said = self.describe()
        found = said.get("OverallBestTrainingJob") or said.get("BestTrainingJob") or {}
        if not found.get("TrainingJobName"):
            raise AwsError(
                f"No training of {self.name} has a held-out loss yet (it is {self.status}): look again later, and at "
                "trials() where some have failed."
            )
        return str(found["TrainingJobName"])

    def best(self) -> JobRun:
        """The Run of the best training, its LoRA fetched. Raises AwsError."""
        run = self.run(self.best_name())
        run.refresh()
        if run.trouble:
            raise run.trouble
        return run

    def run(self, name: str) -> JobRun:
        """One training as a Run, its files in a folder of its own. Raises AwsError."""
        from ..job import open_run

        return open_run(name, self.folder / name)

    @property
    def cost(self) -> float | None:
        """Dollars so far; None where a price is not known. Raises AwsError."""
        spent = [trial.dollars for trial in self.trials()]
        return None if None in spent else round(sum(dollars for dollars in spent if dollars), 2)

    def stop(self) -> None:
        """End the search: trainings that go on save their LoRA and end within two minutes. Raises AwsError."""
        with explained(f"Tuning job {self.name} was not stopped"):
            self.session.client("sagemaker").stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=self.name)

    def wait(
        self, timeout: float | None = None, interval: float | None = None, say: Callable[[str], object] = print
    ) -> str:
        """Say each training that ends until the search is over; returns the status. Interrupting leaves it running.

        Raises TimeoutError after `timeout` seconds, and AwsError: the search goes on then.
        """
        begun, told = time.monotonic(), set[str]()
        try:
            while True:
                status, trials = self.status, self.trials()
                for trial in trials:
                    if trial.state in OVER and trial.name not in told:
                        told.add(trial.name)
                        say(_line(trial, len(told)))
                if status in OVER:
                    return status
                if timeout is not None and time.monotonic() > begun + timeout:
                    raise TimeoutError(f"Tuning job {self.name} is still going after {timeout:g} s.")
                time.sleep(self.interval if interval is None else interval)
        except KeyboardInterrupt:
            say(f"No longer watching. Tuning job {self.name} goes on, and is billed: its stop() ends it.")
            return self.status

    # To look at

    def __repr__(self) -> str:
        return f"TuningJob({self.name!r})"

    def _rows(self) -> list[list[str]]:
        """A row for each trial, the best first; those without a loss last."""
        trials = sorted(self.trials(), key=lambda t: (t.loss is None, t.loss or 0.0, t.name))
        names = list(dict.fromkeys(name for trial in trials for name in trial.values))
        rows = [[COLUMNS[0], COLUMNS[1], *names, *COLUMNS[2:]]]
        for trial in trials:
            figures = [_figure(trial.loss, ".4g"), _figure(trial.minutes, ".1f"), _figure(trial.dollars, ".2f")]
            values = [_shown(trial.values.get(name)) for name in names]
            rows.append([trial.name.removeprefix(f"{self.name}-"), trial.state, *values, *figures])
        return rows

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        return "\n".join("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        title = f"Tuning job <b>{html.escape(self.name)}</b> is {self.status}"
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        columns = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        return f"{title}<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def _line(trial: Trial, number: int) -> str:
    values = ", ".join(f"{name}={_shown(value)}" for name, value in trial.values.items())
    loss = "no held-out loss" if trial.loss is None else f"held-out loss {trial.loss:.4g}"
    return f"{number}. {trial.state}: {loss} with {values}" + (f" ({trial.why.splitlines()[0]})" if trial.why else "")
