"""What the page of a project does before it is seen, counted: widgets, looks at the folder, files; of 10,000 pictures.

A count neither waits for a clock nor depends on the machine; `benchmarks.browser --painted` has the seconds.
"""

import os
import sys
from collections import Counter

import pytest
from ipywidgets import Widget
from test_editing import png
from test_overview import trained
from test_widgets_twins import Kernel

from sdxl_nb import Project
from sdxl_nb.runs.events import update

pytestmark = pytest.mark.slow
PICTURES = 10_000
FOUND = Counter()  # what the hook, which stays for as long as Python runs, has heard while `heard` is true
HEARD = [False]


def listen(event, arguments):
    if HEARD[0] and event in ("open", "os.scandir") and isinstance(arguments[0], str):
        FOUND[event, os.path.splitext(arguments[0])[1]] += 1


sys.addaudithook(listen)


@pytest.fixture
def shell(monkeypatch):
    shell = Kernel()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("sdxl_nb.widgets.page.steps.gpu_memory", lambda: None, raising=False)
    return shell


def many(folder, count):
    """So many pictures, all links to one, a caption beside each but the first."""
    folder.mkdir(parents=True)
    (folder.parent / "one.png").write_bytes(png())
    for number in range(count):
        os.link(folder.parent / "one.png", folder / f"{number:05d}.png")
        if number:
            (folder / f"{number:05d}.txt").write_text("a square")


class Painting:
    """A Project as a cell shows it: its models, and what was opened and listed until then, by the end of its name."""

    def __init__(self, place):
        FOUND.clear()
        made, HEARD[0] = [], True
        Widget.on_widget_constructed(made.append)
        try:
            self.project = Project(place)
            self.shown = self.project._repr_mimebundle_()
        finally:
            HEARD[0] = False
            Widget.on_widget_constructed(None)
        self.models, self.found = len(made), dict(FOUND)


def test_the_first_paint_of_very_many_pictures_costs_what_that_of_a_page_of_them_does(tmp_path, shell):
    few, lots = tmp_path / "few", tmp_path / "lots"
    many(few / "pictures", 13)
    many(lots / "pictures", PICTURES)
    small, large = Painting(few), Painting(lots)
    assert small.models == large.models < 150  # of 497: each is waited for
    for painting, count in ((small, 13), (large, PICTURES)):
        assert painting.found["os.scandir", ""] == 4
        assert painting.found["open", ".txt"] == count  # .left-out.txt, and each caption once
        assert painting.found["open", ".png"] <= 3 * 12
        assert "image/png" in painting.shown
    project = large.project
    assert project.browser._count.value == f"<b>{PICTURES - 1:,} of {PICTURES:,} captioned</b>"
    assert len(project.browser._cards.children) == 12 and project._steps is None
    assert "Opening" in project._places["Settings"].children[0].value
    shell.events.trigger("post_run_cell", None)
    few_settings, outlook, start = project._places["Settings"].children
    assert few_settings is project.steps.few and start is project.start and outlook is project.form._outlook
    outlook.wait(600)
    project.browser._work.wait(600)
    assert f"{PICTURES - 1:,} pictures" in outlook.value
    for one in (small, large):
        one.project.close()


def test_a_project_that_has_a_run_makes_its_steps_after_the_cell_as_a_new_one_does(tmp_path, shell):
    place = tmp_path / "mine"
    many(place / "pictures", 13)
    run = trained(place / "runs" / "mine", validation_prompt=["a square"], num_validation_images=1)
    (run / "checkpoint-3").mkdir()
    (run / "checkpoint-3" / "state.json").touch()
    update(place / "project.json", run="runs/mine", star=None)
    painting = Painting(place)
    project = painting.project
    assert project._steps is None and painting.models < 150 and "image/png" in painting.shown  # the run's pictures
    assert ["Opening" in project._places[name].children[0].value for name in ("Settings", "Run", "Result")] == [
        True,
        True,
        False,
    ]
    shell.events.trigger("post_run_cell", None)
    assert project._places["Run"].children == (project.steps.monitor,)
    assert project._places["Result"].children == (project.result,) and project.run.folder == run
    project.form._outlook.wait(600)
    project.browser._work.wait(600)
    project.close()


def test_who_asks_for_what_is_below_the_pictures_in_the_same_cell_has_it(tmp_path, shell):
    many(tmp_path / "mine" / "pictures", 2)
    project = Project(tmp_path / "mine")
    project.form.edits = {**project.form.edits, "max_train_steps": 33}
    steps = project.steps
    assert project.config.max_train_steps == 33 and project.start.run is project.run is None
    shell.events.trigger("post_run_cell", None)
    assert project.steps is steps and project.config.max_train_steps == 33
    project.form._outlook.wait(600)
    project.browser._work.wait(600)
    project.close()
