"""How the cost of a run grows: with pictures, steps, rank and resolution. sdxl_nb alone, process CPU time.

    python -m benchmarks.growth [--pictures 1000 10000 100000]
    python -m benchmarks.growth --cached 1000 10000 100000 1000000

Each line is a fresh process with one thread on the tiny random base. Pictures beyond the first thousand show what those
show, in files of other bytes, so that each is decoded, encoded and cached by itself. 100,000 take a quarter of an hour.

With `--cached` two steps from full caches are measured alone, whose rows benchmarks/copies.py writes in minutes: a
million pictures take some 4 GB of disk. `--keep FOLDER` leaves them there for another time.
"""

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import copies
from .architectures import make_pictures
from .compare import Measured, Work, prepare, run

DISTINCT = 1000


def many_pictures(folder: Path, count: int, side: int) -> None:
    """A folder of so many captioned pictures; behind the end of those beyond DISTINCT stands their number."""
    make_pictures(folder, min(count, DISTINCT), side)
    with open(folder / "metadata.jsonl", "a") as lines:
        for number in range(DISTINCT, count):
            picture = (folder / f"{number % DISTINCT:06d}.jpg").read_bytes()
            (folder / f"{number:06d}.jpg").write_bytes(picture + number.to_bytes(4, "big"))
            lines.write(f'{{"file_name": "{number:06d}.jpg", "text": "pattern {number} of soft colours"}}\n')


def measure(folder: Path, work: Work) -> dict[str, Measured]:
    """Cold and warm."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    found = {}
    for name in ("cold", "warm"):
        found[name] = run(folder, ["ours", *work.flags(folder, folder / "ours")])
        shutil.rmtree(folder / "ours", ignore_errors=True)
    return found


def cached(folder: Path, count: int) -> str:
    """A line for so many cached pictures, made when they are not there yet."""
    work = Work("t-64-b1", 2, pictures=count)
    flags = [*work.flags(folder, folder / "ours"), "--aspect_ratio_buckets", "--bucket_reso_steps=32"]
    apart = {"SDXL_NB_CACHE": str(folder / f"cache-{count}")}
    if not (folder / f"cache-{count}").is_dir():
        copies.make(folder / f"pictures-{work.resolution}-{count}", count)
        prepare(folder, work)
        run(folder, ["copies", *flags], apart)
        shutil.rmtree(folder / "ours")
    found = run(folder, ["ours", *flags], apart)
    shutil.rmtree(folder / "ours")
    stored = sum(file.stat().st_size for file in (folder / f"cache-{count}").rglob("*") if file.is_file())
    return f"| {count:,} | {found.first:.1f} | {found.memory:.0f} | {stored / 1e6:,.0f} |"


def line(label: str, found: dict[str, Measured]) -> str:
    cold, warm = found["cold"], found["warm"]
    return (
        f"| {label} | {cold.job:.1f} | {warm.job:.1f} | {warm.first:.1f} | {warm.step * 1000:.1f} | "
        f"{cold.memory:.0f} | {warm.memory:.0f} |"
    )


def works(pictures: Sequence[int]) -> dict[str, Work]:
    """What is measured, by its label; each axis starts from the same base line."""
    base = {"name": "t-64-b1", "steps": 40, "pictures": 32}
    axes = {f"{count:,} pictures": {"pictures": count} for count in pictures}
    axes |= {f"{steps} steps": {"steps": steps} for steps in (40, 200, 1000)}
    axes |= {f"rank {rank}": {"rank": rank} for rank in (4, 16, 64)}
    axes |= {f"{side} px": {"name": f"t-{side}-b1"} for side in (64, 128, 256)}
    return {label: Work(**base | changes) for label, changes in axes.items()}


def grown(folder: Path, pictures: Sequence[int], only: str | None) -> list[str]:
    """A table of all axes, cold and warm; printed while it is measured."""
    lines = [
        "| t-64-b1, 40 steps, rank 4, 32 pictures, but | job cold, CPU s | job warm, CPU s | first step warm, CPU s | "
        "step, CPU ms | peak cold, MB | peak warm, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for label, work in works(pictures).items():
        if only and only not in label:
            continue
        if work.pictures > DISTINCT:
            many_pictures(folder / f"pictures-{work.resolution}-{work.pictures}", work.pictures, 80)
        prepare(folder, work)
        lines.append(line(label, measure(folder, work)))
        print(lines[-1], flush=True)
    return lines


def grown_caches(folder: Path, counts: Sequence[int]) -> list[str]:
    """A table of starts from full caches."""
    lines = ["| pictures, all cached | first step, CPU s | peak, MB | caches, MB |", "|---|---|---|---|"]
    print("\n".join(lines))
    for count in counts:
        lines.append(cached(folder, count))
        print(lines[-1], flush=True)
    return lines


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--only", help="measure the lines whose label contains this")
    parser.add_argument("--cached", type=int, nargs="*", help="measure two steps from full caches of so many pictures")
    parser.add_argument("--keep", help="a folder for what is made, instead of one that is deleted")
    given = parser.parse_args(arguments)
    temporary = tempfile.TemporaryDirectory(prefix="sdxl_nb-growth-")
    with contextlib.nullcontext(given.keep) if given.keep else temporary as place:
        folder = Path(place)
        if given.cached:
            return grown_caches(folder, given.cached)
        return grown(folder, given.pictures, given.only)


if __name__ == "__main__":
    main()
