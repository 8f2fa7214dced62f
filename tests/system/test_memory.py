"""The memory that a step reports."""

import subprocess
import sys
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


HOLES = """
import psutil
from sdxl_nb.system.memory import GIGABYTE, mapped

def left():
    # MB that stay when 64 blocks of 2 MB are freed, between as many of 128 KB that are not
    before, blocks, small = psutil.Process().memory_info().rss, [], []
    for _ in range(64):
        blocks.append(b"x" * 2**21)
        small.append(b"x" * 2**17)
    blocks.clear()
    return (psutil.Process().memory_info().rss - before) / 2**20

with mapped(GIGABYTE):
    print(left())
with mapped(GIGABYTE - 1):
    print(left())
"""


def test_what_is_moved_while_large_blocks_are_mapped_leaves_no_holes():
    """In a process of its own, whose heap has no holes yet."""
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=1200)
    mapped, usual = map(float, done.stdout.split())
    assert mapped < 20 and usual > 60
