"""What is installed: the pins, the conda environment, the hooks and the README agree with pyproject.toml."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def pins() -> list[Requirement]:
    """The lines of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def holds(requirement: Requirement, python: str) -> bool:
    """Whether a line counts on that Python, on Linux."""
    machine = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    machine |= {"platform_machine": "x86_64", "implementation_name": "cpython", "os_name": "posix"}
    return requirement.marker is None or requirement.marker.evaluate(machine)


def pinned(name: str, python: str) -> list[str]:
    """The versions that constraints.txt holds a package to on that Python."""
    here = [pin for pin in pins() if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [str(pin.specifier) for pin in here if holds(pin, python)]


def requirements() -> list[Requirement]:
    """Every requirement of the project and of its extras, without the project itself."""
    extras = [spec for extra in PROJECT["optional-dependencies"].values() for spec in extra]
    return [r for r in map(Requirement, PROJECT["dependencies"] + extras) if r.name != PROJECT["name"]]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_one_pin_that_satisfies_it(python: str):
    assert len(requirements()) > 30
    for requirement in (r for r in requirements() if holds(r, python)):
        versions = pinned(requirement.name, python)
        assert len(versions) == 1, f"{requirement.name} on Python {python}: {versions}"
        assert versions[0].removeprefix("==") in requirement.specifier, f"{requirement} but {versions[0]}"


def test_pins_are_exact_and_torch_is_the_tested_one():
    assert len(pins()) > 200
    assert [str(p) for p in pins() if not re.fullmatch(r"==[^,*]+", str(p.specifier))] == []
    assert {python: pinned("torch", python) for python in PYTHONS} == {python: ["==2.13.0"] for python in PYTHONS}


def test_pins_name_no_host():
    assert re.findall(r"https?://|file:|@|--\w+url", (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def test_core_is_light():
    core = {Requirement(spec).name for spec in PROJECT["dependencies"]}
    assert {"torch", "diffusers", "jupyterlab"} <= core
    assert not core & {"sagemaker", "boto3", "wandb", "xformers", "bitsandbytes", "torchvision"}


def test_conda_specs_parse():
    specs = [MatchSpec(spec, strict=True) for spec in CONDA["dependencies"] if isinstance(spec, str)]
    assert [spec.name.normalized for spec in specs] == ["python", "pip"]


def test_conda_python_is_one_that_the_project_takes():
    (spec,) = (s for s in CONDA["dependencies"] if isinstance(s, str) and s.startswith("python "))
    conda, project = SpecifierSet(spec.removeprefix("python ")), SpecifierSet(PROJECT["requires-python"])
    assert [python for python in PYTHONS if python in conda] == ["3.11", "3.12", "3.13"]
    assert all(python in project for python in PYTHONS if python in conda)
    assert "3.9" not in project


def test_conda_pip_section_is_the_project():
    (pip,) = (s["pip"] for s in CONDA["dependencies"] if isinstance(s, dict))
    constraint, project = pip
    assert constraint == "--constraint constraints.txt"
    extras = re.fullmatch(r"--editable \.\[([\w,]+)\]", project)[1].split(",")
    assert extras == sorted(set(PROJECT["optional-dependencies"]) - {"cuda"})


def test_hooks_use_the_pinned_tools():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    tools = {Requirement(tool) for hook in hooks for tool in hook["additional_dependencies"]}
    ours = {tool.name: [str(tool.specifier)] for tool in tools if tool.name != "pre-commit-hooks"}
    assert ours == {name: pinned(name, "3.11") for name in ("ruff", "nbstripout", "codespell")}


def test_readme_has_the_flags_table():
    written = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    made = subprocess.run([sys.executable, "-m", "sdxl_nb.flags"], capture_output=True, text=True, check=True).stdout
    assert written == made, "docs/flags.md is old: python -m sdxl_nb.flags > docs/flags.md makes it again"
