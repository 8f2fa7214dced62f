"""Work shared out: among the threads of a process, and among the processes of a run."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Group(Protocol):
    """Processes that share work: `count` of them, this one is number `index` (training.processes.Processes)."""

    count: int
    index: int

    def together(self) -> AbstractContextManager[None]:
        """The block, and then waiting for all others, who learn of what it raised."""


def ahead(work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """The results of `work`, in order, computed by threads a little ahead of whoever takes them.

    For work that leaves Python's lock alone, as decoding and resizing pictures does. What it raises is raised here.
    """
    threads = threads or min(
        8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def share_out(count: int, work: Callable[[range], None], processes: Group | None = None) -> None:
    """Have `work(numbers)` see to `count` things whose results lie on disk, each process to a part of them.

    First each takes its share; then, where machines have disks of their own, its share on its machine; at last all
    of them, of which normally nothing is left to do: `work` leaves out what is done already. All wait for each other
    in between (see processes.Processes.together).
    """
    if processes is not None and processes.count > 1:
        machine = int(os.environ.get("LOCAL_RANK", processes.index)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        for index, many in dict.fromkeys([(processes.index, processes.count), machine]):
            with processes.together():
                work(range(index, count, many))
    work(range(count))
