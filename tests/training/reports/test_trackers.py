"""What TensorBoard and Weights & Biases really have on disk after a run's events, resumed, failing or not asked for."""

import json
import os
import struct
import subprocess
import sys

import pytest
from PIL import Image
from small_runs import in_a_process, kill_me
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sdxl_nb.config.machine import check_wandb
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, SdxlNbError
from sdxl_nb.training.reports.trackers import Trackers

pytestmark = pytest.mark.slow

SEED = 7


def trackers(folder, report_to, warnings=None):
    """Trackers as the trainer makes them."""
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    config = TrainConfig.preset("tiny", output_dir=str(folder), report_to=report_to)
    project = ProjectConfiguration(str(folder), logging_dir=str(folder / config.logging_dir))
    accelerator = Accelerator(log_with=None if report_to == "none" else report_to, project_config=project, cpu=True)
    return Trackers(config, accelerator, folder, None if warnings is None else warnings.append)


def send(tracking, folder, steps, resumed_from=None):
    """The events of these optimizer steps, with validation pictures at the first and the last."""
    tracking({"event": "start", "step": steps[0], "resumed_from": resumed_from})
    for step in steps:
        if step:
            loss = {"event": "step", "step": step, "train_loss": 1 / step, "lr": 1e-4 * step, "seconds": 0.1}
            tracking(loss)
        if step in (steps[0], steps[-1]):
            path = folder / "validation" / f"step-{step}" / f"00-{SEED}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (20 * step, 0, 0)).save(path)
            picture = str(path.relative_to(folder))
            tracking({"event": "validation", "step": step, "pictures": [picture], "prompts": ["a dragon"]})
    tracking({"event": "warning", "step": steps[-1], "message": "ignored"})


def read(folder):
    """TensorBoard's own reading of a logs folder."""
    return EventAccumulator(str(folder / "logs" / "sdxl_nb"), size_guidance={"images": 0}).Reload()


def test_tensorboard_reads_loss_rate_and_pictures_at_their_steps(tmp_path):
    tracking = trackers(tmp_path, "tensorboard")
    send(tracking, tmp_path, [0, 1, 2, 3])
    tracking.close()
    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train_loss")] == [
        (step, pytest.approx(1 / step)) for step in (1, 2, 3)
    ]
    assert [(e.step, e.value) for e in events.Scalars("lr")] == [(s, pytest.approx(1e-4 * s)) for s in (1, 2, 3)]
    assert [(e.step, e.width) for e in events.Images(f"validation/00-{SEED}")] == [(0, 16), (3, 16)]
    assert {path.name for path in tmp_path.iterdir()} == {"logs", "validation"}


def test_a_resumed_run_goes_on_with_the_curve_and_replaces_what_was_lost(tmp_path):
    first = trackers(tmp_path, "tensorboard")
    send(first, tmp_path, [0, 1, 2, 3, 4])  # killed after step 4; the last checkpoint is of step 2
    first.close()
    second = trackers(tmp_path, "tensorboard")
    send(second, tmp_path, [3, 4, 5], resumed_from=2)
    second.close()
    assert [event.step for event in read(tmp_path).Scalars("train_loss")] == [1, 2, 3, 4, 5]


def test_none_writes_nothing(tmp_path):
    tracking = trackers(tmp_path, "none")
    send(tracking, tmp_path, [0, 1])
    tracking.close()
    assert [path.name for path in tmp_path.iterdir()] == ["validation"]


class Full:
    """A writer whose disk is full."""

    def __init__(self):
        self.calls = 0

    def __getattr__(self, name):
        self.calls += 1
        raise OSError(28, "No space left on device")


def test_a_tracker_that_fails_is_reported_once_and_left_out(tmp_path):
    warnings = []
    tracking = trackers(tmp_path, "tensorboard", warnings)
    send(tracking, tmp_path, [0, 1])
    tracking.open[0].writer = full = Full()
    send_more = [{"event": "step", "step": step, "train_loss": 0.5, "lr": 1e-4} for step in (2, 3, 4)]
    for event in send_more:
        tracking(event)
    tracking.close()
    assert warnings == [
        "tensorboard failed and is left out from here on ([Errno 28] No space left on device); training goes on."
    ]
    assert full.calls == 1


def test_a_tracker_that_cannot_start_ends_the_run_before_it_costs_anything(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    tracking = trackers(tmp_path, "tensorboard")
    with pytest.raises(SdxlNbError, match=r"tensorboard cannot be started \(.*\): use another --report_to."):
        tracking({"event": "start", "step": 0, "resumed_from": None})
    tracking.close()


# Weights & Biases.


def messages(data):
    """The messages of a .wandb file: after 7 bytes blocks of 32 KiB, in LevelDB's log format (crc, length, kind)."""
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole message, or the last part of one
            yield whole
            whole = b""


def records(folder):
    """Every record of the offline runs of a folder, oldest first."""
    from wandb.proto.wandb_internal_pb2 import Record

    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    return [Record.FromString(message) for path in paths for message in messages(path.read_bytes())]


def history(folder):
    """The logged values by name: [(step, value)]."""
    found = {}
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            for name, value in values.items():
                found.setdefault(name, []).append((record.history.step.num, value))
    return found


@pytest.fixture
def wandb_home(tmp_path, monkeypatch):
    """A home without W&B's files, in offline mode."""
    for name, value in {"HOME": tmp_path / "home", "WANDB_DIR": None, "WANDB_MODE": "offline"}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, str(value))
    for name in ("WANDB__SERVICE_WAIT", "WANDB_INIT_TIMEOUT"):
        monkeypatch.setenv(name, "600")  # seconds; it gives up sooner than a busy machine starts its service
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "home").mkdir()
    import wandb

    wandb.teardown()
    yield tmp_path
    wandb.teardown()


