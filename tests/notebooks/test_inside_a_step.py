"""The notebook that takes a step apart: its numbers repeat, whichever preset it is given."""

import ast
from pathlib import Path

import nbformat
import pytest

from sdxl_nb import TrainConfig
from sdxl_nb.config import presets

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_inside_a_step.ipynb"


@pytest.mark.parametrize("preset", presets.names())
def test_the_numbers_repeat_with_every_preset(preset):
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    source = next(cell.source for cell in cells if "config = " in cell.source)
    (made,) = (node for node in ast.parse(source).body if ast.unparse(node).startswith("config = "))
    one, other = ({"preset": preset, "TrainConfig": TrainConfig} for _ in range(2))
    for names in (one, other):
        exec(ast.unparse(made), names)
    assert one["config"] == other["config"]
