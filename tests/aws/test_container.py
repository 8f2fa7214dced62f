"""The training image's entry point over a folder that stands for /opt/ml: the contract, in processes of their own."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import boto3
import pytest
from sagemaker_emulator import SageMakerEmulator
from small_runs import assert_same, in_a_process, kill_me, small, whole

from sdxl_nb.aws import container
from sdxl_nb.aws.staging import Staged
from sdxl_nb.aws.tuning_step import HUB_SECRET, METRICS, OWN, WANDB_SECRET, hyperparameters
from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError

RUN = {"hosts": ["algo-1"], "current_host": "algo-1", "network_interface_name": "eth0"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder that is /opt/ml."""
    monkeypatch.setattr(container, "ROOT", tmp_path / "ml")
    monkeypatch.setenv("SDXL_NB_ML_ROOT", str(tmp_path / "ml"))  # for the processes that it starts
    monkeypatch.setenv(container.PROCESSES, "1")
    write(tmp_path / "ml", "resourceconfig", RUN)
    return tmp_path / "ml"


def write(root, name, value):
    folder = root / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(value))


def asked(root, **changes):
    """Write the hyperparameters of a small run; its folder in the job."""
    config = small("elsewhere", **changes)
    write(root, "hyperparameters", hyperparameters(config, Staged()))
    return Path(container.read_config().output_dir)


def entry(before=None):
    """The container's command; its exit code is the process's."""
    if before:
        before()
    sys.exit(container.main(["train"]))


def at_step(number, action):
    """What `entry` does before: let the action follow the report of this step."""

    def prepare():
        told = container.say

        def say(event):
            told(event)
            if (event["event"], event["step"]) == ("step", number):
                action()

        container.say = say

    return prepare


def failure(root):
    return (root / "output" / "failure").read_text()


def test_it_trains_and_delivers(root, tmp_path):
    folder = asked(root)
    write(root, "hyperparameters", json.loads(read(root)) | {"sagemaker_region": '"us-east-1"', "trigger_word": ""})
    assert in_a_process(entry) == 0
    assert json.loads((root / "checkpoints" / "job-here.json").read_text())["run"] == folder.name
    assert Run.open(folder).status == "completed"
    assert_same(root / "model", whole().folder)
    assert sorted(path.name for path in (root / "model").iterdir()) == [
        "README.md",
        "config.json",
        "pytorch_lora_weights.safetensors",
        "small.safetensors",
    ]
    assert not (root / "output" / "failure").exists()


def read(root):
    return (root / "input" / "config" / "hyperparameters.json").read_text()


def test_a_complete_run_is_delivered_again_and_never_trained_again(root):
    folder = asked(root)
    assert in_a_process(entry) == 0
    events = (folder / "events.jsonl").read_bytes()
    shutil.rmtree(root / "model")
    assert in_a_process(entry) == 0
    assert (folder / "events.jsonl").read_bytes() == events
    assert_same(root / "model", folder)


def test_a_copy_that_was_cut_short_is_made_whole(root):
    """run.json says completed, but the LoRA that came back is that of an earlier stop."""
    folder = asked(root)
    assert in_a_process(entry) == 0
    kept = shutil.copytree(folder, root / "kept")
    for name in ("pytorch_lora_weights.safetensors", "small.safetensors"):
        shutil.copyfile(folder / "checkpoint-4" / name, folder / name)
    assert in_a_process(entry) == 0
    assert_same(root / "model", kept)


def damaged(folder):
    """SIGKILL in the fifth step, then the newest checkpoint comes back without its state, and a draft with it."""
    assert in_a_process(entry, at_step(5, kill_me)) == -9
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-2", "checkpoint-4"]
    (folder / "checkpoint-4" / "state.safetensors").unlink()
    (folder / ".checkpoint-6.1.draft").mkdir()
    (folder / "stop").touch()


