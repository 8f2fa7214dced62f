"""What MLflow really has after a run: in a store of the run's own and on a server, gone on with after a kill."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest
from small_runs import in_a_process, kill_me
from test_trackers import SEED, send, trackers

from sdxl_nb.config.mlflow_store import check_mlflow, without_secrets
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.reports.mlflow_run import MlflowRun

pytestmark = pytest.mark.slow

ALL = {"mlflow", "sagemaker_mlflow", "sqlalchemy"}


@pytest.fixture(autouse=True)
def no_mlflow_of_the_users(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        os.environ.pop(name)


def killed(folder):
    """A run that is killed after step 4, whose last checkpoint is that of step 2."""
    send(trackers(folder, "mlflow"), folder, [0, 1, 2, 3, 4])
    kill_me()


def kill_and_go_on(folder):
    """Two runs of one folder, the first of them killed; events.jsonl knows a loss that the first did not tell."""
    folder.mkdir()
    assert in_a_process(killed, folder) == -9
    lines = [{"event": "start", "step": 0, "resumed_from": None}]
    lines += [{"event": "step", "step": step, "train_loss": 1 / step, "lr": 1e-4 * step} for step in (1, 2)]
    lines += [{"event": "heldout", "step": 2, "loss": 0.5, "best": True}]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    warnings = []
    tracking = trackers(folder, "mlflow", warnings)
    send(tracking, folder, [3, 4, 5], resumed_from=2)
    tracking({"event": "heldout", "step": 5, "loss": 0.25, "best": True})
    tracking({"event": "validation", "step": 5, "pictures": ["run.json"], "prompts": ["gone"]})
    tracking.close("completed")
    assert warnings == []


def check(store, folder):
    """One run in the store, with each value once and each picture."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    (experiment,) = client.search_experiments(filter_string="name = 'sdxl_nb'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.name)
    assert run.info.run_id == (folder / "logs" / "mlflow" / "run").read_text()

    def curve(name):
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]

    assert sorted(curve("train_loss")) == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 4, 5)]
    assert sorted(curve("lr")) == [(step, pytest.approx(1e-4 * step)) for step in (1, 2, 3, 4, 5)]
    assert curve("heldout_loss") == [(2, 0.5), (5, 0.25)]
    found = [item.path for item in client.list_artifacts(run.info.run_id, "validation")]
    assert found == [f"validation/step-{step}" for step in (0, 3, 4, 5)]
    (picture,) = client.list_artifacts(run.info.run_id, "validation/step-5")
    assert picture.path == f"validation/step-5/00-{SEED}.png"
    assert picture.file_size == (folder / picture.path).stat().st_size


class Refusing:
    """A tracker whose artifacts' bucket lets nobody in."""

    name = "mlflow"

    def log_artifact(self, path, artifact_path):
        raise PermissionError(f"no s3:PutObject for {artifact_path} at https://me:s3cret@bucket")


def test_where_pictures_are_refused_the_curves_go_on(tmp_path):
    warnings = []
    run = MlflowRun(tmp_path, tmp_path / "logs", warnings.append)
    run.told["validation"] = set()
    for step in (1, 2):
        run.pictures(Refusing(), [tmp_path / "00.png"], step)
    said = "mlflow takes no pictures (no s3:PutObject for validation/step-1 at https://***@bucket); it gets the curves"
    assert warnings == [f"{said} alone."]


def test_a_run_has_a_store_of_its_own_and_goes_on_in_it_after_a_kill(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    kill_and_go_on(folder)
    assert "MLFLOW_TRACKING_URI" not in os.environ  # another run in this kernel has its own store
    check(f"sqlite:///{folder / 'logs' / 'mlflow' / 'mlflow.db'}", folder)
    assert {path.name for path in tmp_path.iterdir()} == {"run"} and capsys.readouterr().out == ""
    assert {path.name for path in folder.iterdir()} == {"events.jsonl", "logs", "validation"}


def test_a_server_that_is_not_there_is_said_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9/mlflow")
    with pytest.raises(
        ConfigError, match=r"^report_to mlflow finds no MLflow at http://\*\*\*@127.0.0.1:9/mlflow \(.*\): "
    ) as said:
        check_mlflow(ALL)
    assert "s3cret" not in str(said.value) and "\n" not in str(said.value) and said.value.__cause__ is None
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    assert without_secrets("a t0ken, postgresql://a:b@c/d") == "a ***, postgresql://***@c/d"


def test_what_mlflow_needs_for_its_place(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"^report_to mlflow needs all of MLflow .*: pip install mlflow, or set MLFLOW_"
    ):
        check_mlflow({"mlflow"})
    check_mlflow(ALL)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-1")
    with pytest.raises(
        ConfigError, match=r"needs the package sagemaker-mlflow: pip install sagemaker-mlflow \(of a job, "
    ):
        check_mlflow({"mlflow", "sqlalchemy"})


@pytest.fixture
def server(tmp_path):
    """A real `mlflow server`, its store a file of SQLite, its artifacts behind it; its address."""
    from sagemaker_emulator.machine import free_port

    port, store = free_port(), f"sqlite:///{tmp_path / 'server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--port", str(port)]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        )
    address = f"http://127.0.0.1:{port}"
    while True:
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).read()
            break
        except OSError:
            continue
    yield address
    process.terminate()
    process.wait()


@pytest.mark.soak
def test_a_real_server_has_the_same(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("//", "//me:s3cret@"))
    check_mlflow(ALL)
    kill_and_go_on(tmp_path / "run")
    check(server, tmp_path / "run")
    assert not (tmp_path / "run" / "logs" / "mlflow" / "mlflow.db").exists()
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert kept == [] and "s3cret" not in str(list((tmp_path / "run").rglob("*")))
