"""A run goes on after its last step, on its own base alone, and with dropout as if nothing had happened."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import ONCE, assert_same, fit_one_at_a_time, largest_difference, small, tensors, train
from test_resume import refused

from sdxl_nb.config.layout import checkpoints, step_of
from sdxl_nb.system.errors import ConfigError

pytestmark = pytest.mark.slow


def test_a_finished_run_goes_on_as_if_it_had_been_longer(tmp_path):
    whole = train(small(tmp_path / "whole", max_train_steps=6))
    train(small(tmp_path / "parts", max_train_steps=3))
    events = []
    longer = small(tmp_path / "parts", max_train_steps=6, resume_from_checkpoint="latest")
    train(longer, events.append)
    assert events[0]["resumed_from"] == 3 and not any("depends" in e.get("message", "") for e in events)
    assert_same(whole.folder, tmp_path / "parts")
    assert [step_of(path) for path in checkpoints(tmp_path / "parts")] == [2, 3, 4, 6]
    assert "checkpoint-6 is beyond the 4 steps" in refused(tmp_path / "parts", ConfigError, max_train_steps=4)


def test_a_rate_that_depends_on_the_length_is_said(tmp_path):
    cosine = {"lr_scheduler": "cosine", "lr_warmup_steps": 0}
    train(small(tmp_path, max_train_steps=2, **cosine))
    events = []
    train(small(tmp_path, max_train_steps=4, resume_from_checkpoint="latest", **cosine), events.append)
    (told,) = (e["message"] for e in events if e["event"] == "warning" and "lr_scheduler" in e["message"])
    assert told.startswith("The run has 4 steps now, it had 2, and lr_scheduler cosine depends on their number")
    assert [e["step"] for e in events if e["event"] == "step"] == [3, 4]


@pytest.mark.parametrize("part, file", [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")])
def test_another_base_of_the_same_name_and_shapes_is_refused(tmp_path, part, file):
    base = tmp_path / "one" / "base"
    shutil.copytree(small(tmp_path).pretrained_model_name_or_path, base)
    train(small(tmp_path / "run", max_train_steps=2, pretrained_model_name_or_path=str(base)))
    moved = tmp_path / "two" / "another name"
    shutil.copytree(base, moved)
    longer = {"max_train_steps": 3, "pretrained_model_name_or_path": str(moved)}
    train(small(tmp_path / "run", resume_from_checkpoint="latest", **longer))  # the same weights
    path = moved / part / f"{file}.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if weights[name].ndim > 1)
    weights[name][0, 0] += 0.01
    save_file(weights, path, {"format": "pt"})
    said = refused(tmp_path / "run", ConfigError, **longer)
    assert f"checkpoint-3 was trained on another base: {part} of another name is not what it was then" in said


def test_dropout_is_the_same_in_every_cut_of_a_step(tmp_path, monkeypatch):
    changes = {"lora_dropout": 0.4, "max_train_steps": 4, "train_text_encoder": True, **ONCE}
    whole = train(small(tmp_path / "whole", train_batch_size=4, **changes))
    plain = train(small(tmp_path / "plain", train_batch_size=4, **changes | {"lora_dropout": 0.0}))
    cut = train(small(tmp_path / "cut", train_batch_size=2, gradient_accumulation_steps=2, **changes))
    assert largest_difference(whole.folder, cut.folder) < 1e-5 < largest_difference(whole.folder, plain.folder)
    fit_one_at_a_time(monkeypatch)
    single = train(small(tmp_path / "single", train_batch_size=4, **changes))
    (said,) = (
        e["message"] for e in single.events("warning") if "memory" in e["message"] and "from now on 1" in e["message"]
    )
    assert said.endswith("from now on 1 at a time, with the same result.")
    assert largest_difference(whole.folder, single.folder) < 1e-5
    assert all(torch.isfinite(value).all() for value in tensors(single.folder).values())
