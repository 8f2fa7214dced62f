"""What watching costs the training: the trainer's CPU seconds, with a RunMonitor on it and without, in turns.

    python -m benchmarks.monitor [--pairs 5] [--steps 150]

Each run is launched as a notebook does it, on the tiny SDXL, in a process of its own with one thread; its CPU seconds
(user and system) are what the system counts when it has ended. The monitor looks twice a second, more often than it
does by default. Out: a line for each run, and whether the watched median lies within the spread of the others.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from sdxl_nb import RunMonitor, TrainConfig, launch


def cpu_seconds(folder: Path, steps: int, *, watched: bool) -> float:
    """Train once; the CPU seconds of the process that trained."""
    config = TrainConfig.preset(
        "tiny", output_dir=str(folder), max_train_steps=steps, checkpointing_steps=50, report_to="none"
    )
    before = _of_children()
    run = launch(config)
    monitor = RunMonitor(run, interval=0.5) if watched else None
    assert run.wait() == "completed", run.error
    while _of_children() == before:  # until the process itself has ended and was waited for
        time.sleep(0.05)
    if monitor:
        monitor.refresh()
        assert monitor.step == steps
        monitor.close()
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.pairs):
            for watched in (False, True) if number % 2 == 0 else (True, False):
                seconds[watched].append(cpu_seconds(Path(folder, f"{number}-{watched}"), asked.steps, watched=watched))
                print(f"pair {number + 1}, {'watched' if watched else 'alone  '}: {seconds[watched][-1]:.2f} CPU s")
    alone, watched = seconds[False], seconds[True]
    median = statistics.median(watched)
    print(f"alone   {min(alone):.2f} to {max(alone):.2f}, median {statistics.median(alone):.2f} CPU s")
    print(f"watched {min(watched):.2f} to {max(watched):.2f}, median {median:.2f} CPU s")
    inside = min(alone) <= median <= max(alone) or median < min(alone)
    print("The watched median is", "within" if inside else "ABOVE", "the spread of the runs without a monitor.")


if __name__ == "__main__":
    main()
