"""The import contract of pyproject.toml: kept, and broken by what it forbids."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def judged(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in a folder, by the project's own contracts."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", program, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The package's modules in a folder of their own."""
    shutil.copytree(
        ROOT / "sdxl_nb",
        tmp_path / "sdxl_nb",
        ignore=lambda _, names: {n for n in names if "." in n and not n.endswith(".py")},
    )
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("data/crops.py", "", None),
        ("data/crops.py", "from ..models import sources", "sdxl_nb.data.crops -> sdxl_nb.models.sources"),
        ("runs/run.py", "def late():\n    from ..aws.job import open_run", "sdxl_nb.runs.run -> sdxl_nb.aws.job"),
        ("cache/shards.py", "from . import latents", "No cycles are allowed in sdxl_nb.cache"),
        ("models/sources.py", "from ..tiny import draw", "sdxl_nb.models.sources -> sdxl_nb.tiny.draw"),
    ],
    ids=["as it is", "up", "up, when called", "in a circle", "the base's scripts"],
)
def test_the_contract_holds_and_sees_what_it_forbids(copy, module, line, broken):
    path = copy / "sdxl_nb" / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    found = judged(copy)
    assert found.returncode == (1 if broken else 0), found.stdout + found.stderr
    assert broken is None or broken in found.stdout


def test_no_folder_is_too_full():
    for folder in {path.parent for path in (ROOT / "sdxl_nb").rglob("*.py")}:
        modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
        assert len(modules) <= 15, f"{folder.name} has {len(modules)} modules: give some of them a room"
