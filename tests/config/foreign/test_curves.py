"""The learning rate of an imported run, step by step: the course that the other program's own scheduler gives."""

import json
import re

import pytest
import torch
from diffusers.optimization import get_scheduler as of_diffusers
from transformers.optimization import get_polynomial_decay_schedule_with_warmup
from transformers.optimization import get_scheduler as of_transformers

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.training.optimizing.schedules import learning_rates

STEPS = 200
RATE = 3e-4


def imported(tmp_path, name, text):
    """The configuration that a file becomes."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match=re.escape(f"What {name} does not say")):
        return TrainConfig.load(tmp_path / name)


def of_kohya(tmp_path, lines):
    head = f'pretrained_model_name_or_path = "b"\ntrain_data_dir = "img"\nnetwork_dim = 4\nlearning_rate = {RATE}\n'
    return imported(tmp_path, "old.toml", head + lines)


def course(scheduler):
    """The rate at each step, of a scheduler as a training loop uses it."""
    rates = []
    for _ in range(STEPS):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


KOHYA = [  # lines of its file; what its get_scheduler_fix hands to transformers
    ("lr_scheduler = 'cosine'\nlr_warmup_steps = 20", "cosine", 20, {}),
    ("lr_scheduler = 'cosine'\nlr_warmup_steps = 0.0525", "cosine", 10, {}),  # int(0.0525 * 200)
    ("lr_scheduler = 'linear'", "linear", 0, {}),
    (
        "lr_scheduler = 'cosine_with_restarts'\nlr_scheduler_num_cycles = 3\nlr_warmup_steps = 7",
        "cosine_with_restarts",
        7,
        {"num_cycles": 3},
    ),
    ("lr_scheduler = 'polynomial'\nlr_scheduler_power = 2\nlr_warmup_steps = 5", "polynomial", 5, {"power": 2}),
    ("lr_scheduler = 'constant'", "constant", 0, {}),
    ("lr_scheduler = 'constant_with_warmup'\nlr_warmup_steps = 30", "constant_with_warmup", 30, {}),
    (
        "lr_scheduler = 'cosine_with_min_lr'\nlr_scheduler_min_lr_ratio = 0.1\nlr_warmup_steps = 12",
        "cosine_with_min_lr",
        12,
        {"min_lr_rate": 0.1, "num_cycles": 0.5},
    ),
    (
        "lr_scheduler = 'warmup_stable_decay'\nlr_decay_steps = 50\nlr_scheduler_min_lr_ratio = 0.2",
        "warmup_stable_decay",
        0,
        {"num_decay_steps": 50, "num_stable_steps": 150, "min_lr_ratio": 0.2, "num_cycles": 0.5},
    ),
    (
        "lr_scheduler = 'warmup_stable_decay'\nlr_decay_steps = 0.25\nlr_warmup_steps = 0.1",
        "warmup_stable_decay",
        20,
        {"num_decay_steps": 50, "num_stable_steps": 130, "min_lr_ratio": 0.0, "num_cycles": 0.5},
    ),
]


@pytest.mark.parametrize("lines, name, warmup, more", KOHYA)
def test_of_kohya(tmp_path, lines, name, warmup, more):
    config = of_kohya(tmp_path, f"max_train_steps = {STEPS}\n{lines}")
    rate = learning_rates(config, STEPS, processes=1)
    if name in ("cosine_with_restarts", "polynomial"):
        theirs = of_diffusers(name, optimizer(), num_warmup_steps=warmup, num_training_steps=STEPS, **more)
    else:
        theirs = of_transformers(
            name, optimizer(), warmup, None if "stable" in name else STEPS, scheduler_specific_kwargs=more
        )
    assert [rate(step) for step in range(STEPS)] == pytest.approx(course(theirs), rel=1e-9, abs=1e-13)


ONETRAINER = [  # its settings, with accumulation over 2; the same course by name, from diffusers and transformers
    ({"learning_rate_warmup_steps": 0}, "constant", 0, {}),
    ({"learning_rate_warmup_steps": 60}, "constant_with_warmup", 30, {}),
    ({"learning_rate_scheduler": "LINEAR", "learning_rate_warmup_steps": 0.1}, "linear", 20, {}),
    (
        {"learning_rate_scheduler": "COSINE", "learning_rate_min_factor": 0.2, "learning_rate_warmup_steps": 41},
        "cosine_with_min_lr",
        20,
        {"min_lr_rate": 0.2, "num_cycles": 0.5},
    ),
    (
        {"learning_rate_scheduler": "COSINE_WITH_HARD_RESTARTS", "learning_rate_cycles": 4.0},
        "cosine_with_restarts",
        100,
        {"num_cycles": 4},
    ),
]


@pytest.mark.filterwarnings("ignore:layer_filter_preset full")
@pytest.mark.parametrize("settings, name, warmup, more", ONETRAINER)
def test_of_onetrainer(tmp_path, settings, name, warmup, more):
    head = {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_XL_10_BASE", "learning_rate": RATE}
    head |= {"base_model_name": "b", "concept_file_name": "c.json", "gradient_accumulation_steps": 2}
    config = imported(tmp_path, "old.json", json.dumps({**head, **settings}))
    rate = learning_rates(config, STEPS, processes=1)
    if "min_lr_rate" in more:
        theirs = of_transformers(name, optimizer(), warmup, STEPS, scheduler_specific_kwargs=more)
    else:
        theirs = of_diffusers(name, optimizer(), num_warmup_steps=warmup, num_training_steps=STEPS, **more)
    assert [rate(step) for step in range(STEPS)] == pytest.approx(course(theirs), rel=1e-9, abs=1e-13)


def test_of_ai_toolkit(tmp_path):
    job = {"type": "sd_trainer", "datasets": [{"folder_path": "img"}], "model": {"name_or_path": "b", "is_xl": True}}
    job["train"] = {"lr": RATE, "steps": STEPS, "lr_scheduler": "cosine", "lr_scheduler_params": {"eta_min": 3e-5}}
    config = imported(tmp_path, "old.json", json.dumps({"job": "extension", "config": {"process": [job]}}))
    rate = learning_rates(config, STEPS, processes=1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer(), T_max=STEPS, eta_min=3e-5)
    assert [rate(step) for step in range(STEPS)] == pytest.approx(course(theirs), rel=1e-6)


SIMPLETUNER = [
    ({"lr_scheduler": "polynomial", "lr_warmup_steps": 15, "lr_end": 1e-5}, "polynomial", 15),
    ({"lr_scheduler": "linear", "lr_warmup_steps": 15}, "linear", 15),
    ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 15}, "constant_with_warmup", 15),
]


@pytest.mark.filterwarnings("ignore:data_backend_config", "ignore:optimizer adamw_bf16")
@pytest.mark.parametrize("settings, name, warmup", SIMPLETUNER)
def test_of_simpletuner(tmp_path, settings, name, warmup):
    head = {"model_family": "sdxl", "model_type": "lora", "data_backend_config": "d.json", "learning_rate": RATE}
    head |= {"pretrained_model_name_or_path": "b", "max_train_steps": STEPS}
    rate = learning_rates(imported(tmp_path, "old.json", json.dumps({**head, **settings})), STEPS, processes=1)
    if name == "polynomial":
        theirs = get_polynomial_decay_schedule_with_warmup(optimizer(), warmup, STEPS, lr_end=1e-5, power=0.8)
    else:
        theirs = of_diffusers(name, optimizer(), num_warmup_steps=warmup, num_training_steps=STEPS)
    assert [rate(step) for step in range(STEPS)] == pytest.approx(course(theirs), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant"])
def test_of_diffusers(tmp_path, name):
    line = "accelerate launch train_dreambooth_lora_sdxl.py --pretrained_model_name_or_path=b --dataset_name=d "
    line += f"--learning_rate={RATE} --lr_scheduler={name} --lr_warmup_steps=20 --lr_num_cycles=2 --lr_power=3"
    rate = learning_rates(imported(tmp_path, "old.sh", line), STEPS, processes=1)
    more = {"num_cycles": 2, "power": 3}
    theirs = of_diffusers(name, optimizer(), num_warmup_steps=20, num_training_steps=STEPS, **more)
    assert [rate(step) for step in range(STEPS)] == pytest.approx(course(theirs), rel=1e-9, abs=1e-13)
