"""The memory that a step reports."""

import types

import torch

from sdxl_nb.system.memory import GIGABYTE, mapped, peak_memory, trim


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


def test_what_is_moved_while_large_blocks_are_mapped_leaves_no_holes():
    def left(many=64):
        """MB that stay when so many blocks of 2 MB are freed, between as many of 128 KB that are not."""
        before, blocks, small = current(), [], []
        for _ in range(many):
            blocks.append(torch.ones(2**19))
            small.append(torch.ones(2**15))
        blocks.clear()
        return (current() - before) / 2**20

    with mapped(GIGABYTE):
        assert left() < 20
    with mapped(GIGABYTE - 1):
        assert left() > 60  # which is why
    trim()
