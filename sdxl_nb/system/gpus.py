"""What the GPUs of this machine are doing: load, memory, temperature, as NVIDIA's own library (NVML) says it.

In: nothing. Out: a line for each GPU, or one sentence that says what is lacking. nvidia-ml-py (BSD, NVIDIA's) is used
where it is installed.
"""

import contextlib
import functools
import sys
from pathlib import Path
from typing import Any

DRIVER = Path("/proc/driver/nvidia")  # there where a GPU of NVIDIA's is
SIGNS = (DRIVER, "/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/dev/nvmap")  # NVIDIA's, AMD's, WSL's, Jetson's
NONE = "There is no NVIDIA GPU on this machine: no load, memory or temperature to show."
NO_PACKAGE = "The GPU's load, memory and temperature are shown with the package nvidia-ml-py: pip install nvidia-ml-py."


def gpu_lines() -> list[str]:
    """A line for each GPU, such as "NVIDIA A10G: 98 % busy, 20.1 of 24.1 GB, 61 °C"; else why there is none."""
    nvml, why = _library()
    if nvml is None:
        return [why]
    lines = []
    try:
        for number in range(nvml.nvmlDeviceGetCount()):
            lines.append(_line(nvml, nvml.nvmlDeviceGetHandleByIndex(number)))
    except nvml.NVMLError as error:
        lines.append(f"The GPU cannot be read: {error}.")
    return lines or [NONE]


@functools.cache
def _library() -> tuple[Any, str]:
    """The library, begun; or None and the sentence about what lacks."""
    try:
        import pynvml
    except ImportError:
        return None, NO_PACKAGE if DRIVER.exists() else NONE
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, NONE
    return pynvml, ""


def _line(nvml: Any, gpu: Any) -> str:
    """What can be read of one GPU; virtual ones tell less."""
    name = nvml.nvmlDeviceGetName(gpu)
    said = []
    with contextlib.suppress(nvml.NVMLError):
        said.append(f"{nvml.nvmlDeviceGetUtilizationRates(gpu).gpu} % busy")
    with contextlib.suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        said.append(f"{memory.used / 1e9:.1f} of {memory.total / 1e9:.1f} GB")
    with contextlib.suppress(nvml.NVMLError):
        said.append(f"{nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)} °C")
    name = name.decode() if isinstance(name, bytes) else name
    return f"{name}: {', '.join(said) or 'nothing can be read of it'}"


def may_have_gpu() -> bool:
    """Whether PyTorch might find a GPU, without importing it; only Linux can be sure that there is none."""
    return sys.platform != "linux" or any(Path(sign).exists() for sign in SIGNS)


def has_nvidia() -> bool:
    """Whether an NVIDIA GPU and its driver are on this machine, whatever PyTorch finds."""
    nvml, _ = _library()
    if nvml is None:
        return DRIVER.exists()
    try:
        return bool(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError:
        return DRIVER.exists()
