"""The image's venv on base images of each layout: it sees the container's own PyTorch, and no other comes."""

import os
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest

from sdxl_nb.aws import container

ROOT = Path(__file__).parents[2]
spec = util.spec_from_file_location("base_python", ROOT / "infrastructure" / "base_python.py")
base_python = util.module_from_spec(spec)
spec.loader.exec_module(base_python)
LIBRARY = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"


def installation(prefix):
    """A Python of its own below `prefix`, as conda's or a system's: the binary, the standard library, its packages."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / LIBRARY / "site-packages").mkdir(parents=True)
    real = Path(os.path.realpath(sys.executable))
    shutil.copy(real, prefix / "bin" / "python3")
    for path in (Path(sys.base_prefix) / LIBRARY).iterdir():
        if path.name != "site-packages":
            (prefix / LIBRARY / path.name).symlink_to(path)
    return prefix / "bin" / "python3"


def venv(prefix):
    subprocess.run([sys._base_executable, "-m", "venv", "--without-pip", prefix], check=True)
    return prefix / "bin" / "python3"


def put(python, name, version):
    """A package of this name and version where a Python finds it."""
    (site,) = (python.parents[1] / "lib").glob("python3*/site-packages")
    (site / name).mkdir(exist_ok=True)
    (site / name / "__init__.py").write_text(f"__version__ = '{version}'\n")
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An empty root; `path` is what PATH finds python3 in."""
    (tmp_path / "constraints.txt").write_text("numpy==2.0.0\ntorch==2.13.0\nxformers==0.0.35 ; x\ntorchmetrics==1.0\n")

    def path(python):
        monkeypatch.setenv("PATH", str(python.parent))

    return tmp_path, path


def made(root):
    line = base_python.main(str(root / "own"), str(root / "constraints.txt"), str(root), ["--without-pip"])
    found = subprocess.run(
        [root / "own" / "bin" / "python", "-I", "-c", "import torch; print(torch.__version__, torch.__file__)"],
        capture_output=True, text=True,
    )  # fmt: skip
    return line, found.stdout.split(), (root / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("layout", "first"),
    [("opt/venv", "venv"), ("opt/conda", "other"), ("usr", "own"), ("opt/venv", "other"), ("opt/conda", "own")],
)
def test_the_containers_own_pytorch_is_used(image, layout, first):
    root, path = image
    python = venv(root / layout) if layout == "opt/venv" else installation(root / layout)
    put(python, "torch", "2.13.0+cu133")
    put(python, "torchvision", "0.28.0")
    path(installation(root / "other") if first == "other" else python)
    line, (version, file), constraints = made(root)
    assert version == "2.13.0+cu133" and Path(file).is_relative_to(root / layout)
    assert line == f"The base image's own PyTorch 2.13.0+cu133 is used, in {Path(file).parent}."
    assert constraints == ["numpy==2.0.0", "torchmetrics==1.0", "torch==2.13.0+cu133", "torchvision==0.28.0"]


@pytest.mark.parametrize("version", [None, "2.5.1"])
def test_without_a_pytorch_that_is_new_enough_pip_brings_the_locked_one(image, version):
    root, path = image
    python = installation(root / "usr")
    if version:
        put(python, "torch", version)
    path(python)
    line, found, constraints = made(root)
    assert line == "The base image has no PyTorch 2.6 or newer: pip brings the one of constraints.txt."
    assert found == [] and "torch==2.13.0" in constraints


def test_an_image_without_a_python_that_will_do(image, monkeypatch):
    root, path = image
    monkeypatch.setattr(base_python, "PLACES", ())
    path(root / "nothing" / "python3")
    with pytest.raises(SystemExit, match=r"error: the base image has no Python 3\.11 or newer: choose another BASE_IM"):
        made(root)


def test_its_least_versions_are_the_packages():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "torch>=" + base_python.numbers(base_python.LEAST) in project["dependencies"]
    assert "tomllib" in (ROOT / "Dockerfile").read_text() and base_python.LEAST_PYTHON == (3, 11)


def test_the_image_has_all_that_the_wheel_is_made_of():
    tomllib = pytest.importorskip("tomllib")
    made = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = made["tool"]["hatch"]["build"]["targets"]["wheel"]
    parts = {*wheel["packages"], *wheel["force-include"], made["project"]["readme"], "LICENSE", "pyproject.toml"}
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    assert parts <= {name for names in copied for name in names}
    assert parts <= {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


def test_a_job_says_at_its_start_what_it_trains_with():
    import torch

    said = container.machine()
    assert said.startswith(f"PyTorch {torch.__version__} in {Path(torch.__file__).parent}, CUDA ")
    assert "cuDNN" in said and said.count("\n") == 0
