"""The environments that are promised, each made with uv, and in each one the command, a drawing, and the LoRA loaded.

    make matrix                             every row
    make matrix ROWS="3.10 3.13-lowest"     some of them
    make matrix ROWS="--if-there 3.10"      a row whose Python is not here is said and left out, as .ci/run wants it

In: names of rows; the pins of constraints.txt, the bounds of pyproject.toml. Out: a line for each row with the versions
that ran, and exit status 1 if one failed. Environments are made anew each time in ~/.cache/sdxl_nb/matrix (or
SDXL_NB_MATRIX), mostly of links into uv's cache; UV_TORCH_BACKEND=cpu spares it some gigabytes of CUDA where PyTorch's
own index can be reached.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What people have beside us. The bounds are the oldest with wheels for Python 3.10 to 3.13.
BESIDE = ("boto3>=1.36", "opencv-python-headless>=4.11", "pandas>=2.2.3", "scikit-learn>=1.6")
OLD_XFORMERS = "xformers==0.0.31"  # made for torch 2.7.1, so that beside any other its kernels do not load
ROOM = 12  # GB: PyTorch with CUDA, packed and unpacked
SHOWN = ("torch", "diffusers", "transformers", "peft", "accelerate", "datasets", "numpy", "scikit-learn", "xformers")
TRAIN = "--preset tiny --max_train_steps 3 --validation_epochs 1 --validation_inference_steps 4"
TRAIN += " --report_to all --output_dir run"


@dataclass(frozen=True)
class Row:
    """A Python, the versions to take (pinned, or the lowest allowed), and the project's extras."""

    python: str
    lowest: bool = False
    extras: str = ""

    def wanted(self) -> list[str]:
        """The arguments of `uv pip install`."""
        versions = ["--resolution", "lowest-direct"] if self.lowest else ["--constraint", str(ROOT / "constraints.txt")]
        return [*versions, f"{ROOT}{self.extras}", *BESIDE]


ROWS = {version: Row(version) for version in ("3.10", "3.11", "3.12", "3.13")}
ROWS |= {f"{version}-lowest": Row(version, lowest=True, extras="[wandb]") for version in ("3.10", "3.13")}


@functools.cache
def python(version: str) -> str | None:
    """An interpreter of this version, on PATH or among pyenv's; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in map(str, filter(None, found)):  # pyenv's shims are on PATH and may run nothing
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True).returncode == 0:
            return candidate
    return None


def make(name: str) -> Path:
    """Make a row's environment; its interpreter. uv may fetch a Python that is not here. RuntimeError if it cannot."""
    row, folder = ROWS[name], _home() / name
    _do(
        [sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", python(row.python) or row.python, folder]
    )
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", folder / "bin" / "python"]
    # uv would take a wheel of ours that it has built before, whatever has changed since
    _do([*install, "--refresh-package", "sdxl_nb", *row.wanted()])
    _do([*install, "--no-deps", OLD_XFORMERS])
    return folder / "bin" / "python"


def tried(name: str) -> dict[str, str]:
    """Train, draw and load in a row's new environment, far from this folder; the versions that did it."""
    interpreter = make(name)
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        _do([interpreter, "-m", "sdxl_nb.train", *TRAIN.split()], folder)
        said = _do([interpreter, Path(__file__).with_name("matrix_trial.py"), *SHOWN], folder)
    return json.loads(said.splitlines()[-1])


def _lack(row: Row) -> str:
    """What this machine lacks for a row; nothing if it can be tried."""
    if python(row.python) is None:
        return f"there is no Python {row.python} here"
    _home().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(_home()).free / 1e9
    return f"{ROOM} GB of disk are needed and {free:.0f} are free" if free < ROOM else ""


def _home() -> Path:
    return Path(os.environ.get("SDXL_NB_MATRIX", "~/.cache/sdxl_nb/matrix")).expanduser()


def _do(command: Sequence[str | Path], folder: str | None = None) -> str:
    """What a command prints; RuntimeError with its last words if it fails."""
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "SDXL_NB_CACHE": str(Path(folder or ".") / "cache")}
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if folder is not None:
        environment |= offline
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ends with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Try the rows that the command line names and print a table of them."""
    parser = argparse.ArgumentParser(prog="make matrix")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" · ".join(ROWS))
    parser.add_argument("--if-there", action="store_true", help="leave rows out whose Python is not on this machine")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no row {unknown.pop()}: there are {', '.join(ROWS)}")
    failed = 0
    for name in asked.rows or ROWS:
        if asked.if_there and (lack := _lack(ROWS[name])):
            print(f"Matrix: {name} is left out: {lack}.", file=sys.stderr)
            continue
        try:
            print(f"{name:12} passes: " + ", ".join(" ".join(pair) for pair in tried(name).items()), flush=True)
        except RuntimeError as error:
            failed += 1
            print(f"{name:12} FAILS: {error}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
