"""How much memory a run takes, what gives it back, and what is said when there is too little.

In: a device, or an error of one. Out: bytes, or TooLittleMemory with the remedy.
"""

import contextlib
import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SdxlNbError

if TYPE_CHECKING:
    import torch

MEGABYTE, GIGABYTE = 2**20, 2**30
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
TRIM = 2**17  # bytes at the heap's end that glibc keeps at first
STATUS = Path("/proc/self/status")
REMEDIES = (
    "add --gradient_checkpointing, use --mixed_precision fp16 (or bf16), add "
    "--enable_xformers_memory_efficient_attention, or lower --resolution or --rank"
)
TOO_LARGE = f"The device has too little memory for one picture at a time: {REMEDIES}."
NO_MEMORY = f"The device has too little memory: reduce --train_batch_size, {REMEDIES}."
NO_MEMORY_TO_ENCODE = (
    "The device has too little memory for the VAE to encode pictures: end other programs that use it, lower "
    "--resolution, or use --mixed_precision fp16 (or bf16) with --pretrained_vae_model_name_or_path "
    "madebyollin/sdxl-vae-fp16-fix."
)
NO_MEMORY_TO_DRAW = (
    "The device has too little memory to draw validation pictures beside the training: resume without "
    "--validation_prompt, or start anew with a lower --resolution."
)


class TooLittleMemory(SdxlNbError):
    """A device has refused memory."""


def peak_memory(device: "torch.device") -> int | None:
    """The most bytes held so far: by tensors on a GPU, by this process elsewhere; None where nobody counts them."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    # Linux; ru_maxrss would count what the notebook that launched this process holds
    if STATUS.is_file() and (most := re.search(r"VmHWM:\s+(\d+)", STATUS.read_text())):
        return int(most[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def give_back(device: "torch.device | None" = None) -> None:
    """Free what only circles of references hold, as models and loops are; on the device too, or on the GPU here."""
    import torch

    gc.collect()
    trim()
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if free := getattr(getattr(torch, device.type, None), "empty_cache", None):
        free()


def trim() -> None:
    """Hand freed memory to the system: glibc keeps what lies between pieces that are still in use, Arrow a stock."""
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc, or no C library by that name
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def mapped(weights: int) -> Iterator[None]:
    """Inside, what takes a megabyte or more lies by itself, and is given back as soon as it is freed.

    So where `weights` take a gigabyte of this memory or more: glibc puts everything below 32 MB into one heap, once
    something as large was freed there, and weights that are moved leave holes, which results of all sizes fill and
    never leave empty again (1.6 GB of them, of SDXL in bf16). Small models have no such weights, and new pages for each
    result would be dear there. The thresholds afterwards are those that glibc raises its own to (mallopt(3)). It counts
    for all threads of the process.
    """
    if weights < GIGABYTE:
        yield
        return
    _thresholds(MEGABYTE, TRIM)
    try:
        yield
    finally:
        _thresholds(32 * MEGABYTE, 64 * MEGABYTE)


def _thresholds(mapping: int, trimming: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc, or no C library by that name
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, mapping)
        library.mallopt(M_TRIM_THRESHOLD, trimming)


@contextlib.contextmanager
def in_memory(sentence: str) -> Iterator[None]:
    """Raise TooLittleMemory with this sentence where the block does not fit into memory."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TooLittleMemory(sentence) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or this machine itself, has refused memory: only CUDA has an exception of its own for that."""
    import torch

    said = str(error).lower()
    signs = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in said for sign in signs)
    )
