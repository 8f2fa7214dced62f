"""The plain twin in the stored output: of the moment when its cell ran, and again when the run is over."""

import io

import pytest
from IPython.core.events import EventManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from IPython.utils.capture import capture_output
from monitored import trainer_fixture, watch_fixture  # noqa: F401 - fixtures
from PIL import Image

from sdxl_nb.widgets.parts.pictures import Tiles, thumbnail
from sdxl_nb.widgets.parts.watching import after_the_cell

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


def test_tiles_stand_beside_each_other_and_nothing_makes_no_picture():
    red, wide = (thumbnail(Image.new("RGB", size, "red"), 64) for size in ((64, 64), (64, 32)))
    drawn = Image.open(io.BytesIO(Tiles([red, wide, red], side=72, columns=2)._repr_png_()))
    assert drawn.size == (144, 144)
    assert [drawn.getpixel(at)[3] for at in ((36, 36), (108, 36), (108, 10), (36, 108), (108, 108))] == [
        255,
        255,
        0,
        255,
        0,
    ]
    assert Tiles([])._repr_png_() is None


class Kernel:
    """What a notebook's shell has of a kernel, and the events of its cells."""

    kernel = object()

    def __init__(self):
        self.events = EventManager(self, {"post_run_cell": lambda result: None})


def test_what_takes_long_begins_when_the_cell_has_ended_and_once(monkeypatch):
    done, shell = [], Kernel()
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    after_the_cell(lambda: done.append("at once"))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    after_the_cell(lambda: done.append("later"))
    assert done == ["at once"]
    for _ in range(2):
        shell.events.trigger("post_run_cell", None)
    assert done == ["at once", "later"]
