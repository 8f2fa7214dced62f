"""How much memory a run takes: the number that each step reports. In: a device. Out: bytes."""

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
