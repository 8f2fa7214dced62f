"""The package as a whole: its public names, what importing it costs, what it ships."""

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sdxl_nb

HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "sagemaker", "boto3", "matplotlib"}


def python(code: str) -> str:
    """What a fresh interpreter prints when it runs the code."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_is_light():
    loaded = set(python("import sdxl_nb, sys; dir(sdxl_nb); print(*sys.modules)").split())
    assert "sdxl_nb" in loaded
    assert not HEAVY & loaded


def test_config_is_light():
    loaded = set(python("import sdxl_nb, sys; sdxl_nb.TrainConfig; print(*sys.modules)").split())
    assert "sdxl_nb.config.train_config" in loaded
    assert not HEAVY & loaded


def test_import_is_fast():
    timed = "import time; t = time.process_time(); import sdxl_nb; print(time.process_time() - t)"
    assert min(float(python(timed)) for _ in range(3)) < 0.3


@pytest.mark.parametrize("name", sdxl_nb.__all__)
def test_public_name(name: str):
    value = getattr(sdxl_nb, name)
    assert inspect.getdoc(value)
    assert value.__module__.split(".")[0] == "sdxl_nb"
    assert name in dir(sdxl_nb)


def test_no_public_name_is_a_modules_name():
    modules = {module.name for module in pkgutil.iter_modules(sdxl_nb.__path__)}
    assert "config" in modules
    assert not modules & set(sdxl_nb.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match=r"module 'sdxl_nb' has no attribute 'finetune'"):
        sdxl_nb.finetune  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'finetune'"):
        from sdxl_nb import finetune  # noqa: F401


def test_every_module_says_what_it_is_for():
    root = Path(sdxl_nb.__file__).parent
    silent = [str(f) for f in root.rglob("*.py") if f.read_text(encoding="utf-8").strip()[:3] not in ('"""', 'r""')]
    assert silent == []


def test_typed():
    assert (Path(sdxl_nb.__file__).parent / "py.typed").is_file()