def test_a_checkpoint_in_pieces_is_left_out(root, tmp_path):
    folder = asked(root)
    damaged(folder)
    assert in_a_process(entry) == 0
    run = Run.open(folder)
    assert [event["resumed_from"] for event in run.events("start")] == [None, 2]
    assert run.losses()[0] == [1, 2, 3, 4, 5, 6] and not (folder / ".checkpoint-6.1.draft").exists()
    assert_same(root / "model", whole().folder)


def test_with_nothing_whole_it_begins_anew(root, tmp_path):
    folder = asked(root)
    damaged(folder)
    (folder / "checkpoint-2" / "state.safetensors").write_bytes(b"\0" * 64)
    shutil.copyfile(folder / "checkpoint-2" / "small.safetensors", folder / "pytorch_lora_weights.safetensors")
    assert in_a_process(entry) == 0
    assert_same(root / "model", whole().folder)


def test_a_foreign_run_is_left_alone(root):
    other = asked(root, seed=6)
    assert in_a_process(entry) == 0
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    mine = asked(root)
    assert mine != other and in_a_process(entry) == 0
    assert [event["resumed_from"] for event in Run.open(mine).events("start")] == [None]
    assert before == {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_asked_to_stop_it_saves_and_exits_with_0(root, tmp_path):
    folder = asked(root)
    assert in_a_process(entry, at_step(3, terminate)) == 0
    assert Run.open(folder).status == "stopped" and checkpoints(folder)[-1].name == "checkpoint-3"
    assert container.steps_of(root / "model" / "small.safetensors") == 3
    assert in_a_process(entry) == 0
    assert_same(root / "model", whole().folder)


def test_asked_to_stop_before_it_began_it_exits_with_0(root):
    asked(root)
    early = lambda: setattr(container, "read_secrets", terminate)  # noqa: E731
    assert in_a_process(entry, early) == 0
    assert not (root / "output" / "failure").exists() and not (root / "model").exists()


def test_the_failure_file_begins_with_the_reason(root):
    write(root, "hyperparameters", {"rank": "zero"})
    assert in_a_process(entry) == 1
    assert failure(root).splitlines()[0] == "rank must be a whole number, not 'zero'"
    (root / "output" / "failure").unlink()
    asked(root)
    assert in_a_process(entry, at_step(2, wrong)) == 1
    assert failure(root).splitlines()[0] == "RuntimeError: no such kernel" and "Traceback" in failure(root)


def wrong():
    raise RuntimeError("no such kernel")


def test_what_it_prints_is_what_the_metrics_find():
    step = {"event": "step", "time": 0, "step": 3, "train_loss": 0.051234567, "lr": 1e-4, "seconds": 0.8123}
    line = container.as_line(step)
    assert line == "step=3 train_loss=0.0512346 lr=0.0001 seconds=0.8123"
    found = {name: re.search(pattern, line) for name, pattern in METRICS.items()}
    values = {name: float(match[1]) for name, match in found.items() if match}
    assert values == {"train_loss": 0.0512346, "lr": 0.0001, "seconds_per_step": 0.8123}
    line = container.as_line({"event": "heldout", "step": 4, "loss": 2.5e-7})
    assert float(re.search(METRICS["heldout_loss"], line)[1]) == 2.5e-7
    assert container.as_line(step | {"train_loss": None}) == "step=3 lr=0.0001 seconds=0.8123"
    assert container.as_line({"event": "end", "step": 6, "status": "completed", "error": None}) == "end: completed"
    assert container.as_line({"event": "warning", "step": 0, "message": "{braces}"}) == "Note: {braces}"
    assert container.as_line({"event": "lora", "step": 6}) == ""


def test_hosts(root, monkeypatch):
    names = [f"algo-{n}" for n in range(1, 12)]
    for library in ("NCCL", "GLOO"):
        monkeypatch.delenv(f"{library}_SOCKET_IFNAME", raising=False)
    some = {"hosts": sorted(names), "current_host": "algo-10", "network_interface_name": "none0"}
    write(root, "resourceconfig", some)
    assert container.read_hosts() == (names, 9) and "NCCL_SOCKET_IFNAME" not in os.environ
    write(root, "resourceconfig", some | {"network_interface_name": "lo"})
    container.read_hosts()
    assert os.environ.pop("NCCL_SOCKET_IFNAME") == os.environ.pop("GLOO_SOCKET_IFNAME") == "lo"
    write(root, "resourceconfig", RUN | {"network_interface_name": "lo"})
    assert container.read_hosts() == (["algo-1"], 0) and "NCCL_SOCKET_IFNAME" not in os.environ


def test_it_knows_one_command(capsys):
    assert container.main(["serve"]) == 2
    assert "unknown command serve: the image is run as `IMAGE train`" in capsys.readouterr().err


def test_the_settings_that_are_the_containers_own():
    assert {"output_dir", "resume_from_checkpoint", "overwrite_output_dir"} <= set(OWN)
    assert set(container.SECRETS) == {HUB_SECRET, WANDB_SECRET}


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    with SageMakerEmulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator


def test_tokens_come_from_secrets_manager_and_are_told_to_nobody(aws, root, monkeypatch, capsys):
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="sdxl-nb/hub", SecretString="hf_bitterlemon1234567\n")
    secrets.create_secret(Name="sdxl-nb/wandb", SecretString='{"WANDB_API_KEY": "0123456789abcdef", "other": 1}')
    for name in container.SECRETS.values():
        monkeypatch.setenv(name, "")  # so that it is taken away again
    monkeypatch.setenv(HUB_SECRET, "sdxl-nb/hub")
    monkeypatch.setenv(WANDB_SECRET, "sdxl-nb/wandb")
    container.read_secrets()
    assert os.environ["HF_TOKEN"] == "hf_bitterlemon1234567" and os.environ["WANDB_API_KEY"] == "0123456789abcdef"
    container.report_failure(RuntimeError("401 for Bearer hf_bitterlemon1234567"))
    assert failure(root).splitlines()[0] == "RuntimeError: 401 for Bearer ***"
    assert "bitterlemon" not in failure(root) + "".join(capsys.readouterr())
    monkeypatch.setenv(HUB_SECRET, "sdxl-nb/none")
    with pytest.raises(SdxlNbError, match=r"^Reading the secret sdxl-nb/none with the job's role: "):
        container.read_secrets()


