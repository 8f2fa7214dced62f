"""The diffusers script and sdxl_nb side by side on the same work: CPU seconds, memory, losses, and their ratios.

    python -m benchmarks.compare --script train_text_to_image_lora_sdxl.py [--rounds 3] [--work t-256-b1 ...]
    python -m benchmarks.compare --rounds 1 --work t-64-b1          (without the script: ours alone)

Every round runs the script, ours with an empty cache and ours with a full one, one after the other, each in a fresh
process with one thread; figures are medians over rounds. CPU seconds (user and system) do not count what other
programs do, but a busy machine still slows them: run it on a quiet one.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
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


def one_round(folder: Path, work: Work, script: str | None) -> dict[str, Measured]:
    """The script, ours cold and ours warm."""
    found = {}
    if script:
        found["script"] = run(folder, ["reference", script, *work.flags(folder, folder / "theirs")])
        shutil.rmtree(folder / "theirs", ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for name in ("cold", "warm"):
        found[name] = run(folder, ["ours", *work.flags(folder, folder / "ours")])
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


def table(work: Work, rounds: Sequence[Mapping[str, Measured]], difference: float | None) -> list[str]:
    """Lines of Markdown: each figure of the script and of ours, and how many times less ours is."""
    theirs = "script" in rounds[0]
    lines = [f"**{work.name}** (rank {work.rank}, {work.steps} steps, {len(rounds)} rounds)", ""]
    lines += ["| figure | diffusers' script | sdxl_nb | ratio |", "|---|---|---|---|"]
    rows = [
        ("step, CPU ms", "step", "warm", 1000),
        ("job, cold cache, CPU s", "job", "cold", 1),
        ("job, warm cache, CPU s", "job", "warm", 1),
        ("until the first step, cold, CPU s", "first", "cold", 1),
        ("until the first step, warm, CPU s", "first", "warm", 1),
        ("peak memory, cold, MB", "memory", "cold", 1),
        ("peak memory, warm, MB", "memory", "warm", 1),
    ]
    for label, figure, which, unit in rows:
        mine = median(rounds, which, figure) * unit
        if theirs:
            other = median(rounds, "script", figure) * unit
            lines.append(f"| {label} | {other:.1f} | {mine:.1f} | {other / mine:.2f}x |")
        else:
            lines.append(f"| {label} | not run | {mine:.1f} | |")
    if difference is not None:
        lines.append(f"| largest difference of losses, noise aligned | | {difference:.1e} | |")
    return [*lines, ""]


def main(arguments: Sequence[str] | None = None) -> list[str]:
    parser = argparse.ArgumentParser("benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--script", help="path of diffusers' train_text_to_image_lora_sdxl.py, unmodified")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps of a job, for a quick look")
    parser.add_argument("--work", nargs="+", default=DEFAULT_WORK, help="as t-256-b1: architecture, pixels, batch")
    given = parser.parse_args(arguments)
    script = str(Path(given.script).resolve()) if given.script else None
    lines = []
    with tempfile.TemporaryDirectory(prefix="sdxl_nb-bench-") as place:
        folder = Path(place)
        for name in given.work:
            work = Work(name, given.steps or STEPS.get(name, 40))
            prepare(folder, work)
            rounds = [one_round(folder, work, script) for _ in range(given.rounds)]
            block = table(work, rounds, largest_difference(folder, work, script) if script else None)
            print("\n".join(block), flush=True)
            lines += block
    return lines


if __name__ == "__main__":
    main()
