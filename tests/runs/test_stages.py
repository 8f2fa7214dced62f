"""The stages of a run: pictures by step and scale, and one of them shipped."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from small_runs import small, tensors, train

from sdxl_nb.runs.folder import new_folder
from sdxl_nb.runs.stages import Row, Stages, lowest
from sdxl_nb.system.errors import SdxlNbError
from sdxl_nb.widgets.grid.grid import ValidationGrid

pytestmark = pytest.mark.slow

PROMPTS = ["a card", "another <card>"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = {"validation_prompt": PROMPTS, "num_validation_images": 1, "validation_inference_steps": 2}
    return train(small(tmp_path_factory.mktemp("stages") / "run", checkpointing_steps=4, **settings))


@pytest.fixture
def stages(run):
    return Stages(run)


def test_steps_rows_and_loras(stages):
    assert stages.steps() == [0, 4, 6]
    assert stages.rows() == [Row(0, PROMPTS[0], 5), Row(1, PROMPTS[1], 5)]
    assert stages.steps_with_lora() == [4, 6]
    assert [stages.lora_folder(step).name for step in (4, 6)] == ["checkpoint-4", "checkpoint-6"]
    assert stages.lora_folder(0) is None


def test_a_pruned_last_checkpoint_leaves_the_runs_own_lora(stages, run):
    (run.folder / "checkpoint-6" / "state.json").rename(run.folder / "kept")
    try:
        assert stages.lora_folder(6) == run.folder
    finally:
        (run.folder / "kept").rename(run.folder / "checkpoint-6" / "state.json")


def test_another_scale_is_drawn_once_and_scale_one_again_is_what_the_run_drew(stages):
    row, seen = stages.rows()[0], []
    assert stages.missing(0.5) == [4, 6] and stages.missing(1.0) == []
    made = stages.draw(0.5, progress=lambda done, total: seen.append((done, total)))
    assert len(made) == 4 and seen == [(1, 2), (2, 2)] and stages.draw(0.5) == [] == stages.missing(0.5)
    assert stages.path(0, row, 0.5) == stages.path(0, row)  # the base has no scale
    pictures = [np.asarray(Image.open(stages.path(6, row, scale))).astype(int) for scale in (0.5, 1.0)]
    assert np.abs(pictures[0] - pictures[1]).max() > 0
    own = stages.path(6, row)
    drawn = np.asarray(Image.open(own)).astype(int)
    own.rename(own.with_suffix(".kept"))
    assert stages.missing(1.0) == [6] and stages.draw(1.0) == [stages.path(6, r) for r in stages.rows()]
    assert np.abs(np.asarray(Image.open(own)).astype(int) - drawn).max() <= 1
    own.with_suffix(".kept").unlink()


def test_the_best_is_of_lowest_heldout_loss_among_those_with_a_lora(stages, monkeypatch):
    assert stages.best() == 6  # none was measured
    losses = {0: 0.1, 2: 0.2, 4: 0.3, 6: 0.4}
    monkeypatch.setattr(stages, "heldout", lambda: losses)
    assert stages.best() == 4 and lowest(losses, [6, 8]) == 6 and lowest(losses, [8]) is None
    monkeypatch.setattr(stages, "steps_with_lora", list)
    assert stages.best() is None


def test_a_figure_has_a_place_for_every_step(stages):
    axes = stages.figure([0, 2, 6]).axes
    assert [place.get_title() for place in axes] == ["step 0", "step 2", "step 6", "", "", ""]
    assert [[text.get_text() for text in place.texts] for place in axes] == [[], ["not drawn"], []] * 2
    assert axes[3].get_ylabel().split("\n")[-1] == "seed 5"


def test_the_notebook_ships_the_best_and_leaves_what_a_person_shipped(run, tmp_path, capsys):
    notebook = nbformat.read(Path(__file__).parents[2] / "notebooks" / "04_validate.ipynb", as_version=4)
    (ships,) = (cell.source for cell in notebook.cells if "grid.ship(" in cell.source)
    moved = tmp_path / "run"
    moved.symlink_to(run.folder)
    grid = ValidationGrid(moved)
    grid._folder.value = str(tmp_path / "run-chosen")  # as it says by itself, but for the name of the folder
    grid.ship(4)
    names = {"grid": grid, "run": grid.run, "new_folder": new_folder}
    for place in ("run-by-heldout-loss", "run-by-heldout-loss-2"):  # Run All twice replaces nothing
        exec(ships, names)
        assert names["chosen"] == tmp_path / place
    assert json.loads((tmp_path / "run-chosen" / "chosen.json").read_text())["step"] == 4
    assert json.loads((names["chosen"] / "chosen.json").read_text())["step"] == grid.stages.best() == 6
    assert "step 6:" in capsys.readouterr().out
    grid.close()


def test_the_grid_has_a_column_for_each_step(stages):
    grid = stages.grid()
    assert grid.prompts == PROMPTS and grid.labels == ["step 0", "step 4", "step 6"] and len(grid.pictures) == 6


def test_ship_copies_the_loras_the_pictures_and_a_card(stages, run, tmp_path):
    goal = stages.ship(4, tmp_path / "chosen")
    names = {path.name for path in goal.iterdir()}
    assert names == {"pytorch_lora_weights.safetensors", "small.safetensors", "README.md", "validation", "chosen.json"}
    assert tensors(goal).keys() == tensors(run.folder / "checkpoint-4").keys()
    assert {path.name for path in (goal / "validation").iterdir()} == {"step-0", "step-4"}
    assert "4 steps on 7 pictures" in (goal / "README.md").read_text()
    assert json.loads((goal / "chosen.json").read_text())["step"] == 4
    with pytest.raises(SdxlNbError, match=r"chosen is there already: name a new folder for the LoRA of step 6\."):
        stages.ship(6, goal)
    with pytest.raises(SdxlNbError, match=r"The LoRA of step 3 was not kept; there are those of steps 4, 6\."):
        stages.ship(3, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chosen"]
