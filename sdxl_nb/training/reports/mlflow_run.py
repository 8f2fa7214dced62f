"""A run's MLflow run: begun once, gone on with by every resume, ended as the training ended.

In: the run folder and its logs folder. Out: options of accelerate's MLflowTracker, and what MLflow has of each curve
already. The id is kept in LOGS/mlflow/run; without MLFLOW_TRACKING_URI the store is LOGS/mlflow/mlflow.db, and the
pictures lie beside it. MLflow writes each value at once: after a kill it may have steps that the resumed run takes
again (they are not told twice) or lack the last before a checkpoint (those are told again).
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config.mlflow_store import QUIET, RUN_NAME, URI, said

STATUSES = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """See the module. `open` before the tracker starts, `begun` after it, then `close`; `leave` whatever happened."""

    def __init__(self, folder: Path, logs: Path, warn: Callable[[str], None]):
        self.folder, self.home = folder, logs.resolve() / "mlflow"
        self.warn, self.takes_pictures = warn, True
        self.told: dict[str, set[int]] = {}  # steps that each curve has
        self.own = self.is_open = False

    def open(self, resumed_from: int | None) -> dict[str, Any]:
        """The tracker's options: the same MLflow run on resume, unless that is gone; pictures where the store is."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import mlflow

        self.home.mkdir(parents=True, exist_ok=True)
        self.own = not os.environ.get(URI)
        if self.own:
            mlflow.set_tracking_uri(f"sqlite:///{self.home / 'mlflow.db'}")
        options: dict[str, Any] = {"run_name": os.environ.get(RUN_NAME) or self.folder.resolve().name}
        if self.own:
            options["logging_dir"] = (self.home / "artifacts").as_uri()
        if resumed_from is not None and (known := self._known()):
            options["run_id"] = known
        return options

    def _known(self) -> str | None:
        """The id of the MLflow run before this resume, if the store still has it."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        with contextlib.suppress(FileNotFoundError, MlflowException):
            kept = (self.home / "run").read_text(encoding="utf-8")
            if MlflowClient().get_run(kept).info.lifecycle_stage == "active":
                return kept
        return None

    def begun(self, tracker: Any) -> None:
        """Keep the id of the run that the tracker has begun or opened, and look what it has of each curve."""
        from mlflow.tracking import MlflowClient

        run, client = tracker.active_run, MlflowClient()
        (self.home / "run").write_text(run.info.run_id, encoding="utf-8")
        for name in client.get_run(run.info.run_id).data.metrics:
            self.told[name] = {point.step for point in client.get_metric_history(run.info.run_id, name)}
        drawn = [Path(item.path).name for item in client.list_artifacts(run.info.run_id, "validation")]
        self.told["validation"] = {int(name.removeprefix("step-")) for name in drawn if name.startswith("step-")}
        self.is_open = True

    def log(self, tracker: Any, values: dict[str, float], step: int) -> None:
        """Tell the values of a step, but for those that MLflow has."""
        values = {name: value for name, value in values.items() if step not in self.told.get(name, ())}
        if values:
            tracker.log(values, step=step)

    def pictures(self, tracker: Any, paths: list[Path], step: int) -> None:
        """Validation pictures as artifacts, validation/step-STEP/NAME; where these are refused, curves still go on.

        They go to another place than curves: to a bucket, often, which wants permissions of its own.
        """
        if not self.takes_pictures or step in self.told["validation"]:
            return
        try:
            for path in paths:
                tracker.log_artifact(str(path), artifact_path=f"validation/step-{step}")
        except Exception as error:
            self.takes_pictures = False
            self.warn(f"mlflow takes no pictures ({said(error)}); it gets the curves alone.")

    def close(self, status: str) -> None:
        """End the MLflow run as this one ended."""
        import mlflow

        self.is_open = False
        mlflow.end_run(STATUSES.get(status, "FAILED"))

    def leave(self) -> None:
        """Leave MLflow as it was found, also where it failed meanwhile."""
        if self.is_open:
            with contextlib.suppress(Exception):
                self.close("failed")
        if self.own:
            import mlflow

            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # that is how it is unset
            self.own = False
