"""The training image's entry point: SageMaker's container contract, and nothing else.

    python -m sdxl_nb.container train        # what SageMaker runs, as process 1
    python -m sdxl_nb.container audit rank 8 # what a pipeline's audit runs: names and values of settings

In: /opt/ml/input (hyperparameters, hosts, channels) and the job's environment variables. Out: the run folder
/opt/ml/checkpoints/<name> (run_folder.py says by what it is named), which SageMaker copies to S3 while it is written
and brings back after a spot interruption, and beside it job-<name>.json, which says whose it is; /opt/ml/model with the
finished files; /opt/ml/output/failure, whose first line is the reason; exit 0 when the run is complete or was asked to
stop. SDXL_NB_ML_ROOT is another place for /opt/ml, for a dry run.
"""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.layout import LORA, drawings
from ..config.mlflow_store import RUN_NAME
from ..system.errors import SdxlNbError
from .identity import content, previews, run_folder
from .identity.run_folder import is_complete, resumable, steps_of

__all__ = ["config_of", "main", "read_config", "steps_of"]

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig

USUAL = "/opt/ml"
ROOT = Path(os.environ.get("SDXL_NB_ML_ROOT", USUAL))
PROCESSES = "SDXL_NB_PROCESSES"  # processes on each instance; without it one for each GPU
SECRETS = {"SDXL_NB_HUB_TOKEN_SECRET": "HF_TOKEN", "SDXL_NB_WANDB_SECRET": "WANDB_API_KEY"}
STOP_SECONDS = 60  # then processes that did not see the stop file are told by a signal; SageMaker kills after 120


def main(argv: Sequence[str] | None = None) -> int:
    """`train` is the container's command, `audit` a processing job's; `worker` is one of torchrun's processes."""
    command = sys.argv[1:] if argv is None else list(argv)
    if command[:1] == ["worker"]:
        return worker(command[1])
    if command[:1] == ["audit"]:
        return look(command[1:])
    if command not in ([], ["train"]):
        print(f"error: unknown command {' '.join(command)}: the image is run as `IMAGE train`", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)  # process 1 has no default action for it
    try:
        return train()
    except KeyboardInterrupt:
        print("Stopped before the first step: there was nothing to save.", flush=True)
        return 0
    except BaseException as error:
        report_failure(error)
        return 1


def train() -> int:
    """Everything from reading the job to delivering the model."""
    hosts, rank = read_hosts()
    read_secrets()
    if job := os.environ.get("TRAINING_JOB_NAME"):
        os.environ.setdefault(RUN_NAME, job)
    config = read_config(tell=rank == 0)
    (Path(config.output_dir) / "stop").unlink(missing_ok=True)  # meant for the job before this one
    if is_complete(config):
        print("This run is complete already: its files are delivered again.", flush=True)
    else:
        print(machine(), flush=True)
        config = resumable(config)
        processes = count_processes()
        if processes == len(hosts) == 1:
            train_here(config)
        else:
            launch_workers(config, hosts, rank, processes)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what follows takes a moment and must not be cut short
    if rank == 0:
        deliver(config)
        previews.lay_open(config)
        tell_loss(config)
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


# What the job is