def test_wandb_offline_has_loss_rate_and_pictures_in_the_run_folder(wandb_home):
    folder = wandb_home / "run"
    folder.mkdir()
    tracking = trackers(folder, "wandb")
    send(tracking, folder, [0, 1, 2])
    tracking.close()
    logged = history(folder)
    assert logged["train_loss"] == [(1, 1.0), (2, 0.5)]
    assert logged["lr"] == [(1, pytest.approx(1e-4)), (2, pytest.approx(2e-4))]
    assert logged["validation/captions"] == [(0, ["a dragon"]), (2, ["a dragon"])]
    assert logged["validation/count"] == [(0, 1), (2, 1)]
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/*.png"))) == 2
    assert {path.name for path in folder.iterdir()} == {"validation", "wandb"}


def test_wandb_goes_on_with_the_same_run_on_resume(wandb_home):
    folder = wandb_home / "run"
    folder.mkdir()
    for steps, resumed in (([0, 1], None), ([2, 3], 1)):
        tracking = trackers(folder, "wandb")
        send(tracking, folder, steps, resumed)
        tracking.close()
    runs = [record.run.run_id for record in records(folder) if record.WhichOneof("record_type") == "run"]
    assert len(set(runs)) == 1 and len(list(folder.glob("wandb/offline-run-*"))) == 2
    tracking = trackers(folder, "wandb")
    send(tracking, folder, [0, 1])
    tracking.close()
    assert len({record.run.run_id for record in records(folder) if record.WhichOneof("record_type") == "run"}) == 2


def killed(folder):
    """A run that is killed right after its checkpoint of step 2, having taken step 3."""
    tracking = trackers(folder, "tensorboard" if folder.name == "tb" else "wandb")
    send(tracking, folder, [0, 1, 2])
    tracking({"event": "checkpoint", "step": 2, "path": "checkpoint-2"})
    tracking({"event": "step", "step": 3, "train_loss": 9.0, "lr": 1e-4})
    kill_me()


def test_tensorboard_has_all_up_to_a_checkpoint_when_the_run_is_killed(tmp_path):
    folder = tmp_path / "tb"
    folder.mkdir()
    assert in_a_process(killed, folder) == -9
    assert [event.step for event in read(folder).Scalars("train_loss")][:2] == [1, 2]


def test_wandb_is_told_again_what_a_kill_took_from_it(wandb_home):
    folder = wandb_home / "run"
    folder.mkdir()
    lines = [{"event": "start", "step": 0, "resumed_from": None}]
    for step in (1, 2, 3):
        lines.append({"event": "step", "step": step, "train_loss": 1 / step, "lr": 1e-4 * step})
        lines.append({"event": "heldout", "step": step, "loss": 0.5, "best": True})
    lines.append({"event": "start", "step": 2, "resumed_from": 2})
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert in_a_process(killed, folder) == -9
    assert history(folder).get("train_loss", []) == []  # it kept all in memory
    tracking = trackers(folder, "wandb")
    send(tracking, folder, [3, 4], resumed_from=2)
    tracking.close()
    assert history(folder)["train_loss"] == [(step, pytest.approx(1 / step)) for step in (1, 2, 3, 4)]
    assert history(folder)["heldout_loss"] == [(1, 0.5), (2, 0.5)]
    assert not (folder / "wandb" / "unfinished").exists()
    tracking = trackers(folder, "wandb")
    send(tracking, folder, [5], resumed_from=4)  # a run that was closed is told nothing again
    tracking.close()
    assert len(history(folder)["train_loss"]) == 5


def test_when_trackers_are_closed_all_is_written(wandb_home):
    folder = wandb_home / "run"
    folder.mkdir()
    tracking = trackers(folder, "wandb")
    send(tracking, folder, [0, 1, 2])
    tracking.close()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    size = path.stat().st_size
    assert [record.WhichOneof("record_type") for record in records(folder)][-1] == "exit"
    import wandb

    wandb.teardown()  # waits for W&B's service
    assert path.stat().st_size == size


def test_wandb_never_asks_for_a_login(wandb_home, monkeypatch):
    import wandb

    check_wandb()  # offline
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    with pytest.raises(ConfigError, match="report_to wandb needs a login: run wandb login once or set WANDB_API_KEY"):
        check_wandb()
    host = wandb.setup().settings.base_url.partition("://")[2]
    (wandb_home / "netrc").write_text(f"machine {host}\n  login user\n  password {'a' * 40}\n")
    (wandb_home / "netrc").chmod(0o600)
    check_wandb()
    (wandb_home / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "b" * 40)
    wandb.teardown()
    check_wandb()


def test_not_logged_in_is_said_before_anything_is_written(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "none")}
    command = [sys.executable, "-m", "sdxl_nb.train", "--preset", "tiny", "--report_to", "wandb", "--output_dir", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: report_to wandb needs a login: run wandb login once or set WANDB_API_KEY, or set WANDB_MODE=offline\n"
    )
    assert not (tmp_path / "run").exists()
