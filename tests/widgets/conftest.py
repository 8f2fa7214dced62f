"""Widgets look at a run when a test tells them to: by themselves only after longer than any test takes."""

import pytest

from sdxl_nb.widgets.monitor.monitor import RunMonitor
from sdxl_nb.widgets.parts import watching


@pytest.fixture(autouse=True)
def _looks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with much to do a thread would look while the test still prepares what is to be seen."""
    monkeypatch.setattr(watching, "OFTEN", 10_000.0)
    monkeypatch.setattr(watching, "RARELY", 10_000.0)
    monkeypatch.setitem(RunMonitor._static_immutable_initial_values, "interval", 10_000.0)
