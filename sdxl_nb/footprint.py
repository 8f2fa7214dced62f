"""How much memory a run takes, the number that each step reports, and what gives it back. In: a device. Out: bytes."""

import gc
import re
import sys
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


def peak_memory(device: Any) -> int | None:
    """The most bytes held so far: by tensors on a GPU, by this process elsewhere; None where nobody counts them."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if STATUS.is_file():  # Linux; ru_maxrss would count what the notebook that launched this process holds
        return int(re.search(r"VmHWM:\s+(\d+)", STATUS.read_text())[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back(device: Any = None) -> None:
    """Free what only circles of references hold, as models and loops are; on the device too, or on the GPU here."""
    import torch

    gc.collect()
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if free := getattr(getattr(torch, device.type, None), "empty_cache", None):
        free()