def read_json(name: str) -> Any:
    """A file of /opt/ml/input/config; an empty object where there is none."""
    path = ROOT / "input" / "config" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def read_hosts() -> tuple[list[str], int]:
    """The names of all instances, and the place of this one among them."""
    resources = read_json("resourceconfig")
    hosts = sorted(resources.get("hosts", ["localhost"]), key=lambda name: (len(name), name))  # algo-2 before algo-10
    if len(hosts) > 1 and Path("/sys/class/net", interface := resources.get("network_interface_name", "")).is_dir():
        for library in ("NCCL", "GLOO"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
    return hosts, hosts.index(resources.get("current_host", hosts[0]))


def read_config(tell: bool = False) -> "TrainConfig":
    """The TrainConfig in the hyperparameters, its run folder named by the settings and by what came with the job.

    With `tell` what differs from earlier runs is printed, and the job's run folder noted for who looks from outside.
    Raises ConfigError, and DataError where something else came than was there at the start.
    """
    written = read_json("hyperparameters")
    settings, root = config_of(written), ROOT / "checkpoints"
    config = config_of({name: _in_root(value) for name, value in written.items()})
    found = run_folder.find(config)
    run_folder.refuse_changed(config, found, os.environ.get(content.VARIABLE, ""), run_folder.places())
    job = os.environ.get("TRAINING_JOB_NAME", "here")
    folder = run_folder.name(settings, found, job if run_folder.TRIAL in written else None)
    if tell:
        for sentence in run_folder.remember(root, job, settings, folder, found):
            print(f"Note: {sentence}", flush=True)
    if run_folder.is_drawn(config.class_data_dir):
        config = config.replace(class_data_dir=str(root / run_folder.class_folder(settings, found)))
    return config.replace(output_dir=str(root / folder))


def config_of(hyperparameters: Mapping[str, str]) -> "TrainConfig":
    """The TrainConfig that a job's hyperparameters say; an empty one is left out. Raises ConfigError."""
    from ..config.train_config import TrainConfig

    values = {name: value for name, value in hyperparameters.items() if value != "" and not _of_sagemaker(name)}
    return TrainConfig.from_hyperparameters(values)


def _of_sagemaker(name: str) -> bool:
    return name.startswith(("sagemaker_", "_tuning"))


def _in_root(value: str) -> str:
    """A path below /opt/ml, where that is elsewhere."""
    return f"{ROOT}{value[len(USUAL) :]}" if value.startswith(f"{USUAL}/") else value


def read_secrets() -> None:
    """Put the hub's and W&B's tokens into this process's environment; the job names only where they are kept."""
    for variable, wanted in SECRETS.items():
        if name := os.environ.get(variable):
            os.environ[wanted] = read_secret(name, wanted)


def read_secret(name: str, key: str) -> str:
    """A secret's text, or in a JSON object the value of `key`. Raises SdxlNbError."""
    from .messages import explained

    with explained(f"Reading the secret {name} with the job's role"):
        import boto3

        region = os.environ.get("AWS_REGION")
        text = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=name)["SecretString"]
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        text = found.get(key, text) if isinstance(found, dict) else text
    return text.strip()


def count_processes() -> int:
    """Processes on this instance: as set, or one for each GPU."""
    if asked := os.environ.get(PROCESSES):
        return int(asked)
    import torch

    return max(1, torch.cuda.device_count())


def machine() -> str:
    """Which PyTorch, CUDA and cuDNN were found, and which GPUs they can use; of several bases each has its own."""
    import torch

    try:
        cudnn = torch.backends.cudnn.version() or "none"
    except RuntimeError as error:  # another one lies before PyTorch's own in LD_LIBRARY_PATH
        cudnn = f"unusable ({str(error).splitlines()[0]})"
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found = f"{len(gpus)} × {gpus[0]}" if gpus else "no GPU that it can use"
    place = Path(torch.__file__).parent
    return f"PyTorch {torch.__version__} in {place}, CUDA {torch.version.cuda or 'none'}, cuDNN {cudnn}, {found}."


# Training


def train_here(config: "TrainConfig") -> None:
    """Train in this process, whose SIGTERM the trainer takes over."""
    from ..training.trainer import fine_tune

    fine_tune(config, say, progress=False)


def launch_workers(config: "TrainConfig", hosts: list[str], rank: int, processes: int) -> None:
    """One torchrun on each instance, with a static rendezvous: no name is looked up but that of the first one."""
    scratch = Path(tempfile.mkdtemp(prefix="sdxl-nb-"))
    config.save(scratch / "config.json")
    errors = scratch / "error.json"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--nnodes={len(hosts)}", f"--node-rank={rank}", f"--shutdown-timeout={STOP_SECONDS}"]
    command += [f"--master-addr={hosts[0] if len(hosts) > 1 else '127.0.0.1'}"]
    command += [f"--master-port={os.environ.get('MASTER_PORT', '29500')}", "-m", "sdxl_nb.container", "worker"]
    command += [str(scratch / "config.json")]
    asked: list[float] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(time.monotonic()))
    launched = subprocess.Popen(command, env={**os.environ, "TORCHELASTIC_ERROR_FILE": str(errors)})
    while (code := _wait(launched)) is None:
        if asked:  # again and again: the trainer removes what lies there when it begins
            Path(config.output_dir).mkdir(parents=True, exist_ok=True)
            (Path(config.output_dir) / "stop").touch()
        if asked and time.monotonic() > asked[0] + STOP_SECONDS:
            launched.terminate()
    (Path(config.output_dir) / "stop").unlink(missing_ok=True)
    if code != 0:
        raise SdxlNbError(_root_cause(errors, code))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(0.5)
    except subprocess.TimeoutExpired:
        return None


