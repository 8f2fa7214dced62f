"""Several processes through torchrun and accelerate: equal shares, one writer, one stop; the LoRA of a single process."""

import os
import subprocess
import sys

import pytest
from small_runs import largest_difference, small, train
from test_trainer import FLAT

from sdxl_nb.run import Run

PROMPTS = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}


def launch(config):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["-m", "sdxl_nb.train", *config.to_flags()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return Run.open(config.output_dir)


@pytest.mark.soak
def test_two_processes_are_a_larger_batch(tmp_path):
    alone = train(small(tmp_path / "alone", train_batch_size=2, **FLAT, **PROMPTS))
    config = small(tmp_path / "together", train_batch_size=1, **FLAT, **PROMPTS)
    run = launch(config)
    assert run.status == "completed" and next(run.events("start"))["processes"] == 2
    assert run.losses()[0] == alone.losses()[0] and run.losses()[1] == pytest.approx(alone.losses()[1], rel=1e-5)
    assert largest_difference(run.folder, alone.folder) < 1e-5 and list(run.pictures()) == [0, 4, 6]
    again = launch(config.replace(resume_from_checkpoint="checkpoint-4"))
    assert again.status == "completed" and largest_difference(again.folder, alone.folder) < 1e-5
