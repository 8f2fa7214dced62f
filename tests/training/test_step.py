"""A step launches its work and waits for nothing: on CUDA the host would else stand still until the device is done."""

import pytest
import torch
from small_runs import small, studio
from test_processes import Other
from torch.utils._python_dispatch import TorchDispatchMode

from sdxl_nb.training import objective
from sdxl_nb.training.processes import Processes
from sdxl_nb.training.trainer import Trainer

pytestmark = pytest.mark.slow

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")  # whose results the host must have


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for the device: item(), float(), bool() and int() of a tensor, and masks."""

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        name = function.name().split("::")[1].split(".")[0]
        mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in arguments[1])
        if name in WAITING or mask:
            raise AssertionError(f"{function.name()} waits for the device")
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("read", [float, bool, torch.Tensor.item, torch.nonzero, lambda t: t[t > 0]])
def test_what_waits_is_refused(read):
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        read(torch.ones(1))


ALONE, TWO = Processes(), Other()
FURTHER = {"multires_noise_iterations": 6, "input_perturbation": 0.1, "adaptive_noise_scale": 0.05}


@pytest.mark.parametrize(
    "changes, processes",
    [
        ({}, ALONE),
        ({"use_ema": True, "snr_gamma": 5.0, "noise_offset": 0.1, "mixed_precision": "bf16"}, ALONE),
        ({"train_batch_size": 1, "gradient_accumulation_steps": 2, "mixed_precision": "bf16"}, ALONE),
        ({"loss_type": "huber", "huber_schedule": "exponential", "mixed_precision": "fp16"}, ALONE),
        ({"loss_type": "smooth_l1", "debiased_estimation_loss": True, "gradient_checkpointing": True}, ALONE),
        ({"lora_dropout": 0.2, "lr_scheduler": "cosine", "random_flip": True}, ALONE),
        ({"use_dora": True, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, ALONE),
        ({"use_ema": True, "mixed_precision": "bf16"}, TWO),
        ({**FURTHER, "loss_type": "log_cosh", "p2_gamma": 1.0, "timestep_distribution": "stratified"}, ALONE),
        ({"loraplus_lr_ratio": 4, "lr_pattern": {"style": 1e-3, "attn2.to_v": 0}, "soft_snr_gamma": 4.0}, ALONE),
    ],
)
def test_a_step_waits_for_nothing(tmp_path, changes, processes):
    made = studio(small(tmp_path, **changes))
    step = Trainer(made.config, made, None, None, processes).updates
    with NoWaiting():
        numbers = [step.take(0), step.take(1)]
    assert all(loss > 0 and norm > 0 for loss, norm, _, _ in (each.read() for each in numbers))


@pytest.mark.parametrize("weight", ["snr_gamma", "p2_gamma", "soft_snr_gamma", None])
def test_a_timestep_without_weight_is_said(tmp_path, weight):
    """With v-prediction and zero terminal SNR the formulas give the last one exactly 0."""
    zero = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    made = studio(small(tmp_path, **zero, **({weight: 5.0} if weight else {})))
    step = Trainer(made.config, made, None, None, ALONE).updates
    said = [line for line in made.remarks if "gives the last timestep, which is noise alone, no weight" in line]
    assert [line.split()[0] for line in said] == ([weight] if weight else [])
    if weight:
        given = made.config, step.kind, torch.tensor([998, 999]), step.alpha_bar
        assert objective.weight(*given).tolist() == [pytest.approx(0, abs=1e-3), 0.0]