def test_the_first_failure_stays(root):
    container.report_failure(SdxlNbError("The first."))
    container.report_failure(SdxlNbError("The second."))
    assert failure(root).startswith("The first.\n")


@pytest.mark.soak
def test_two_processes_train_fail_and_stop_together(root, tmp_path, monkeypatch):
    monkeypatch.setenv(container.PROCESSES, "2")
    monkeypatch.setenv("MASTER_PORT", "29611")
    folder = asked(root)
    assert in_a_process(entry) == 0
    assert [event["processes"] for event in Run.open(folder).events("start")] == [2]
    assert (root / "model" / "small.safetensors").is_file()

    asked(root, pretrained_model_name_or_path="nobody/nothing")
    assert in_a_process(entry) == 1
    assert "nobody/nothing" in failure(root).splitlines()[0]

    (root / "output" / "failure").unlink()
    folder = asked(root, max_train_steps=100_000)
    assert in_a_process(entry, partial(terminate_at, folder, 3)) == 0
    assert Run.open(folder).status == "stopped" and not (folder / "stop").exists()
    assert container.steps_of(root / "model" / "small.safetensors") == Run.open(folder).step >= 3


def terminate_at(folder, step):
    """SIGTERM to this process, which waits for torchrun, when its run has taken so many steps."""

    def watch():
        while not (folder / "run.json").exists() or Run.open(folder).step < step:
            time.sleep(0.1)
        terminate()

    threading.Thread(target=watch, daemon=True).start()
