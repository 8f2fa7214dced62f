"""The plain twin in the stored output: of the moment when its cell ran, and again when the run is over."""

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from monitored import trainer_fixture, watch_fixture  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


def test_what_a_page_without_a_kernel_shows_is_renewed_when_the_run_ends(trainer, watch):
    InteractiveShell.instance()
    trainer.start(4)
    monitor = watch()
    with capture_output() as captured:
        display(monitor)
        trainer.steps(1, 4)
        trainer.end("completed")
        monitor.refresh()
        monitor.refresh()
    first, last = captured.outputs  # one output, renewed once
    assert first.transient == last.transient and last.update and not first.update
    assert "text/html" in first.data and "image/png" not in first.data and "image/png" in last.data
