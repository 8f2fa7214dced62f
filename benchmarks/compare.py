"""The diffusers script, a commit and sdxl_nb side by side on the same work: CPU seconds, memory, losses, and ratios.

    python -m benchmarks.compare --script train_text_to_image_lora_sdxl.py [--rounds 3] [--work t-256-b1 ...]
    python -m benchmarks.compare --commit 525a8f6 --rounds 5        (an older state of this repository, and ours)
    python -m benchmarks.compare --rounds 1 --work t-64-b1          (ours alone)

Every round runs the script, the commit and ours, these two first with an empty cache and then with a full one, one
after the other, each in a fresh process with one thread; figures are medians over rounds, ratios those of each round.
CPU seconds (user and system) do not count what other programs do, but a busy machine still slows them: run it on a
quiet one.
"""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .architectures import make_base, make_pictures

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = {"t": "tiny", "p": "prop", "f": "full"}
DEFAULT_WORK = ["t-256-b1", "t-256-b4", "p-256-b1"]
STEPS = {"t-64-b1": 100, "t-256-b1": 100, "t-256-b4": 40, "p-256-b1": 40}  # of a job
LOSS_STEPS = 8  # compared with aligned noise


@dataclass(frozen=True)
class Work:
    """What is trained: an architecture, a resolution, a batch size, as many steps as pictures / batch x epochs."""

    name: str
    steps: int
    rank: int = 4
    pictures: int = 32

    @property
    def base(self) -> str:
        return ARCHITECTURES[self.name.split("-")[0]]

    @property
    def resolution(self) -> int:
        return int(self.name.split("-")[1])

    @property
    def batch(self) -> int:
        return int(self.name.split("-")[2].removeprefix("b"))

    def flags(self, folder: Path, output: Path) -> list[str]:
        """The flags that both take, with one meaning."""
        values = {
            "pretrained_model_name_or_path": folder / self.base,
            "train_data_dir": folder / f"pictures-{self.resolution}-{self.pictures}",
            "output_dir": output,
            "resolution": self.resolution,
            "train_batch_size": self.batch,
            "max_train_steps": self.steps,
            "rank": self.rank,
            "seed": 7,
            "caption_column": "text",
            "checkpointing_steps": 10**6,
            "report_to": "tensorboard",
            "learning_rate": 1e-4,
        }
        pairs = [f"--{name}={value}" for name, value in values.items()]
        return [*pairs, "--image_column=image", "--center_crop"]


@dataclass(frozen=True)
class Measured:
    """One run: CPU seconds of the whole process, of the median step and until the first is done; peak memory, MB.

    `pace` is the median step on the clock, in seconds.
    """

    job: float
    step: float
    first: float
    memory: float
    losses: tuple[float, ...]
    pace: float


