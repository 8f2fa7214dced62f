"""Kinds of LoRA and teachers in two processes: resumed, or killed, they end with the same bits."""

import multiprocessing
import os
import random
import shutil

import pytest
from small_runs import assert_same, at_call, kill_me, put_negatives, share_apart, small, train
from test_processes import free_port

from sdxl_nb.runs.run import Run
from sdxl_nb.training.state import checkpoint
from sdxl_nb.training.step import Step

pytestmark = pytest.mark.soak
SLIDER = {"slider_positive": "an old card", "slider_negative": "a new card", "slider_target": "a card"}
KINDS = {
    "lokr": {"lora_kind": "lokr", "lokr_factor": 4, "module_dropout": 0.4, "train_text_encoder": True},
    "loha": {"lora_kind": "loha", "target_modules": ["to_q", "conv1"], "rank_dropout": 0.3},
    "dropped": {"rank_dropout": 0.4, "module_dropout": 0.3, "scale_weight_norms": 0.01},
    "prior": {"prior_without_pictures": True, "prior_prompts": ["a card", "a plain card"], "lora_dropout": 0.3},
    "slider": SLIDER,
    "pairs": {"slider_strength": 2.0, "prior_without_pictures": True, "rank_dropout": 0.2},
    "tlora": {"tlora_min_rank": 1, "target_modules": "all", "gradient_checkpointing": True},
    "crops": {"center_crop": False, "aspect_ratio_buckets": False, "random_flip": True, "cached_variants": 3},
    "layer": {"clip_skip": 1, "max_token_length": 150},
    "timesteps": {"timestep_distribution": "stratified", "multires_noise_iterations": 4, "input_perturbation": 0.1},
}
PLACES = {"step": (Step, "_loss"), "save": (checkpoint, "save_file")}
# shares of numbers whose gradient is so near to nothing that rounding gives its sign, and AdamW takes no more of it
ROUNDED = {"slider": 0.01}  # 7 of 3,520 on a CPU with AMX, all of them of one layer
ONE_EACH = {"train_batch_size": 1, "max_train_steps": 6, "checkpointing_steps": 2}


def settings(kind, folder):
    """What a kind asks for, with the pictures that it needs."""
    return KINDS[kind] | ({"slider_negative_dir": str(put_negatives(folder))} if kind == "pairs" else {})


def process(config, rank, port, dying):
    """One of two processes, forked: it imports nothing again and forgets that its parent was alone."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if dying and dying[1] == rank:
        (place, name), count = PLACES[dying[0]], dying[2]
        setattr(place, name, at_call(count, kill_me, getattr(place, name)))
    train(config)
    os._exit(0)


def fork_two(config, dying=None):
    """Train in two forks of this process, without the seconds that two new Pythons take.

    `dying`, (place, number of the process, call), is killed there, and the other with it, as torchrun does.
    """
    port, context = free_port(), multiprocessing.get_context("fork")
    both = [context.Process(target=process, args=(config, rank, port, dying)) for rank in range(2)]
    for one in both:
        one.start()
    if dying:
        first, other = both[dying[1]], both[1 - dying[1]]
        first.join(600)
        assert first.exitcode == -9
        other.kill()
    for one in both:
        one.join(600)
    assert dying or [one.exitcode for one in both] == [0, 0]


def assert_resumes(tmp_path, run, changes):
    """Six steps end as two of them, kept in a checkpoint, and four more."""
    run(small(tmp_path / "whole", **ONE_EACH | changes))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for name in ("pytorch_lora_weights.safetensors", "small.safetensors"):
        (tmp_path / "again" / name).unlink()
    run(small(tmp_path / "again", resume_from_checkpoint="checkpoint-2", **ONE_EACH | changes))
    again = Run.open(tmp_path / "again")
    assert [event["step"] for event in again.events("step")] == [1, 2, 3, 4, 5, 6]
    assert next(again.events("start"))["processes"] == 2
    assert_same(tmp_path / "again", tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_resume_bit_for_bit_and_are_a_larger_batch(tmp_path, kind):
    asked = settings(kind, tmp_path / "opposites")
    assert_resumes(tmp_path, fork_two, asked)
    alone = train(small(tmp_path / "alone", **ONE_EACH | {"train_batch_size": 2}, **asked))
    assert share_apart(tmp_path / "whole", alone.folder, 2e-4) <= ROUNDED.get(kind, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_four_times_it_ends_the_same(tmp_path, kind):
    changes = ONE_EACH | settings(kind, tmp_path / "opposites") | {"max_train_steps": 12, "checkpointing_steps": 1}
    fork_two(small(tmp_path / "whole", **changes))
    config, draw = small(tmp_path / "killed", resume_from_checkpoint="latest", **changes), random.Random(kind)
    moments = [("step", 0, draw.randint(1, 4)), ("step", 1, draw.randint(1, 4)), ("save", 0, 1), ("step", 1, 2)]
    for moment in draw.sample(moments, len(moments)):
        fork_two(config, moment)
    fork_two(config)
    assert_same(tmp_path / "killed", tmp_path / "whole")
