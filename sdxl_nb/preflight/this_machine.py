"""Whether this machine can train, and what it lacks: each thing looked at once, in words, before anything is loaded.

In: nothing, or the facts of another machine. Out: a Report. No network is asked, and nothing is written. What is said
of systems other than Linux comes from their programs' documentation: the tests run on Linux without a GPU.
"""

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from ..cache.latents import cache_folder
from ..config import presets
from ..config.machine import Machine
from ..config.train_config import TrainConfig
from ..system.gpus import has_nvidia
from ..system.misfits import misfit
from ..system.report import Check, Report
from ..training.disk import free_bytes, free_memory

GB = 1e9
MEMORY, DISK = 8 * GB, 20 * GB  # to load SDXL and encode with it; the base, a cache and checkpoints of a usual run
OPTIONAL = {  # module -> the extra that brings it, and what it is for
    "bitsandbytes": ("cuda", "--use_8bit_adam"),
    "pynvml": ("cuda", "the GPU's load, memory and temperature beside a run"),
    "pillow_heif": ("formats", "HEIC pictures"),
    "pillow_jxl": ("formats", "JPEG XL pictures"),
    "schedulefree": ("optimizers", "optimizers without a schedule"),
    "optuna": ("sweep", "sweeps that learn from their trials"),
    "sagemaker": ("sagemaker", "rented GPUs"),
    "wandb": ("wandb", "--report_to wandb"),
}
APART = {  # imported to see whether they fit torch: they are built for one version of it
    "xformers.ops": "--enable_xformers_memory_efficient_attention",
    "bitsandbytes": "--use_8bit_adam",
    "torchvision": "some packages beside this one",
}


@dataclass(frozen=True)
class Facts:
    """What a machine is; `gpus` are names and bytes, `misfits` sentences, `build` cuda, rocm, mps, cpu, …"""

    system: str
    release: str
    python: tuple[int, int]
    torch: str
    build: str
    device: str
    bf16: bool
    gpus: list[tuple[str, int]] = field(default_factory=list)
    nvidia: bool = False
    memory: int | None = None
    disk: int = 0
    place: str = "."
    packages: frozenset[str] = frozenset()
    misfits: list[str] = field(default_factory=list)
    host: str = ""  # colab, studio, wsl or nothing

    @classmethod
    def here(cls, folder: str = ".") -> "Facts":
        """This machine; `folder` is where runs are to lie."""
        import torch

        machine = Machine.here()
        gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        place = min(Path(folder), cache_folder(TrainConfig()), key=free_bytes)
        return cls(
            system=platform.system(),
            release=platform.release(),
            python=sys.version_info[:2],
            torch=version("torch"),
            build="rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu",
            device=machine.device,
            bf16=machine.bf16,
            gpus=[(gpu.name, gpu.total_memory) for gpu in gpus],
            nvidia=has_nvidia(),
            memory=free_memory(),
            disk=free_bytes(place),
            place=str(place),
            packages=frozenset(name for name in OPTIONAL if importlib.util.find_spec(name)),
            misfits=list(_misfits()),
            host=_host(),
        )


def inspect_machine(folder: str = ".", facts: Facts | None = None) -> Report:
    """What this machine offers to runs in `folder`: system, Python, PyTorch, GPU, memory, disk, packages, widgets."""
    found = facts or Facts.here(folder)
    looks = {
        "system": _system,
        "Python": _python,
        "PyTorch": _torch,
        "GPU": _gpu,
        "precision": _precision,
        "memory": _memory,
        "disk": _disk,
        "widgets": _widgets,
    }
    report = Report([Check(name, *look(found)) for name, look in looks.items()])
    report.checks += [Check("package", False, sentence) for sentence in found.misfits]
    report.checks.append(Check("extras", True, _extras(found)))
    return report


Verdict = tuple[bool | None, str]


def _system(facts: Facts) -> Verdict:
    said = f"{facts.system} {facts.release}"
    if facts.host == "wsl":
        return True, f"{said}, on Windows: NVIDIA's driver is Windows' own, and folders below /mnt are slow"
    if facts.system == "Linux":
        return True, said
    if facts.system == "Windows":
        return None, (
            f"{said}: not tried. There is no make: docs/installing.md has the commands; WSL 2 is the surer way"
        )
    return None, f"{said}: not tried; what it needs is in docs/installing.md"


