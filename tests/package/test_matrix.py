"""The environments of matrix.py: each trains, draws and loads (soak: minutes and gigabytes); which there are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from matrix import OLD_XFORMERS, ROWS, SHOWN, python, tried
from packaging.specifiers import SpecifierSet
from test_environment import PYTHONS, ROOT, pinned, requirements


def floor(name: str) -> str:
    """The lowest version that pyproject.toml allows a package."""
    (bound,) = {spec.version for r in requirements() if r.name == name and not r.marker for spec in r.specifier}
    return bound


@pytest.mark.soak
@pytest.mark.parametrize("name", ROWS)
def test_environment_trains_draws_and_loads(name: str):
    row, versions = ROWS[name], tried(name)
    assert versions.pop("Python").startswith(f"{row.python}.") and versions.keys() == set(SHOWN)
    assert f"xformers=={versions.pop('xformers')}" == OLD_XFORMERS
    for package in set(versions) - ({"numpy", "scikit-learn"} if row.lowest else set()):
        expected = f"=={floor(package)}.*" if row.lowest else pinned(package, row.python)[0]
        assert versions[package] in SpecifierSet(expected), package


def test_every_promised_python_is_a_row_and_the_oldest_and_newest_are_tried_at_the_lowest():
    (first, last) = re.search(r"Python (3\.\d+) to (3\.\d+)", (ROOT / "README.md").read_text(encoding="utf-8")).groups()
    assert (first, last) == (PYTHONS[0], PYTHONS[-1])
    assert {row.python for row in ROWS.values() if not row.lowest} == set(PYTHONS)
    assert {row.python for row in ROWS.values() if row.lowest} == {first, last}


def test_a_row_that_ci_cannot_try_is_said():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'make matrix ROWS="--if-there 3.10"' in script
    assert python("3.99") is None and python(f"3.{sys.version_info.minor}")


def test_an_unknown_row_is_refused():
    program = [sys.executable, str(Path(ROOT, "tests", "matrix.py")), "2.7"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 2 and "no row 2.7: there are 3.10, 3.11" in done.stderr
