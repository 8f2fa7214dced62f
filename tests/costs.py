"""What a run of the tests cost: CPU seconds by file, and how large each process became; said at its end.

Each process counts its own tests, and the programs that they have waited for; xdist's workers hand theirs over. A file
that makes a worker larger than it was is the one to look at: what it keeps, every later test carries.
"""

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

LISTED, WORTH = 10, 60.0  # files that are named; CPU seconds from which a run is worth the lines
UNIT = 1 if sys.platform == "darwin" else 1024  # bytes that `ru_maxrss` counts in


def spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    every = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in every)


def largest() -> int:
    """MB of memory that this process had at most, as VmHWM says."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT // 2**20


class Costs:
    """A plugin that counts, and in the first process tells."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.grown: Counter[str] = Counter()
        self.processes: dict[str, int] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Count one test, with its fixtures."""
        if not self.seconds:
            self.seconds["imports and collection"], self.grown["imports and collection"] = spent(), largest()
        seconds, size, file = spent(), largest(), item.nodeid.partition("::")[0]
        result = yield
        self.seconds[file] += spent() - seconds
        self.grown[file] += largest() - size
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand over what a worker counted."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["costs"] = [dict(self.seconds), dict(self.grown), largest()]
        else:
            self.processes["the first process"] = largest()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker counted."""
        seconds, grown, size = getattr(node, "workeroutput", {}).get("costs", ({}, {}, 0))
        self.seconds.update(seconds)
        self.grown.update({f"{node.gateway.id}: {file}": many for file, many in grown.items()})
        self.processes[node.gateway.id] = size

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The files that cost most, and the processes' sizes."""
        if sum(self.seconds.values()) < WORTH:
            return
        terminalreporter.section("costs")
        terminalreporter.write_line(f"{sum(self.seconds.values()):.0f} CPU seconds, of them:")
        for file, seconds in self.seconds.most_common(LISTED):
            terminalreporter.write_line(f"{seconds:8.0f}  {file}")
        sizes = ", ".join(f"{name} {size} MB" for name, size in sorted(self.processes.items()))
        terminalreporter.write_line(f"Memory at most: {sizes}; what made them larger, MB:")
        for file, more in (+self.grown).most_common(LISTED):
            terminalreporter.write_line(f"{more:8d}  {file}")