def prepare(folder: Path, work: Work) -> None:
    """The base and the pictures of a work, made once; pictures are a quarter larger than they are trained at."""
    base, pictures = folder / work.base, folder / f"pictures-{work.resolution}-{work.pictures}"
    if not base.is_dir():
        make_base(base, work.base)
    if not pictures.is_dir():
        make_pictures(pictures, work.pictures, work.resolution * 5 // 4)


def run(
    folder: Path,
    arguments: Sequence[object],
    environment: Mapping[str, str] | None = None,
    through: Sequence[object] = ("-m",),
) -> Measured:
    """Run benchmarks.child, by Python itself or `through` a script; RuntimeError with its last lines when it fails."""
    result = folder / "result.json"
    given = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "SDXL_NB_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    which, *rest = map(str, arguments)
    command = [sys.executable, *map(str, through), "benchmarks.child", which, str(result), *rest]
    with open(folder / "output.txt", "w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | given | (environment or {}), stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError("".join(output.readlines()[-15:]))
    told = json.loads(result.read_text())
    step, pace = (_median_gap(told[clock]) for clock in ("seconds", "moments"))
    job, memory = usage.ru_utime + usage.ru_stime, told["memory"] / 2**20
    return Measured(job, step, told["seconds"][0], memory, tuple(told["losses"]), pace)


def _median_gap(times: Sequence[float]) -> float:
    return statistics.median([later - earlier for earlier, later in itertools.pairwise(times)] or [float("nan")])


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A work tree of a commit, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-commit-") as place:
        path = Path(place, "tree")
        subprocess.run(["git", "worktree", "add", "--detach", path, commit], cwd=ROOT, check=True, capture_output=True)
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", path], cwd=ROOT, check=True)


def one_round(folder: Path, work: Work, script: str | None, tree: Path | None = None) -> dict[str, Measured]:
    """The script, the commit in this work tree and ours, each of them cold and warm."""
    found = {}
    if script:
        found["script"] = run(folder, ["reference", script, *work.flags(folder, folder / "theirs")])
        shutil.rmtree(folder / "theirs", ignore_errors=True)
    for prefix, root in [("commit ", tree)] * (tree is not None) + [("", ROOT)]:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        for name in ("cold", "warm"):
            which = {"PYTHONPATH": str(root)}
            found[prefix + name] = run(folder, ["ours", *work.flags(folder, folder / "ours")], which)
            shutil.rmtree(folder / "ours", ignore_errors=True)
    return found


def largest_difference(folder: Path, work: Work, script: str) -> float:
    """Of the losses of the same steps, with the script given our noise, order and first weights."""
    short = Work(work.name, LOSS_STEPS, work.rank, work.pictures)
    noise = folder / "noise.npz"
    mine = run(folder, ["ours", "--record", noise, *short.flags(folder, folder / "ours")])
    theirs = run(folder, ["reference", "--replay", noise, script, *short.flags(folder, folder / "theirs")])
    for name in ("ours", "theirs"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return max(abs(a - b) for a, b in zip(mine.losses, theirs.losses, strict=True))


def median(rounds: Sequence[Mapping[str, Measured]], which: str, figure: str) -> float:
    return statistics.median(getattr(found[which], figure) for found in rounds)


FIGURES = [  # label, field, which run of ours, unit
    ("step, CPU ms", "step", "warm", 1000),
    ("job, cold cache, CPU s", "job", "cold", 1),
    ("job, warm cache, CPU s", "job", "warm", 1),
    ("until the first step, cold, CPU s", "first", "cold", 1),
    ("until the first step, warm, CPU s", "first", "warm", 1),
    ("peak memory, cold, MB", "memory", "cold", 1),
    ("peak memory, warm, MB", "memory", "warm", 1),
]


def table(work: Work, rounds: Sequence[Mapping[str, Measured]], difference: float | None) -> list[str]:
    """Lines of Markdown: each figure of the script, the commit and ours, and how many times less ours is."""
    lines = [f"**{work.name}** (rank {work.rank}, {work.steps} steps, {len(rounds)} rounds)", ""]
    lines += ["| figure | script | commit | sdxl_nb | script → ours | commit → ours |", "|---|---|---|---|---|---|"]
    for label, figure, which, unit in FIGURES:
        mine = f"{median(rounds, which, figure) * unit:.1f}"
        others = ("script", f"commit {which}")
        said = [_beside(rounds, name, which, figure, unit) if name in rounds[0] else ("", "") for name in others]
        lines.append(f"| {label} | {said[0][0]} | {said[1][0]} | {mine} | {said[0][1]} | {said[1][1]} |")
    if difference is not None:
        lines.append(f"| largest difference of losses, noise aligned | | | {difference:.1e} | | |")
    return [*lines, ""]


def _beside(
    rounds: Sequence[Mapping[str, Measured]], other: str, which: str, figure: str, unit: float
) -> tuple[str, str]:
    """Another's figure, and how many times ours it is: the median of the rounds, with the least and the largest."""
    ratios = [getattr(found[other], figure) / getattr(found[which], figure) for found in rounds]
    spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{median(rounds, other, figure) * unit:.1f}", f"{statistics.median(ratios):.2f}x{spread}"


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--script", help="path of diffusers' train_text_to_image_lora_sdxl.py, unmodified")
    parser.add_argument("--commit", help="also measure this commit of the repository, such as 525a8f6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of a job, for a quick look")
    parser.add_argument("--work", nargs="+", default=DEFAULT_WORK, help="as t-256-b1: architecture, pixels, batch")
    given = parser.parse_args(arguments)
    script = str(Path(given.script).resolve()) if given.script else None
    lines = []
    beside = checked_out(given.commit) if given.commit else contextlib.nullcontext()
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-bench-") as place, beside as tree:
        folder = Path(place)
        for name in given.work:
            work = Work(name, given.steps or STEPS.get(name, 40))
            prepare(folder, work)
            rounds = [one_round(folder, work, script, tree) for _ in range(given.rounds)]
            block = table(work, rounds, largest_difference(folder, work, script) if script else None)
            print("\n".join(block), flush=True)
            lines += block
    return lines


if __name__ == "__main__":
    main()
