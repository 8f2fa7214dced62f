"""Studio's lifecycle script: the kernel comes once, survives another image, repairs itself, says what it needs."""

import glob
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "infrastructure" / "studio" / "install-kernel.sh"
EXTENSION = "share/jupyter/labextensions/anywidget"
READY = "The kernel sdxl_nb is ready: reload the page of JupyterLab, so that it knows the widgets.\n"
INSTALLED = [*glob.glob(os.path.expanduser("~/.pyenv/versions/3.12*/bin/python3.12")), "/usr/bin/python3.12"]
OTHER = next((path for path in INSTALLED if os.path.exists(path)), None)
STUBS = {  # what pip would install, and pip itself: the venv and its Pythons are real
    "sdxl_nb/__init__.py": "",
    "ipykernel/__init__.py": "",
    "ipykernel/__main__.py": "import os, pathlib\n"
    "pathlib.Path(os.environ['HOME'], '.local/share/jupyter/kernels/sdxl-nb').mkdir(parents=True, exist_ok=True)\n",
    "pip/__init__.py": "",
    "pip/__main__.py": "import os, sys\nprint('cache', os.environ['PIP_NO_CACHE_DIR'], sys.argv[1])\n",
}


def executable(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def start_space(home, programs, **more):
    """Runs the script as Studio does when a space starts; its installation goes on behind it."""
    environment = {"HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin", "SDXL_NB_SOURCE": "s3://bucket/source.zip"}
    assert subprocess.run(["bash", SCRIPT], env=environment | more, cwd=home, timeout=1200).returncode == 0


def wait_for(path, text):
    for _ in range(12_000):
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"no {text!r} in {path}: {path.read_text() if path.exists() else 'missing'}")


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def test_the_kernel_is_installed_once(tmp_path, home):
    calls = tmp_path / "calls"
    executable(tmp_path / "bin" / "aws", f'echo "aws $*" >>{calls}')
    fake = f'echo "venv $*" >>{calls}; mkdir -p "$3/bin" "$3/{EXTENSION}"; cp "$0" "$3/bin/python"'
    fake += f'; echo "{{}}" >"$3/{EXTENSION}/package.json"'
    kernel = 'mkdir -p "$HOME/.local/share/jupyter/kernels/sdxl-nb"'
    rest = f'echo "python $*" >>{calls}'
    executable(
        tmp_path / "bin" / "python3",
        f'case "$1 $2" in "-m venv") {fake};; -c*|"-I -c") true;; "-m ipykernel") {kernel};& *) {rest};; esac',
    )
    start_space(home, tmp_path / "bin")
    assert wait_for(home / ".sdxl-nb" / "install.log", "ready") == READY
    lines = calls.read_text().replace(str(home), "~").splitlines()
    assert lines == [
        "aws s3 cp --no-progress s3://bucket/source.zip ~/.sdxl-nb/source.zip",
        "python -m zipfile -e ~/.sdxl-nb/source.zip ~/.sdxl-nb/source",
        "venv -m venv ~/.sdxl-nb/venv",
        "python -m pip install --quiet --constraint ~/.sdxl-nb/source/constraints.txt ~/.sdxl-nb/source[sagemaker]",
        "python -m ipykernel install --user --name sdxl-nb --display-name sdxl_nb",
    ]
    package = home / ".local" / EXTENSION / "package.json"
    assert package.read_text() == "{}\n"
    (home / ".sdxl-nb" / "venv" / EXTENSION / "package.json").write_text("newer")
    start_space(home, tmp_path / "bin")
    assert len(calls.read_text().splitlines()) == len(lines)
    assert package.read_text() == "newer" and [path.name for path in package.parent.iterdir()] == ["package.json"]
    start_space(home, tmp_path / "bin", JUPYTER_DATA_DIR=str(tmp_path / "data"))
    assert (tmp_path / "data" / "labextensions" / "anywidget" / "package.json").read_text() == "newer"
    shutil.rmtree(home / ".local" / "share" / "jupyter" / "kernels")
    start_space(home, tmp_path / "bin")
    assert (home / ".local" / "share" / "jupyter" / "kernels" / "sdxl-nb").is_dir()


