"""Validation pictures: those of the base pipeline at step 0, and VAEs that need care."""

import types

import numpy as np
import pytest
import torch
from PIL import Image
from random_sdxl import make_pipeline
from small_runs import home, small, train

from sdxl_nb.cache.embeddings import Prompt
from sdxl_nb.models.loading import load_pipeline, load_vae
from sdxl_nb.models.objective.base_objective import of_config
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError
from sdxl_nb.training.validation import Validator, write_pictures

pytestmark = pytest.mark.slow

PROMPTS = {"validation_prompt": ["a card", "two"], "num_validation_images": 2, "validation_inference_steps": 2}


@pytest.fixture(scope="module")
def base():
    return load_pipeline(str(home()[0] / "base"))


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def test_step_0_is_the_base_itself(tmp_path, base):
    run = train(small(tmp_path, **PROMPTS, validation_seed=40, max_train_steps=4))
    by_step = run.pictures()
    assert [path.name for path in by_step[0]] == ["00-40.png", "00-41.png", "01-40.png", "01-41.png"]
    for path in by_step[0]:
        number, seed = map(int, path.stem.split("-"))
        generator = torch.Generator("cpu").manual_seed(seed)
        options = {"height": 32, "width": 32, "num_inference_steps": 2, "guidance_scale": 5.0}
        picture = base(PROMPTS["validation_prompt"][number], generator=generator, **options).images[0]
        assert np.abs(pixels(path) - np.asarray(picture)).max() <= 1
    assert any(np.abs(pixels(a) - pixels(b)).max() > 1 for a, b in zip(by_step[0], by_step[4], strict=True))
    assert [e["step"] for e in run.events("validation")] == [0, 4]
    assert next(run.events("validation"))["pictures"][0] == "validation/step-0/00-40.png"


def validator(folder, base, **changes):
    config = small(folder, **PROMPTS | changes)
    torch.manual_seed(0)
    prompts = Prompt(torch.randn(2, 16, 64), torch.randn(2, 32))
    empty = Prompt(*(torch.zeros_like(part[:1]) for part in prompts))
    return Validator(config.drawings(), base.unet, base.vae, of_config(config), prompts, {"": empty})


def test_looking_leaves_no_trace(tmp_path, base):
    base.unet.train()
    drawn = validator(tmp_path, base)
    state = torch.get_rng_state()
    first = drawn.draw(torch.device("cpu"), torch.float32)
    assert torch.equal(state, torch.get_rng_state()) and base.unet.training
    base.unet.eval()
    second = drawn.draw(torch.device("cpu"), torch.float32)
    assert len(first) == 4 and first == second
    shares = [drawn.draw(torch.device("cpu"), torch.float32, process, 3) for process in range(3)]
    assert [len(part) for part in shares] == [2, 2, 0] and shares[0] + shares[1] == first


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    (path,) = write_pictures(tmp_path, 3, [("00-7.png", b"all of it")])
    assert path == tmp_path / "validation" / "step-3" / "00-7.png" and path.read_bytes() == b"all of it"
    (path.parent / ".00-8.png.draft").mkdir()  # what fails is the writing
    with pytest.raises(OSError):
        write_pictures(tmp_path, 3, [("00-8.png", b"half")])
    assert list(path.parent.glob("*.png")) == [path]


def test_the_scheduler_is_that_of_the_objective(tmp_path, base):
    v = {"prediction_type": "v_prediction"}
    assert validator(tmp_path, base).pipeline.scheduler.config.prediction_type == "epsilon"
    assert validator(tmp_path, base, **v).pipeline.scheduler.config.prediction_type == "v_prediction"
    both = validator(tmp_path, base, rescale_betas_zero_snr=True, **v).pipeline.scheduler.config
    assert (both.prediction_type, both.rescale_betas_zero_snr, both.timestep_spacing) == (
        "v_prediction",
        True,
        "trailing",
    )


def test_large_pictures_are_drawn_one_by_one(tmp_path, base):
    many = {"num_validation_images": 5, "validation_seed": 0}
    drawn = {r: validator(tmp_path, base, resolution=r, **many) for r in (64, 256, 512, 1024)}
    portions = {
        r: [[10 * each.number + each.seed for each in part] for part in v._portions()] for r, v in drawn.items()
    }
    every = [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]  # of both prompts
    assert portions[64] == [every] and portions[256] == [every[:4], every[4:8], every[8:]]
    assert portions[512] == portions[1024] == [[each] for each in every]
    assert [len(part) for part in drawn[64]._portions(4)] == [3, 3, 3, 1]


@pytest.mark.parametrize("upcast, dtype", [(True, torch.float32), (False, torch.bfloat16)])
def test_an_unsafe_vae_decodes_in_fp32(tmp_path, upcast, dtype):
    made = make_pipeline()
    made.vae.register_to_config(force_upcast=upcast)
    made.save_pretrained(tmp_path / "base")
    vae = load_vae(Source(str(tmp_path / "base")), torch.bfloat16)
    assert vae.dtype == dtype
    made.vae, heard = vae, []
    vae.decoder.register_forward_hook(lambda module, inputs, output: heard.append((inputs[0].dtype, output.dtype)))
    made.unet.to(torch.bfloat16)
    validator(tmp_path, made).draw(torch.device("cpu"), torch.bfloat16)
    assert set(heard) == {(dtype, dtype)}


def test_a_vae_that_overflows_names_the_one_to_use(tmp_path, base, monkeypatch):
    def overflow(latents, return_dict):
        return (torch.full((1, 3, 32, 32), float("nan")),)

    monkeypatch.setattr(base.vae, "decode", overflow)
    with pytest.raises(ModelError, match="--pretrained_vae_model_name_or_path madebyollin/sdxl-vae-fp16-fix"):
        validator(tmp_path, base).draw(torch.device("cpu"), torch.float32)


def test_a_model_that_diverged_is_not_blamed_on_the_vae(tmp_path, base, monkeypatch):
    drawn = validator(tmp_path, base)
    broken = types.SimpleNamespace(images=torch.full((2, 4, 8, 8), float("nan")))
    monkeypatch.setattr(type(drawn.pipeline), "__call__", lambda self, **options: broken)
    with pytest.raises(ModelError, match="lower --learning_rate or resume earlier"):
        drawn.draw(torch.device("cpu"), torch.float32)
