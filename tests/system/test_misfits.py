"""A package that is installed and cannot be imported: named in one sentence, or left out where all goes on without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BROKEN = 'raise ImportError("libold.so.12: cannot open shared object file")\n'


def installed(folder: Path, name: str, number: str, files: dict[str, str]) -> Path:
    """A site-packages folder with one more package, as pip leaves it."""
    site = folder / "site-packages"
    for file, text in files.items():
        (site / name / file).parent.mkdir(parents=True, exist_ok=True)
        (site / name / file).write_text(text, encoding="utf-8")
    about = site / f"{name}-{number}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n", encoding="utf-8")
    return site


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with that folder before all others."""
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=1200)


@pytest.mark.soak
def test_diffusers_loads_beside_an_xformers_that_cannot_be_imported(tmp_path):
    site = installed(tmp_path, "xformers", "0.0.30", {"__init__.py": "", "ops/__init__.py": BROKEN})
    program = """
import sdxl_nb.models.loading as loading
source = loading.Source("embedded:tiny-sdxl")
print(type(loading.load(source, "vae")).__name__, type(loading.load(source, "unet")).__name__)
"""
    done = python(site, "-c", program)
    assert (done.returncode, done.stdout) == (0, "AutoencoderKL UNet2DConditionModel\n"), done.stderr
    said = "xformers 0.0.30 is installed but cannot be imported (libold.so.12: cannot open shared object file): install"
    assert done.stderr.count(said) == 1 and "Until then PyTorch's own attention is used." in done.stderr


def test_the_command_names_a_package_that_breaks_the_others(tmp_path):
    site = installed(tmp_path, "bitsandbytes", "0.39.0", {"__init__.py": BROKEN})
    output = ("--output_dir", str(tmp_path / "run"))
    done = python(site, "-m", "sdxl_nb.train", "--preset", "tiny", "--max_train_steps", "1", *output)
    assert done.returncode == 1 and not (tmp_path / "run").exists()
    said = (
        "error: bitsandbytes 0.39.0 is installed but cannot be imported (libold.so.12: cannot open shared object file)"
    )
    assert done.stderr.splitlines()[-1].startswith(said) and "Traceback" not in done.stderr, done.stderr
