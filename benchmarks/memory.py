"""Memory and time of full-size SDXL, side by side: ours, ours in 8 bits, ours from a single file, a commit, the script.

    python -m benchmarks.memory --commit 525a8f6 [--script train_text_to_image_lora_sdxl.py] [--base FOLDER]

The random base of benchmarks.full_size (fp16 folder, 7 GB, made where --base has none), two pictures of one bucket,
bf16, rank 16, gradient checkpointing. Every run is a fresh process with an empty cache; memory is its VmHWM. The
script wants 18 GB of it. On a CPU without bf16 of its own all of them go through benchmarks/products.py.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import products
from .architectures import make_pictures
from .compare import ROOT, Measured, checked_out, run
from .full_size import make_folder, make_single

ROWS = ("script", "commit", "ours", "int8", "single", "single int8")
LIMITS = {  # of the peak memory: (times the commit's, times the script's)
    "ours": (0.63, 0.38),
    "single": (0.63, 0.38),
    "int8": (0.40, 0.24),
    "single int8": (0.40, 0.24),
}


def flags(base: Path, folder: Path, given: argparse.Namespace) -> list[str]:
    """What all of them take, with one meaning."""
    values = {
        "pretrained_model_name_or_path": base,
        "train_data_dir": folder / "pictures",
        "output_dir": folder / "run",
        "resolution": given.resolution,
        "train_batch_size": 1,
        "max_train_steps": given.steps,
        "rank": 16,
        "seed": 7,
        "mixed_precision": given.precision,
        "caption_column": "text",
        "image_column": "image",
        "checkpointing_steps": 10**6,
        "report_to": "tensorboard",
    }
    return [*(f"--{name}={value}" for name, value in values.items()), "--gradient_checkpointing", "--center_crop"]


def measure(row: str, folder: Path, given: argparse.Namespace) -> Measured:
    """One run of a row, in a fresh process with an empty cache."""
    for name in ("cache", "run"):
        shutil.rmtree(folder / name, ignore_errors=True)
    base = given.single if row.startswith("single") else given.base
    own = {"OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads)}
    asked = flags(base, folder, given)
    through = [ROOT / "benchmarks" / "products.py"] if given.precision == "bf16" and products.needed() else ["-m"]
    if row == "script":
        return run(folder, ["reference", str(Path(given.script).resolve()), *asked], own, through)
    if row == "commit":
        with checked_out(given.commit) as tree:
            return run(folder, ["ours", *asked], own | {"PYTHONPATH": str(tree)}, through)
    more = ["--base_precision=int8"] if row.endswith("int8") else []
    return run(folder, ["ours", *asked, *more], own, through)


def table(found: Mapping[str, Measured]) -> list[str]:
    """Lines of Markdown: memory, how many times the commit's and the script's, seconds of a step, the losses."""
    lines = ["| run | peak, GB | of the commit's | of the script's | step, s | step, CPU s | losses |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row, one in found.items():
        shares = []
        for number, other in enumerate(("commit", "script")):
            limit = LIMITS.get(row, (None, None))[number]
            share = f"{one.memory / found[other].memory:.2f}" if other in found and other != row else ""
            shares.append(f"{share} (at most {limit})" if share and limit else share)
        losses = " ".join(f"{loss:.5f}" for loss in one.losses)
        gigabytes = one.memory * 2**20 / 1e9
        lines.append(
            f"| {row} | {gigabytes:.2f} | {shares[0]} | {shares[1]} | {one.pace:.1f} | {one.step:.1f} | {losses} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--commit", help="also measure this commit of the repository, such as 525a8f6")
    parser.add_argument("--script", help="also diffusers' train_text_to_image_lora_sdxl.py, unmodified")
    parser.add_argument("--base", type=Path, help="folder of the base, made where there is none")
    parser.add_argument("--single", type=Path, help="the same base as one file; without it the row is left out")
    parser.add_argument("--size", default="full", help="architecture of a base that is made: full, prop or tiny")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-bench-") as place:
        folder = Path(place)
        given.base = (given.base or folder / "base").resolve()
        if not (given.base / "model_index.json").is_file():
            make_folder(given.base, given.size)
        if given.single and not given.single.is_file():
            make_single(given.base, given.single)
        make_pictures(folder / "pictures", 2, given.resolution * 5 // 4)
        wanted = {"script": given.script, "commit": given.commit, "single": given.single, "single int8": given.single}
        found = {}
        for row in given.rows:
            if wanted.get(row, True):
                found[row] = measure(row, folder, given)
                print("\n".join(table({row: found[row]})[2:]), file=sys.stderr, flush=True)
    lines = table(found)
    print("\n".join(lines))
    return lines


if __name__ == "__main__":
    main()
