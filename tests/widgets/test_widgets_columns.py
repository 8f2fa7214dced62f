"""ValidationGrid in process: which stages are its columns, page by page, and drawing those that lack pictures."""

import json
import shutil
from itertools import pairwise

import pytest
from ipywidgets import Checkbox
from PIL import Image, ImageChops
from small_runs import small, train
from test_widgets_grid import PICTURES, empty, ships, shown
from test_widgets_pictures import button, inside

from sdxl_nb.config.layout import checkpoints
from sdxl_nb.runs import stages
from sdxl_nb.runs.run import Run
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.grid.columns import MOST, main_steps
from sdxl_nb.widgets.grid.grid import ValidationGrid
from sdxl_nb.widgets.parts.pictures import PictureButton

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Pictures every fourth step, eleven times; every third of them has a checkpoint."""
    settings = PICTURES | {"validation_inference_steps": 1, "max_train_steps": 40, "checkpointing_steps": 12}
    return train(small(tmp_path_factory.mktemp("long") / "run", **settings))


# Which columns.


def test_the_main_steps():
    assert main_steps([5, 0], (), ()) == [0, 5]
    steps = list(range(0, 1000, 10))
    plain = main_steps(steps, (), ())
    assert len(plain) == MOST and plain[0] == 0 and plain[-1] == 990
    assert max(b - a for a, b in pairwise(plain)) <= 170
    assert {0, 130, 990} < set(main_steps(steps, (), {130})) and 135 not in main_steps(steps, (), {135, None})
    chosen = main_steps(steps, {70, 200, 330}, {130})
    assert len(chosen) == MOST and {0, 70, 130, 200, 330, 990} < set(chosen)
    many = main_steps(steps, set(steps), {130})
    assert len(many) == MOST and {0, 130, 990} < set(many)
    assert max(b - a for a, b in pairwise(many)) <= 260


def test_the_main_steps_of_pictures_and_loras_that_never_meet():
    drawn, kept = set(range(0, 2101, 7)), set(range(5, 1505, 5)) - set(range(0, 2101, 7)) | {2100}
    few = main_steps({0, 7, 14, 21}, {5, 10, 20, 21}, {20})
    assert few == [0, 5, 7, 10, 14, 20, 21]
    main = main_steps(drawn, kept, {505})
    assert len(main) == MOST and {0, 505, 2100} < set(main)
    assert len(kept & set(main)) == 5 and len(drawn & set(main)) == 4  # 2100 is of both
    assert main_steps(drawn | kept & set(main), kept, {505}) == main  # drawn by hand, they stay where they are
    loras = main_steps((), kept, {505})
    assert len(loras) == MOST and max(b - a for a, b in pairwise(loras)) <= 800
    assert main_steps(drawn, {2100}, ())[-1] == 2100


def test_what_can_be_shipped_is_shown_first_and_all_stages_page_by_page(long_run):
    grid = ValidationGrid(long_run)
    assert len(shown(grid)) == MOST and {"0", "12", "24", "36", "40"} < set(shown(grid))
    assert sum(ships(grid).values()) == 4 and grid._columns.layout.display is None
    (every,) = inside(grid, Checkbox)
    every.value = True
    assert shown(grid) == [str(step) for step in range(0, 32, 4)] and button(grid, "Earlier").disabled
    button(grid, "Later").click()
    assert grid._columns.page == 1 and shown(grid) == ["32", "36", "40"] and button(grid, "Later").disabled
    assert "3 of 11 stages: steps 32 to 40" in grid._columns._said.value
    button(grid, "Earlier").click()
    assert shown(grid)[0] == "0"
    every.value = False
    assert grid._columns.page is None and len(shown(grid)) == MOST
    grid._columns.page = 1
    assert every.value and shown(grid) == ["32", "36", "40"]
    grid.close()


def test_another_scale_is_drawn_of_the_stages_that_are_shown(long_run):
    grid = ValidationGrid(long_run)
    grid._columns.page = 1
    grid.scale = 0.5
    grid._work.wait(600)

    def drawn():
        return {folder.parent.name for folder in long_run.folder.glob("validation/step-*/scale-0.5")}

    assert drawn() == {"step-36", "step-40"} and "2 pictures drawn at scale 0.5" in grid._notice.value
    grid._columns.page = 0
    grid._work.wait(600)
    assert drawn() == {"step-12", "step-24", "step-36", "step-40"}
    grid.close()


# Pictures and LoRAs of different steps.


@pytest.fixture
def apart(long_run, tmp_path):
    """A run with pictures at steps 0, 4 and 40, and LoRAs of steps 12, 24, 36 and 40."""
    aside = shutil.ignore_patterns("scale-*", "step-[123568]*", "step-[23]?")
    shutil.copytree(long_run.folder, tmp_path / "run", ignore=aside)
    return Run.open(tmp_path / "run")


def test_the_columns_are_the_steps_with_pictures_and_those_with_a_lora(apart):
    grid = ValidationGrid(apart)
    assert shown(grid) == ["0", "4", "12", "24", "36", "40"]
    assert ships(grid) == {4: False, 12: True, 24: True, 36: True, 40: True}
    assert len(inside(grid, PictureButton)) == 3 and len(empty(grid)) == 3
    figure = grid.figure()
    assert [axes.get_title() for axes in figure.axes] == [f"step {step}" for step in shown(grid)]
    assert [axes.texts[0].get_text() for axes in figure.axes if axes.texts] == ["not drawn"] * 3
    grid.close()


def test_what_is_missing_is_drawn_also_at_scale_one(apart, long_run):
    grid = ValidationGrid(apart)
    grid._over.set()
    assert "the 3 of these stages that lack pictures at scale 1" in grid._draws.tooltip
    button(grid, "Draw what is missing").click()
    grid._work.wait(600)
    assert "3 pictures drawn at scale 1." in grid._notice.value
    assert len(inside(grid, PictureButton)) == 6 and empty(grid) == []
    ours, the_runs = (Image.open(r.folder / "validation" / "step-24" / "00-5.png") for r in (apart, long_run))
    assert max(high for _, high in ImageChops.difference(ours, the_runs).getextrema()) <= 1
    assert grid._draws.disabled and grid.draw() == []
    shutil.rmtree(apart.folder / "validation" / "step-24")
    assert grid.draw() == [apart.folder / "validation" / "step-24" / "00-5.png"]
    grid.close()


def test_a_run_that_goes_on_draws_at_scale_one_itself(apart):
    about = json.loads((apart.folder / "run.json").read_text()) | {"status": "running", "host": "elsewhere"}
    (apart.folder / "run.json").write_text(json.dumps(about))
    grid = ValidationGrid(apart)
    assert len(empty(grid)) == 3 and grid._draws.disabled and "when it is over" in grid._draws.tooltip
    with pytest.raises(SdxlNbError, match="The run is running and draws at scale 1 itself"):
        grid.draw()
    grid.close()


def test_three_hundred_checkpoints_are_shown_eight_at_a_time(apart):
    for step in range(41, 341):
        shutil.copytree(apart.folder / "checkpoint-40", apart.folder / f"checkpoint-{step}")
    grid = ValidationGrid(apart)
    grid._over.set()
    assert len(shown(grid)) == MOST and {"0", "4"} <= set(shown(grid)) and shown(grid)[-1] == "340"
    assert len(grid.figure().axes) == MOST and grid._shown.missing == [int(step) for step in shown(grid)[2:]]
    grid._columns.page = 38
    assert shown(grid) == ["339", "340"] and "2 of 306 stages: steps 339 to 340" in grid._columns._said.value
    assert len(grid.figure().axes) == 2
    grid.close()


def test_a_look_lists_the_checkpoints_once(long_run, monkeypatch):
    grid, listed = ValidationGrid(long_run), []
    grid._over.set()
    monkeypatch.setattr(stages, "checkpoints", lambda folder: listed.append(folder) or checkpoints(folder))
    grid.refresh()
    assert listed == [long_run.folder]
    grid.close()