@pytest.fixture
def image(tmp_path):
    """A space's image: its python3 is a link that another image sets anew; pip brings stubs."""
    programs, real = tmp_path / "bin", tmp_path / "image"
    real.mkdir()
    (real / "python3").symlink_to(os.path.realpath(sys.executable))
    executable(programs / "aws", 'echo zip >"${@: -1}"')
    files = tmp_path / "stubs"
    for name, text in STUBS.items():
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(text)
    venv = f'"{real}/python3" -m venv --without-pip "$3" && cp -R {files}/* "$3"/lib/python3*/site-packages/'
    venv += f' && mkdir -p "$3/{EXTENSION}" && ln -sf "{real}/python3" "$3/bin/python"'
    executable(
        programs / "python3",
        f'case "$1 $2" in "-m venv") {venv};; "-m zipfile") mkdir -p "$5";; *) exec "{real}/python3" "$@";; esac',
    )
    return programs, real


def runs(home):
    python = home / ".sdxl-nb" / "venv" / "bin" / "python"
    if not python.exists():  # a link that leads nowhere
        return False
    return subprocess.run([python, "-I", "-c", "import sdxl_nb"], capture_output=True).returncode == 0


@pytest.mark.parametrize("change", ["another Python", "no such Python", "a package is gone"])
def test_a_kernel_that_no_longer_runs_is_made_anew(home, image, change):
    programs, real = image
    log = home / ".sdxl-nb" / "install.log"
    (home / ".cache" / "pip").mkdir(parents=True)
    (home / ".cache" / "huggingface").mkdir()
    start_space(home, programs)
    assert wait_for(log, "The kernel") == f"cache 1 install\n{READY}" and runs(home)
    assert [path.name for path in (home / ".cache").iterdir()] == ["huggingface"]
    assert not (home / ".sdxl-nb" / "source.zip").exists()
    if change == "a package is gone":
        (site,) = (home / ".sdxl-nb" / "venv" / "lib").glob("python3*/site-packages")
        shutil.rmtree(site / "sdxl_nb")
    elif change == "another Python" and OTHER:
        (real / "python3").unlink()
        (real / "python3").symlink_to(OTHER)
    else:
        real.rename(real.with_name("gone"))
        real.mkdir()
        (real / "python3").symlink_to(OTHER or os.path.realpath(sys.executable))
        python = home / ".sdxl-nb" / "venv" / "bin" / "python3"
        python.unlink()
        python.symlink_to("/opt/conda/bin/python3.9-of-the-last-image")
    assert not runs(home)
    log.unlink()  # it says so already, of the kernel that was
    start_space(home, programs)
    said = wait_for(log, "is ready")
    assert said.startswith("The kernel no longer runs with this image's Python: it is made anew.\n") and runs(home)
    start_space(home, programs)
    assert log.read_text() == said  # nothing more to do


def test_what_cannot_be_installed_is_said(tmp_path, home, image):
    programs, _ = image
    log = home / ".sdxl-nb" / "install.log"
    (tmp_path / "stubs" / "pip" / "__main__.py").write_text("import sys\nprint('No route to host')\nsys.exit(1)\n")
    start_space(home, programs)
    said = wait_for(log, "was not installed")
    assert said.startswith("No route to host\npip could not install it: a VpcOnly domain needs a NAT gateway, or ")
    executable(programs / "aws", "echo 'Access Denied' >&2; exit 1")
    log.unlink()
    start_space(home, programs)
    assert wait_for(log, "was not installed").startswith("Access Denied\n")
    executable(programs / "python3", "exit 1")  # as Distribution 0.x's 3.8 answers
    log.unlink()
    start_space(home, programs)
    assert wait_for(log, "was not installed").startswith("This image's Python is older than 3.10, and JupyterLab 3 ")
    assert not (home / ".sdxl-nb" / "ready").exists()
