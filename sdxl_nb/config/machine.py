"""What a configuration needs of the machine that trains it.

In: a TrainConfig, and a Machine (by default this one). Out: nothing, or ConfigError with one sentence and the remedy.
Apart from validation, because a configuration written on a laptop for a GPU is a valid one.
"""

import netrc
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ..system.errors import ConfigError
from .checks import is_data_file
from .mlflow_store import check_mlflow
from .train_config import TrainConfig

PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = {  # the module that an optimizer needs, and the package that has it
    "prodigy": ("prodigyopt", "prodigyopt"),
    "lion": ("lion_pytorch", "lion-pytorch"),
    "came": ("came_pytorch", "came-pytorch"),
    "adamw_schedulefree": ("schedulefree", "schedulefree"),
    "radam_schedulefree": ("schedulefree", "schedulefree"),
    "prodigy_schedulefree": ("prodigyplus", "prodigy-plus-schedule-free"),
}
OPTIONAL = {"xformers", "bitsandbytes", "tensorboard", "wandb", "comet_ml", "mlflow", "torch_npu"}
OPTIONAL |= {"sagemaker_mlflow", "sqlalchemy"}  # of MLflow, what SageMaker's needs, and what a store of its own does
OPTIONAL |= {module for module, _ in OPTIMIZERS.values()}


@dataclass(frozen=True)
class Machine:
    """What matters of a machine: its device, whether it computes in bf16, its packages and a hub login."""

    device: str  # cuda, mps, npu or cpu
    bf16: bool
    packages: frozenset[str]
    hub_login: bool

    @classmethod
    def here(cls) -> "Machine":
        """This machine, as accelerate would choose its device."""
        from huggingface_hub import get_token

        packages = frozenset(name for name in OPTIONAL if find_spec(name))
        device, bf16 = _device(packages)
        return cls(device, bf16, packages, get_token() is not None)


def _device(packages: frozenset[str]) -> tuple[str, bool]:
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu", True
    if torch.cuda.is_available():
        return "cuda", torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return "mps", False
    return ("npu", True) if "torch_npu" in packages else ("cpu", True)


def check_machine(config: TrainConfig, machine: Machine | None = None) -> None:
    """Raise ConfigError for the first thing that config asks for and machine does not have."""
    machine = machine or Machine.here()
    _check_paths(config)
    _check_precision(config, machine)
    _check_packages(config, machine)
    if config.push_to_hub and not machine.hub_login:
        raise ConfigError("push_to_hub needs a login: set HF_TOKEN, or run hf auth login once")


def _check_precision(config: TrainConfig, machine: Machine) -> None:
    configured = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if configured not in PRECISIONS:
        raise ConfigError(
            f"accelerate is configured for {configured}, in which no LoRA is trained here: set "
            "ACCELERATE_MIXED_PRECISION to bf16, fp16 or no, or run accelerate config again"
        )
    precision = config.mixed_precision or configured
    if precision == "fp16" and machine.device == "cpu":
        raise ConfigError(
            "mixed_precision fp16 needs a CUDA GPU or Apple MPS and this machine has neither: "
            "use --mixed_precision no, or --preset tiny, which trains here in minutes"
        )
    if precision == "bf16" and machine.device == "mps":
        raise ConfigError("mixed_precision bf16 does not work on Apple MPS: use --mixed_precision fp16")
    if precision == "bf16" and not machine.bf16:
        raise ConfigError("mixed_precision bf16 needs an Ampere or later GPU: use --mixed_precision fp16 on this one")


