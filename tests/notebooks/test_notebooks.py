"""The notebooks as they are stored, and the one that needs SageMaker; `make test` executes the others with nbmake."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from sagemaker_emulator import SageMakerEmulator

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
PAGE = ROOT / "notebooks" / "my_lora.ipynb"
WALKTHROUGHS = ["00_quickstart", "01_data", "02_configure", "03_train_local", "04_validate", "05_inside_a_step"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def test_the_walkthroughs_are_there():
    assert [path.stem for path in NOTEBOOKS] == [*WALKTHROUGHS, "06_sagemaker"]


def test_stored_without_outputs_and_valid(notebook):
    nbformat.validate(notebook)
    assert [cell.outputs for cell in code(notebook)] == [[]] * len(code(notebook))
    assert {cell.execution_count for cell in code(notebook)} == {None}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_short_cells_and_more_prose_than_code(notebook):
    assert 20 <= len(notebook.cells) <= 40
    assert len(prose(notebook)) > len(code(notebook))
    assert max(len(cell.source.splitlines()) for cell in code(notebook)) <= 10


def test_cost_then_parameters_then_steps_and_the_versions_last(notebook):
    headings = [cell.source.splitlines()[0] for cell in prose(notebook) if cell.source.startswith("#")]
    assert headings[0].startswith("# ")
    assert [heading for heading in headings[1:] if heading != "## Versions"][:2] == [
        "## What it costs",
        "## Parameters",
    ]
    tagged = [i for i, cell in enumerate(code(notebook)) if "parameters" in cell.metadata.get("tags", [])]
    versions = [i for i, cell in enumerate(code(notebook)) if "importlib.metadata" in cell.source]
    assert len(versions) == 1
    assert (tagged, versions) in (([0], [len(code(notebook)) - 1]), ([1], [0]))  # of SageMaker's, the first


def test_nothing_is_deleted_and_no_run_replaced(notebook):
    source = "\n".join(cell.source for cell in code(notebook))
    for word in ("rmtree", "unlink", "overwrite_output_dir", "os.remove"):
        assert word not in source, f"a notebook must not use {word}"


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
    given = [target for node in ast.parse(parameters.source).body for target in node.targets]
    names = {name.id for target in given for name in ast.walk(target) if isinstance(name, ast.Name)}
    mocked = {name for cell in code(notebook) for name in cell.metadata.get("nbmake", {}).get("mock", {})}
    assert mocked <= names


LOST = {
    "thread": "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()",
    "handler": "from ipywidgets import Button\nb = Button()\nb.on_click(lambda b: 1 / 0)\nb.click()",
    "output": "from ipywidgets import Output\nwith Output():\n    1 / 0",
    "task": (
        "import asyncio, gc\nasync def bad():\n    1 / 0\n"
        "task = asyncio.ensure_future(bad())\nawait asyncio.sleep(0.1)\ndel task\ngc.collect()"
    ),
    "good": "print(1)",
}


def run_notebooks(folder, names, **environment):
    command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "--nbmake-timeout=1200", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *names], cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.soak
def test_an_exception_that_nbmake_would_miss_fails_a_notebook(tmp_path):
    shutil.copy(ROOT / "conftest.py", tmp_path)
    for name, source in LOST.items():
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, tmp_path / f"{name}.ipynb")
    code, said = run_notebooks(tmp_path, [f"{name}.ipynb" for name in LOST])
    failed = set(re.findall(r"^FAILED (\w+)\.ipynb", said, re.MULTILINE))
    assert code == 1 and failed == LOST.keys() - {"good"} and "4 failed, 1 passed" in said, said


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_first_line_leads_to_its_page_as_it_ran(notebook):
    first = nbformat.read(notebook, as_version=4).cells[0].source
    assert f"\n\n[As it ran](../docs/gallery/{notebook.stem}.md)\n\n" in first
    page = (ROOT / "docs" / "gallery" / f"{notebook.stem}.md").read_text(encoding="utf-8")
    assert str(ROOT) not in page and "/tmp/" not in page and page.count("![png]") + page.count("<table") > 1


def test_nothing_paid_is_started_before_somebody_has_agreed():
    notebook = nbformat.read(ROOT / "notebooks" / "06_sagemaker.ipynb", as_version=4)
    (parameters,) = (cell.source for cell in code(notebook) if "parameters" in cell.metadata.get("tags", []))
    starts = [cell.source for cell in code(notebook) if "launch_sagemaker(" in cell.source]
    assert "agreed = False" in parameters and "max_run = None" in parameters
    assert ["agreed=agreed" in source and ".exists()" in source for source in starts] == [True]


def test_the_sagemaker_notebook_runs_on_the_emulator():
    shutil.rmtree(ROOT / "output" / "sagemaker-short", ignore_errors=True)  # its job is gone with the emulator
    with SageMakerEmulator() as aws:
        names = {"BUCKET_NAME": aws.bucket, "SDXL_NB_ROLE_ARN": aws.role, "SDXL_NB_IMAGE_URI": aws.image}
        code, said = run_notebooks(ROOT / "notebooks", ["06_sagemaker.ipynb"], **names)
    assert code == 0 and "1 passed" in said, said


@pytest.mark.soak
@pytest.mark.parametrize("name", WALKTHROUGHS)
def test_it_runs_with_its_real_step_counts(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(ROOT / "notebooks")}}).execute()
    assert all(cell.execution_count for cell in code(notebook))