def _python(facts: Facts) -> Verdict:
    said = ".".join(map(str, facts.python))
    if facts.python < (3, 10):
        return False, f"{said} is too old: take Python 3.10 to 3.13"
    return (True, said) if facts.python <= (3, 13) else (None, f"{said} was not tried: 3.10 to 3.13 were")


def _torch(facts: Facts) -> Verdict:
    builds = {"cuda": "for NVIDIA's CUDA", "rocm": "for AMD's ROCm", "cpu": "without CUDA and ROCm"}
    said = f"{facts.torch}, built {builds[facts.build]}"
    if facts.nvidia and facts.build == "cpu":
        return False, f"{said}, beside an NVIDIA GPU: install the build for CUDA that pytorch.org names for this system"
    if facts.nvidia and facts.device != "cuda":
        return (
            False,
            f"{said}, and it finds no GPU: the driver is older than this build wants, or CUDA_VISIBLE_DEVICES hides it",
        )
    return True, said


def _gpu(facts: Facts) -> Verdict:
    if facts.gpus:
        name, memory = facts.gpus[0]
        preset = presets.fitting(memory)
        more = f", and {len(facts.gpus) - 1} more" if len(facts.gpus) > 1 else ""
        said = f"{name}, {memory / GB:.1f} GB{more}"
        if preset is None:
            return False, f"{said}: less than SDXL needs, 6 GB; the tiny base trains here"
        note = "; ROCm was not tried" if facts.build == "rocm" else ""
        return (None if note else True), f"{said}: --preset {preset}{note}"
    if facts.device == "mps":
        return None, "Apple's, which shares the machine's memory: not tried; --preset sdxl-12gb --mixed_precision fp16"
    return None, "none: the tiny base trains here in minutes, real SDXL would take days; docs/sagemaker.md rents one"


def _precision(facts: Facts) -> Verdict:
    if facts.device == "cuda":
        return (
            (True, "bf16 and fp16")
            if facts.bf16
            else (True, "fp16: add --mixed_precision fp16, bf16 came after this GPU")
        )
    if facts.device == "mps":
        return True, "fp16: add --mixed_precision fp16, for bf16 is refused there"
    return True, "fp32 and bf16 on the CPU"


def _memory(facts: Facts) -> Verdict:
    if facts.memory is None:
        return None, f"how much is free cannot be asked here; real SDXL wants {MEMORY / GB:.0f} GB"
    said = f"{facts.memory / GB:.1f} GB free"
    enough = facts.memory >= MEMORY
    return (True, said) if enough else (None, f"{said}: enough for the tiny base, real SDXL wants {MEMORY / GB:.0f} GB")


def _disk(facts: Facts) -> Verdict:
    said = f"{facts.disk / GB:.1f} GB free at {facts.place}"
    enough = facts.disk >= DISK
    return (
        (True, said)
        if enough
        else (None, f"{said}: real SDXL, its caches and checkpoints take up to {DISK / GB:.0f} GB")
    )


def _widgets(facts: Facts) -> Verdict:
    if facts.host == "colab":
        return None, (
            "Colab shows them once a cell has run: from google.colab import output; "
            "output.enable_custom_widget_manager()"
        )
    if facts.host == "studio":
        return None, "in a Studio space `sdxl_nb.doctor()` says whether JupyterLab can show them"
    return True, "shown by JupyterLab of this environment; a notebook elsewhere needs anywidget and ipywidgets there"


def _extras(facts: Facts) -> str:
    absent = [name for name in OPTIONAL if name not in facts.packages]
    wanted = [f"{what} wants sdxl_nb[{extra}]" for extra, what in (OPTIONAL[name] for name in absent)]
    return "; ".join(wanted) or "all that are asked for by name are installed"


def _misfits() -> Iterator[str]:
    """A sentence for each package that is installed for another torch."""
    for name, what in APART.items():
        if importlib.util.find_spec(name.partition(".")[0]) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception as error:  # linkers and CUDA have errors of every kind
            yield f"{misfit(error)} It is for {what}."


def _host() -> str:
    if "COLAB_RELEASE_TAG" in os.environ:
        return "colab"
    if Path("/opt/ml/metadata/resource-metadata.json").is_file():
        return "studio"
    return "wsl" if "microsoft" in platform.release().lower() else ""