def _check_packages(config: TrainConfig, machine: Machine) -> None:
    if config.enable_xformers_memory_efficient_attention:
        _need(machine, "enable_xformers_memory_efficient_attention", "xformers", "PyTorch's SDPA is used by default")
    name = config.optimizer_name()
    if name in ("adamw8bit", "paged_adamw8bit"):
        asked = "use_8bit_adam" if config.use_8bit_adam else f"optimizer {name}"
        _need(machine, asked, "bitsandbytes", "AdamW in fp32 is the default")
    module, package = OPTIMIZERS.get(name, (None, None))
    if module is not None and module not in machine.packages:
        raise ConfigError(f"optimizer {name} needs {package}: pip install {package}, or use --optimizer adamw")
    if config.enable_npu_flash_attention and machine.device != "npu":
        raise ConfigError(
            "enable_npu_flash_attention needs an Ascend NPU with torch_npu: drop it, PyTorch's SDPA is used by default"
        )
    if config.cuda_graphs and machine.device != "cuda":
        raise ConfigError("cuda_graphs needs a CUDA GPU and this machine has none: drop it")
    tracker = config.report_to
    if tracker in ("tensorboard", "wandb", "mlflow", "comet_ml") and tracker not in machine.packages:
        raise ConfigError(
            f"report_to {tracker} needs the package {tracker}: pip install {tracker}, or --report_to none"
        )
    if tracker == "wandb":
        check_wandb()
    if tracker == "mlflow":
        check_mlflow(machine.packages)


def _need(machine: Machine, asked: str, package: str, otherwise: str) -> None:
    """A package that works on CUDA GPUs only and comes with the cuda extra."""
    if machine.device != "cuda":
        raise ConfigError(f"{asked} needs a CUDA GPU and this machine has none: drop it, {otherwise}")
    if package not in machine.packages:
        raise ConfigError(f"{asked} needs {package}: pip install {package}, or drop it, {otherwise}")


def _check_paths(config: TrainConfig) -> None:
    # os.path, because pathlib raises OSError for a name that is too long before Python 3.14
    folder = config.train_data_dir
    there = folder is None or "://" in folder or os.path.exists(os.path.expanduser(folder))
    if not there and is_data_file(folder):
        raise ConfigError(f"train_data_dir {folder} is not there: give a folder, or a file that lists folders")
    if not there:  # of an archive, or any other file, opening it tells
        raise ConfigError(f"train_data_dir {folder} is not a folder: give the folder that holds the pictures")
    for name in ("pretrained_model_name_or_path", "pretrained_vae_model_name_or_path"):
        path = getattr(config, name)
        local = path is not None and (path.startswith(("/", "./", "../", "~")) or path.endswith(".safetensors"))
        if local and "://" not in path and not os.path.exists(os.path.expanduser(path)):
            raise ConfigError(f"{name} {path} does not exist: give a hub id, a diffusers folder or a .safetensors file")
    resume = config.resume_from_checkpoint
    if resume not in (None, "latest") and not _resumable(config.output_dir, resume):
        raise ConfigError(f"resume_from_checkpoint {resume} is not a checkpoint folder: give one, or latest")
    if os.path.exists(config.output_dir) and not os.path.isdir(config.output_dir):
        raise ConfigError(f"output_dir {config.output_dir} is a file: choose another folder")


def _resumable(output_dir: str, resume: str) -> bool:
    """A checkpoint is named by its path, or by its name inside the run folder as in the diffusers script."""
    return os.path.isdir(resume) or os.path.isdir(Path(output_dir, Path(resume).name))


def check_wandb() -> None:
    """Raise ConfigError where W&B would ask for a login at the terminal, and so wait for ever."""
    import wandb

    settings = wandb.setup().settings  # the environment's and those in W&B's own files
    if settings.mode in ("offline", "disabled", "dryrun") or settings.api_key:
        return
    if not os.environ.get("WANDB_IDENTITY_TOKEN_FILE") and not _in_netrc(urlsplit(settings.base_url).hostname):
        raise ConfigError(
            "report_to wandb needs a login: run wandb login once or set WANDB_API_KEY, or set WANDB_MODE=offline"
        )


def _in_netrc(host: str | None) -> bool:
    """Whether `wandb login` has stored a key for this host."""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return host is not None and host in netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False
