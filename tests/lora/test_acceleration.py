"""A lean start and a lean step: nothing of diffusers where it is not used, and the same numbers as diffusers'."""

import subprocess
import sys

import pytest
import torch
from random_sdxl import make_unet
from small_runs import largest_difference, small, train
from test_trainer import FLAT

from sdxl_nb.lora.acceleration import make_ready, wants_ours
from sdxl_nb.models.loading import load_unet, scheduler_config
from sdxl_nb.models.sources import Source
from sdxl_nb.models.unet import Block, SdxlUNet
from sdxl_nb.system.errors import ConfigError
from sdxl_nb.training import objective

pytestmark = pytest.mark.slow


def test_the_noise_schedule_is_diffusers_bit_for_bit():
    from diffusers import DDPMScheduler

    config = scheduler_config(Source("embedded:tiny-sdxl"))
    assert torch.equal(objective.alpha_bar(config), DDPMScheduler.from_config(config).alphas_cumprod)


@pytest.mark.soak
def test_a_run_with_a_full_cache_imports_no_diffusers(tmp_path):
    config = small(tmp_path / "run", max_train_steps=1, latents_cache_dir=str(tmp_path / "cache"))
    train(config)
    config.replace(output_dir=str(tmp_path / "again")).save(tmp_path / "config.json")
    program = (
        "import sys; from sdxl_nb.config.train_config import TrainConfig\n"
        "from sdxl_nb.training.trainer import fine_tune\n"
        f"fine_tune(TrainConfig.load({str(tmp_path / 'config.json')!r}), progress=False)\n"
        "print([name for name in ('diffusers', 'matplotlib', 'datasets', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_other_attention_comes_through_diffusers_and_says_when_it_does_not_work(tmp_path):
    config = small(tmp_path, enable_xformers_memory_efficient_attention=True)
    assert not wants_ours(config) and wants_ours(small(tmp_path))
    with pytest.raises(ConfigError, match=r"xformers does not work here .* SDPA is used by default"):
        make_ready(make_unet(), config, torch.device("cpu"), [])


def test_tf32_is_that_of_this_run_and_not_of_the_one_before(tmp_path):
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn.allow_tf32
    found = products.allow_tf32
    try:
        for allowed in (True, False):
            make_ready(make_unet(), small(tmp_path, allow_tf32=allowed), torch.device("cuda"), [])
            assert products.allow_tf32 is allowed and torch.backends.cudnn.allow_tf32 is convolutions
    finally:
        products.allow_tf32 = found


@pytest.mark.parametrize(
    "changes, tolerance",
    [
        pytest.param({}, 1e-5, marks=pytest.mark.soak),
        pytest.param({"gradient_checkpointing": True}, 1e-5, marks=pytest.mark.soak),
        pytest.param({"mixed_precision": "bf16", "validation_split": 0.4}, 3e-2, marks=pytest.mark.soak),
    ],
)
def test_compiled_blocks_train_as_plain_ones(tmp_path, monkeypatch, changes, tolerance):
    """As traced, forward and backward; a real run hands that to a C++ compiler, which may not be here."""
    plain = train(small(tmp_path / "plain", max_train_steps=2, **FLAT, **changes))
    compiled, traced = SdxlUNet.compile_repeated_blocks, []

    def trace(module, inputs):
        traced.append(module)
        return aot_eager(module, inputs)

    aot_eager = torch._dynamo.lookup_backend("aot_eager")
    monkeypatch.setattr(SdxlUNet, "compile_repeated_blocks", lambda unet: compiled(unet, backend=trace))
    run = train(small(tmp_path / "compiled", max_train_steps=2, torch_compile=True, **FLAT, **changes))
    assert traced and run.losses()[1] == pytest.approx(plain.losses()[1], rel=tolerance)
    assert largest_difference(run.folder, plain.folder) < tolerance


@pytest.mark.parametrize("ranks", [[2], pytest.param([2, 3, 4], marks=pytest.mark.soak)], ids=len)
def test_every_step_is_compiled_also_after_others_shapes_and_drawings(tmp_path, monkeypatch, ranks):
    """Dynamo gives up silently after eight versions, which smaller batches, buckets and pictures soon make."""
    compiled, forward, ran, seen = SdxlUNet.compile_repeated_blocks, SdxlUNet.forward, [], []

    def backend(module, inputs):
        return lambda *given: (ran.append(1), module.forward(*given))[1]

    def counting(unet, *arguments, **named):
        before = len(ran)
        result = forward(unet, *arguments, **named)
        blocks = sum(isinstance(part, Block) for part in unet.modules())
        seen.append((unet.training, len(arguments[0]), (len(ran) - before) / blocks))
        return result

    monkeypatch.setattr(SdxlUNet, "compile_repeated_blocks", lambda unet: compiled(unet, backend=backend))
    monkeypatch.setattr(SdxlUNet, "forward", counting)
    drawn = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 1}
    wild = {"center_crop": False, "aspect_ratio_buckets": True, "resolution": 64, "validation_split": 0.3}
    for rank in ranks:
        train(small(tmp_path / str(rank), torch_compile=True, train_batch_size=3, rank=rank, **FLAT, **drawn, **wild))
    assert {share for training, _, share in seen if training} == {1} and len({size for _, size, _ in seen}) > 1
    assert {share for training, _, share in seen if not training} == {0}


def test_diffusers_unet_is_checkpointed_whole_and_says_so(tmp_path):
    config = small(tmp_path, gradient_checkpointing=True, gradient_checkpointing_policy="selective")
    remarks: list[str] = []
    unet = make_unet()
    make_ready(unet, config, torch.device("cpu"), remarks)
    assert unet.is_gradient_checkpointing and len(remarks) == 1 and "whole" in remarks[0]
    ours, remarks = load_unet(Source("embedded:tiny-sdxl")), []
    make_ready(ours, config, torch.device("cpu"), remarks)
    assert remarks == [] and any(getattr(part, "recomputed", False) for part in ours.modules())
