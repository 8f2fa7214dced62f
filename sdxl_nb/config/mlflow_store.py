"""Where `--report_to mlflow` keeps a run: the server or store of MLFLOW_TRACKING_URI, else a store of the run's own.

In: the environment. Out: ConfigError with one sentence where that place cannot be used; errors' texts without secrets.
A run's own store is a file of SQLite inside its folder, which needs the whole of MLflow; a server needs mlflow-skinny,
and one of SageMaker's, whose address is an ARN, sagemaker-mlflow. MLflow is imported here and by the tracker alone.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Set

from ..system.errors import ConfigError

PROJECT = "sdxl_nb"  # what trackers call the project, or the experiment
URI, EXPERIMENT, RUN_NAME = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME"
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
QUIET = {  # unless they are set: nothing but the store is spoken to, no address is printed, and nobody waits for hours
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
AT_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def check_mlflow(packages: Set[str]) -> None:
    """Raise ConfigError where MLflow's place does not answer, or needs a package that is not there."""
    place = os.environ.get(URI, "")
    kept = not place or place.startswith("sqlite:")
    if place.startswith("arn:") and "sagemaker_mlflow" not in packages:
        raise ConfigError(
            "report_to mlflow with SageMaker's MLflow needs the package sagemaker-mlflow: pip install sagemaker-mlflow "
            "(of a job, in its image), or --report_to tensorboard"
        )
    if kept and "sqlalchemy" not in packages:
        raise ConfigError(
            f"report_to mlflow needs all of MLflow for a store of its own: pip install mlflow, or set {URI} to a server"
        )
    if not place:
        return
    with _environment(QUIET | AT_ONCE):
        try:
            from mlflow.tracking import MlflowClient

            MlflowClient(tracking_uri=place).search_experiments(max_results=1)
        except Exception as error:  # whatever requests, boto3, SQLAlchemy or MLflow raise
            raise ConfigError(
                f"report_to mlflow finds no MLflow at {without_secrets(place)} ({said(error)}): start it, correct {URI}"
                ", or use --report_to tensorboard"
            ) from None  # its traceback has the address with its password


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def without_secrets(text: str) -> str:
    """A text without the user and password of the addresses in it, and without MLflow's own secrets."""
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "***@", text)
    for value in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(value, "***")
    return text


def said(error: BaseException) -> str:
    """The first line of an error, shortened, without secrets."""
    lines = without_secrets(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
