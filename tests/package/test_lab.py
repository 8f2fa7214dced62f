"""The notebooks in a folder of one's own: put there, brought up to date, never over what a person changed."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sdxl_nb import lab
from sdxl_nb.system.errors import SdxlNbError

ROOT = Path(__file__).parents[2]
ALL = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Two notebooks as the package brings them."""
    place = tmp_path / "package" / "notebooks"
    place.mkdir(parents=True)
    for name in ("start_here.ipynb", "other.ipynb"):
        (place / name).write_text(name)
    monkeypatch.setattr(lab, "HERE", tmp_path / "package")
    return place


def test_put_there_once_and_then_left(shipped, tmp_path):
    goal = tmp_path / "mine"
    assert lab.put(goal) == ["other.ipynb: put there", "start_here.ipynb: put there"]
    assert lab.put(goal) == [] and (goal / "other.ipynb").read_text() == "other.ipynb"


def test_what_a_person_changed_is_kept_and_what_they_did_not_is_brought_up_to_date(shipped, tmp_path):
    goal = tmp_path / "mine"
    lab.put(goal)
    (goal / "other.ipynb").write_text("my own")
    assert lab.put(goal) == ["other.ipynb: yours is kept, for it was changed"]
    for path in shipped.iterdir():
        path.write_text("newer")
    kept, updated = lab.put(goal)
    assert kept.startswith("other.ipynb: yours is kept, for it was changed; move it to get that of ")
    assert updated == "start_here.ipynb: brought up to date" and (goal / "other.ipynb").read_text() == "my own"
    (goal / "other.ipynb").rename(goal / "mine.ipynb")
    assert lab.put(goal) == ["other.ipynb: put there"] and (goal / "mine.ipynb").read_text() == "my own"


def test_of_what_lay_there_before_nothing_is_written_over(shipped, tmp_path):
    goal = tmp_path / "mine"
    goal.mkdir()
    (goal / "other.ipynb").write_text("from a clone")
    (goal / lab.KNOWN).write_text("[")
    assert "other.ipynb: yours is kept" in lab.put(goal)[0] and (goal / "other.ipynb").read_text() == "from a clone"


def test_the_command_says_where_and_opens_the_start_page(tmp_path, capsys):
    assert lab.main([str(tmp_path / "mine"), "--only-copy"]) == 0
    assert f"Your notebooks: {tmp_path / 'mine' / 'notebooks'}" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "mine" / "notebooks").glob("*.ipynb")) == ALL
    assert not any(b"docs/gallery" in path.read_bytes() for path in (tmp_path / "mine").rglob("*.ipynb"))  # not there
    line = lab.command(tmp_path, ["--no-browser"])
    assert line[:3] == [sys.executable, "-m", "jupyterlab"] and line[-2:] == ["--no-browser", lab.START]


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SdxlNbError, match=r"^Cannot put notebooks into .*file.notebooks .*: name another folder\.$"):
        lab.put(tmp_path / "file" / "notebooks")
    assert lab.main([str(tmp_path / "file")]) == 1 and capsys.readouterr().err.startswith("error: Cannot put")


@pytest.mark.soak
def test_the_wheel_brings_the_notebooks(tmp_path):
    ignored = shutil.ignore_patterns(".git", ".venv", "output", "node_modules", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    build = [sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", str(tmp_path / "made")]
    done = subprocess.run(build, cwd=tmp_path / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "made").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if name.endswith(".ipynb")) == [f"sdxl_nb/notebooks/{name}" for name in ALL]
