"""The final LoRA files in the precision asked for, the checkpoints' exact."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import small, train, whole

from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training.setup import Studio

pytestmark = pytest.mark.slow

FILES = ("pytorch_lora_weights.safetensors", "small.safetensors")


def dtypes(folder):
    """Of the weights in both files, and what their headers say; alphas are always fp32."""
    found = []
    for name in FILES:
        kinds = {value.dtype for key, value in load_file(folder / name).items() if not key.endswith(".alpha")}
        with safe_open(folder / name, "pt") as file:
            found.append((*kinds, file.metadata()["sdxl_nb_precision"]))
    return found


def test_by_default_the_file_that_is_shared_is_half_as_large(tmp_path):
    run = whole()
    assert dtypes(run.folder) == [(torch.float32, "float32"), (torch.float16, "float16")]
    assert dtypes(run.folder / "checkpoint-6") == [(torch.float32, "float32")] * 2
    exact, shared = (read_lora(run.folder / name).layers for name in FILES)
    for path, layer in exact.items():
        assert torch.equal(shared[path].down, layer.down.half().float()) and shared[path].alpha == layer.alpha


@pytest.mark.parametrize("precision, dtype", [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_both_in_one_precision(tmp_path, precision, dtype):
    run = train(small(tmp_path, max_train_steps=2, save_precision=precision))
    assert dtypes(run.folder) == [(dtype, str(dtype).removeprefix("torch."))] * 2
    exact = load_file(run.folder / "checkpoint-2" / FILES[0])
    assert all(torch.equal(value, exact[key].to(dtype)) for key, value in load_file(run.folder / FILES[0]).items())


def test_weights_that_fp16_cannot_hold_are_kept_in_fp32_and_that_is_said(tmp_path, monkeypatch):
    collect = Studio.lora

    def huge(studio):
        weights = collect(studio)
        next(iter(weights.layers.values())).up.fill_(1e5)
        return weights

    monkeypatch.setattr(Studio, "lora", huge)
    run = train(small(tmp_path, max_train_steps=1))
    assert dtypes(run.folder) == [(torch.float32, "float32")] * 2
    said = [event["message"] for event in run.events("warning")]
    assert "The LoRA has weights too large for float16: its files of that precision are written in fp32." in said


def test_a_wrong_precision_has_its_sentence():
    with pytest.raises(ConfigError, match="save_precision must be fp32, fp16 or bf16"):
        TrainConfig(save_precision="fp8")
