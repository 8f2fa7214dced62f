"""What opening many captioned pictures costs: in a folder, in a zip archive, in tar archives.

    python -m benchmarks.opening [--pictures 100000] [--before TREE]

Each line is a fresh process with one thread that has opened a small data set before: CPU seconds and megabytes that the
large one adds, and their ratios to the first line's: the folder's, opened by the version in the folder TREE if one is
given (`git worktree add TREE COMMIT`). Every picture has a .txt beside it; the tars hold 10,000 each. The lines take
turns, and the least of all turns is told, because other programs on the machine cost time too.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

A_TAR = 10_000
OPEN = r"""
import json, re, sys, time
try:
    from sdxl_nb.config.train_config import TrainConfig
    from sdxl_nb.data.dataset import open_dataset
except ImportError:  # before the wings
    from sdxl_nb.config import TrainConfig
    from sdxl_nb.data import open_dataset
def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) / 1024
open_dataset(TrainConfig(train_data_dir=sys.argv[1]))
before, begun = peak(), time.process_time()
pictures = open_dataset(TrainConfig(train_data_dir=sys.argv[2]))
print(json.dumps([len(pictures), pictures.captions[-1], time.process_time() - begun, peak() - before, peak()]))
"""


def files(count: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of so many pictures and their captions."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    for number in range(count):
        yield f"{number:06d}.png", stream.getvalue()
        yield f"{number:06d}.txt", f"card number {number}, plain, drawn by hand".encode()


def make_folder(place: Path, count: int) -> None:
    place.mkdir()
    for name, data in files(count):
        (place / name).write_bytes(data)


def make_zip(place: Path, count: int) -> None:
    with zipfile.ZipFile(place, "w") as archive:
        for name, data in files(count):
            archive.writestr(name, data)


def make_tars(place: Path, count: int) -> None:
    place.mkdir()
    archive = None
    for number, (name, data) in enumerate(files(count)):
        if number % (2 * A_TAR) == 0:
            if archive:
                archive.close()
            archive = tarfile.open(place / f"{number // (2 * A_TAR):05d}.tar", "w")  # noqa: SIM115
        about = tarfile.TarInfo(name)
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    archive.close()


def measure(place: Path, few: Path, tree: str | None = None) -> tuple[float, float, float]:
    """CPU seconds, megabytes added, megabytes in all of a fresh process that imports the package from `tree`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": tree} if tree else {})
    command = [sys.executable, "-c", OPEN, str(few), str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tree)
    _, _, seconds, added, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, added, peak


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.opening", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3, help="the least of so many measurements is told")
    parser.add_argument("--before", metavar="TREE", help="another version of this repository, checked out")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-opening-") as made:
        folder, found = Path(made), dict[str, list[tuple[float, float, float]]]()
        make_folder(folder / "few", 1)
        make_folder(folder / "folder", given.pictures)
        make_zip(folder / "all.zip", given.pictures)
        make_tars(folder / "tars", given.pictures)
        for _ in range(given.times):
            if given.before:
                before = measure(folder / "folder", folder / "few", str(Path(given.before).resolve()))
                found.setdefault("a folder, before", []).append(before)
            for label, name in {"a folder": "folder", "a zip": "all.zip", "tars": "tars"}.items():
                found.setdefault(label, []).append(measure(folder / name, folder / "few"))
    lines = table({label: [min(column) for column in zip(*turns, strict=True)] for label, turns in found.items()})
    print("\n".join(lines))
    return lines


def table(found: dict[str, list[float]]) -> list[str]:
    """Markdown: what was measured, and how it compares with the first line."""
    lines = [
        "| pictures in | CPU s | MB added | MB peak | time | memory added | memory peak |",
        "|---|---|---|---|---|---|---|",
    ]
    first = next(iter(found.values()))
    for label, (seconds, added, peak) in found.items():
        ratios = " | ".join(f"{ours / theirs:.2f}" for ours, theirs in zip((seconds, added, peak), first, strict=True))
        lines.append(f"| {label} | {seconds:.2f} | {added:.0f} | {peak:.0f} | {ratios} |")
    return lines


if __name__ == "__main__":
    main()
