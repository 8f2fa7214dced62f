"""What is said of a machine: this one, and those that are not here, by their facts."""

import subprocess
import sys
from dataclasses import replace

import pytest

from sdxl_nb import inspect_machine
from sdxl_nb.preflight.this_machine import OPTIONAL, Facts

LINUX = Facts(
    system="Linux",
    release="6.8",
    python=(3, 12),
    torch="2.13.0",
    build="cuda",
    device="cuda",
    bf16=True,
    gpus=[("NVIDIA L4", 23_600_000_000)],
    nvidia=True,
    memory=30_000_000_000,
    disk=90_000_000_000,
    place="output",
    packages=frozenset(OPTIONAL),
)


def lines(**changes):
    return {check.name: check for check in inspect_machine(facts=replace(LINUX, **changes)).checks}


def test_a_machine_that_lacks_nothing():
    report = inspect_machine(facts=LINUX)
    assert [check.ok for check in report.checks] == [True] * 9 and report
    assert str(report).splitlines()[3] == "ok GPU        NVIDIA L4, 23.6 GB: --preset sdxl-24gb"


NONE = {"gpus": [], "nvidia": False, "build": "cpu", "device": "cpu"}


@pytest.mark.parametrize(
    ("changes", "name", "ok", "said"),
    [
        ({"system": "Windows", "release": "11"}, "system", None, "Windows 11: not tried. There is no make: "),
        ({"system": "Darwin", "release": "24.6"}, "system", None, "Darwin 24.6: not tried; "),
        ({"host": "wsl"}, "system", True, "6.8, on Windows: NVIDIA's driver is Windows' own, "),
        ({"python": (3, 9)}, "Python", False, "3.9 is too old"),
        ({"python": (3, 14)}, "Python", None, "3.14 was not tried"),
        (NONE | {"nvidia": True}, "PyTorch", False, "2.13.0, built without CUDA and ROCm, beside an NVIDIA GPU: "),
        (NONE | {"nvidia": True, "build": "cuda"}, "PyTorch", False, "built for NVIDIA's CUDA, and it finds no GPU: "),
        (NONE, "PyTorch", True, "2.13.0, built without CUDA and ROCm"),
        (NONE, "GPU", None, "none: the tiny base trains here in minutes"),
        (NONE | {"device": "mps"}, "GPU", None, "--preset sdxl-12gb --mixed_precision fp16"),
        (NONE | {"device": "mps", "bf16": False}, "precision", True, "fp16: add --mixed_precision fp16, for bf16"),
        ({"bf16": False}, "precision", True, "fp16: add --mixed_precision fp16, bf16 came after this GPU"),
        ({"gpus": [("GTX", 4_000_000_000)]}, "GPU", False, "GTX, 4.0 GB: less than SDXL needs"),
        ({"gpus": [("RTX", 8_100_000_000)] * 2}, "GPU", True, "RTX, 8.1 GB, and 1 more: --preset sdxl-8gb"),
        ({"build": "rocm", "nvidia": False}, "GPU", None, "--preset sdxl-24gb; ROCm was not tried"),
        ({"memory": 4_000_000_000}, "memory", None, "4.0 GB free: enough for the tiny base"),
        ({"memory": None}, "memory", None, "cannot be asked here"),
        ({"disk": 5_000_000_000}, "disk", None, "5.0 GB free at output: "),
        ({"host": "colab"}, "widgets", None, "output.enable_custom_widget_manager()"),
        ({"host": "studio"}, "widgets", None, "`sdxl_nb.doctor()`"),
        ({"misfits": ["x is broken."]}, "package", False, "x is broken."),
        ({"packages": frozenset(OPTIONAL) - {"wandb"}}, "extras", True, "--report_to wandb wants sdxl_nb[wandb]"),
    ],
)
def test_what_is_said_of_others(changes, name, ok, said):
    check = lines(**changes)[name]
    assert check.ok is ok and said in check.says


def test_this_machine_says_what_is_wrong_with_its_exit_status(tmp_path):
    """A package that is there and cannot be imported, as one built for another torch."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sdxl_nb.machine import main; sys.exit(main(['.']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "NO package" in done.stdout and "undefined symbol: _ZN3c10" in done.stdout
    assert "free at ." in done.stdout