def _root_cause(errors: Path, code: int) -> str:
    """What torchrun says of the process that failed first, where that one could not say it itself."""
    try:
        message = json.loads(errors.read_text())["message"]
        message = message["message"] if isinstance(message, dict) else message
    except (OSError, ValueError, KeyError):
        message = f"torchrun ended with exit code {code}"
    return f"A training process failed: {message}."


def worker(config_file: str) -> int:
    """One of several processes; the first to fail says why in the failure file."""
    from ..config.train_config import TrainConfig
    from ..training.trainer import fine_tune

    try:
        fine_tune(TrainConfig.load(config_file), say, progress=False)
    except KeyboardInterrupt:
        return 0
    except BaseException as error:
        report_failure(error)
        return 1
    return 0


def say(event: Mapping[str, Any]) -> None:
    """Print an event as a line for CloudWatch; the job's metrics are found in those of steps."""
    if line := as_line(event):
        print(line, flush=True)


def as_line(event: Mapping[str, Any]) -> str:
    """The line for an event; empty for one that needs none."""
    kind, step = event["event"], event["step"]
    if kind == "start":
        shown = ("steps", "pictures", "batch", "processes", "device", "resumed_from")
        return "start: " + _numbers({name: event.get(name) for name in shown})
    if kind == "step":
        return _numbers({"step": step, **{name: event[name] for name in ("train_loss", "lr", "seconds")}})
    if kind == "heldout" and step == 0:  # the base's own is no metric, so that no trial is judged by it
        return f"The held-out loss of the base alone is {event.get('loss')}."
    if kind == "heldout":
        return _numbers({"step": step, "heldout_loss": event.get("loss")})
    lines = {
        "warning": "Note: {message}",
        "checkpoint": "Saved {path}.",
        "validation": "Drew validation pictures at step {step}.",
        "end": "end: {status} {error}",
    }
    return lines.get(kind, "").format(**event).removesuffix(" None")


def _numbers(values: Mapping[str, Any]) -> str:
    return " ".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items() if v is not None)


# Looking, before anything is trained


def look(words: Sequence[str]) -> int:
    """Audit what the settings train on, names and values in turn; see audit_job.py."""
    from . import audit_job

    read_secrets()
    return audit_job.main(ROOT, [_in_root(word) for word in words])


# What comes out


def deliver(config: "TrainConfig") -> None:
    """Copy the finished files to /opt/ml/model: both LoRA files, card, settings, the first pictures and its own."""
    folder, model = Path(config.output_dir), ROOT / "model"
    model.mkdir(parents=True, exist_ok=True)
    for name in (LORA, f"{config.lora_name()}.safetensors", "README.md", "config.json"):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, model / name)
    steps = list(drawings(folder).values())
    for path in {*steps[:1], *steps[-1:], *(picture.parent for picture in previews.pictures(config)[:1])}:
        shutil.copytree(path, model / "validation" / path.name, dirs_exist_ok=True)


def tell_loss(config: "TrainConfig") -> None:
    """Print the held-out loss of the LoRA that is delivered: the last that is printed is what the job is judged by.

    Raises SdxlNbError for a trial whose last one is no number: an earlier one, better than it is, would count for it.
    """
    loss = run_folder.delivered_loss(config)
    if loss is None:
        return
    if math.isfinite(loss):
        print(f"The LoRA's own: {_numbers({'heldout_loss': loss})}", flush=True)
    elif run_folder.TRIAL in read_json("hyperparameters"):
        raise SdxlNbError("The held-out loss of this trial is no number: its learning_rate is too high, most likely.")


def report_failure(error: BaseException) -> None:
    """Write the reason to the failure file, whose first 1,024 characters SageMaker shows; the first to come stays."""
    sentence = str(error) if isinstance(error, SdxlNbError) else f"{type(error).__name__}: {error}"
    text = _without_secrets(f"{sentence}\n\n{''.join(traceback.format_exception(error))}")
    print(text, file=sys.stderr, flush=True)
    path = ROOT / "output" / "failure"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def _without_secrets(text: str) -> str:
    for name in SECRETS.values():
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    return text
