"""The memory that a step reports."""

import types

from sdxl_nb.system.memory import peak_memory


def test_this_process_grows_by_what_it_holds():
    device = types.SimpleNamespace(type="cpu")
    before = peak_memory(device)
    assert 10e6 < before < 100e9
    held = bytearray(before + 50_000_000 - current())
    held[::4096] = b"x" * len(held[::4096])
    assert peak_memory(device) >= before + 40_000_000


def current() -> int:
    """Bytes that this process holds now, which may be far below its peak."""
    import psutil

    return psutil.Process().memory_info().rss
