"""Twelve runs in processes of their own; the sweep and the trial that trains are killed twice. Minutes: soak."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from small_runs import in_a_process, small

from sdxl_nb import launch, sweep
from sdxl_nb.runs.run import Run
from sdxl_nb.sweeps.following import train

SPACE = {"rank": [1, 2, 4], "learning_rate": [1e-3, 1e-2], "lora_dropout": [0.0, 0.1]}
HELD = {"validation_split": 0.3, "heldout_steps": 2, "max_train_steps": 40, "checkpointing_steps": 4}


def searched(config, sampler):
    return sweep(config, SPACE, sampler=sampler, trials=12, say=lambda line: None)


def killed_in(config, sampler, number, step):
    """The sweep, killed with its trial when trial `number` has come to a step."""

    def kill():
        trial = Path(config.output_dir, f"trial-{number:03d}")
        while not (trial / "run.json").is_file() or Run(trial).step < step:
            time.sleep(0.05)
        os.kill(Run(trial).info["pid"], signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    searched(config, sampler)


@pytest.mark.soak
def test_a_trial_that_was_found_going_on_and_dies_is_gone_on_with(tmp_path):
    """As one that was killed together with its sweep, a moment before it was looked for."""
    config = small(tmp_path / "trial", max_train_steps=200, checkpointing_steps=2)
    launch(config, say=lambda line: None)
    first, killed = wait_for_step(config, 3), []

    def told(event):
        if not killed:
            killed.append(first)
            os.kill(first, signal.SIGKILL)
        return False

    run = train(config, told)
    assert run.status == "completed" and run.step == 200 and run.info["pid"] != first


def wait_for_step(config, step):
    """The pid of a run that has come so far."""
    while not Path(config.output_dir, "run.json").is_file() or Run(config.output_dir).step < step:
        time.sleep(0.05)
    return Run(config.output_dir).info["pid"]


@pytest.mark.soak
@pytest.mark.parametrize("sampler", ["grid", "optuna"])
def test_twelve_runs_killed_twice_end_with_the_table_of_those_that_ran_through(tmp_path, sampler):
    through = searched(small(tmp_path / "through" / "sweep", **HELD), sampler)
    assert len(through.rows) == 12 and {row.state for row in through.rows} <= {"completed", "pruned"}
    config = small(tmp_path / "killed" / "sweep", **HELD)
    for number, step in ((3, 9), (8, 5)):
        assert in_a_process(killed_in, config, sampler, number, step) == -9
    killed = searched(config, sampler)
    assert killed._repr_html_() == through._repr_html_() and killed.rows == through.rows
