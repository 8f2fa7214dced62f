"""Twelve runs in processes of their own; the sweep and the trial that trains are killed twice. Minutes: soak."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from small_runs import in_a_process, small

from sdxl_nb import sweep
from sdxl_nb.runs.run import Run

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
@pytest.mark.parametrize("sampler", ["grid", "optuna"])
def test_twelve_runs_killed_twice_end_with_the_table_of_those_that_ran_through(tmp_path, sampler):
    through = searched(small(tmp_path / "through" / "sweep", **HELD), sampler)
    assert len(through.rows) == 12 and {row.state for row in through.rows} <= {"completed", "pruned"}
    config = small(tmp_path / "killed" / "sweep", **HELD)
    for number, step in ((3, 9), (8, 5)):
        assert in_a_process(killed_in, config, sampler, number, step) == -9
    killed = searched(config, sampler)
    assert killed._repr_html_() == through._repr_html_() and killed.rows == through.rows
