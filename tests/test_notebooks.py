"""The notebooks as they are stored; `make test` also executes each of them with nbmake."""

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def test_the_walkthroughs_are_there():
    assert [path.name for path in NOTEBOOKS][:1] == ["00_quickstart.ipynb"]


def test_stored_without_outputs_and_valid(notebook):
    nbformat.validate(notebook)
    assert [cell.outputs for cell in code(notebook)] == [[]] * len(code(notebook))
    assert {cell.execution_count for cell in code(notebook)} == {None}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_short_cells_and_more_prose_than_code(notebook):
    assert 20 <= len(notebook.cells) <= 40
    assert len(prose(notebook)) > len(code(notebook))
    assert max(len(cell.source.splitlines()) for cell in code(notebook)) <= 10


def test_cost_then_versions_then_parameters_then_steps(notebook):
    headings = [cell.source.splitlines()[0] for cell in prose(notebook) if cell.source.startswith("#")]
    assert headings[0].startswith("# ")
    assert headings[1:4] == ["## What it costs", "## Versions", "## Parameters"]
    tagged = [i for i, cell in enumerate(code(notebook)) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == [1]  # the versions are the first code cell


def test_it_calls_the_library_and_defines_nothing(notebook):
    for cell in code(notebook):
        lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
        tree = ast.parse("\n".join(lines))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, kinds)] == []


def test_no_input_no_install_no_swallowed_error(notebook):
    source = "\n".join(cell.source for cell in code(notebook))
    for word in ("input(", "pip ", "!", "Output(", "interact(", "except"):
        assert word not in source, f"a notebook must not use {word}"


def test_short_runs_change_parameters_only(notebook):
    (parameters,) = (cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", []))
    names = {target.id for node in ast.parse(parameters.source).body for target in node.targets}
    mocked = {name for cell in code(notebook) for name in cell.metadata.get("nbmake", {}).get("mock", {})}
    assert mocked <= names
