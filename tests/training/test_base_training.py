"""Every kind of base that is supported trains, gives a LoRA that reads back, and is drawn by its own pipeline."""

import json

import numpy as np
import pytest
import torch
from bases import configure_single_files, file, folder
from small_runs import small, tensors, train
from test_base_kinds import FLOW, SUPPORTED
from test_single_file import BASE

from sdxl_nb.drawing.generation import generate
from sdxl_nb.models.objective.base_objective import made, of_config
from sdxl_nb.system.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

DISTINCT = ("playground", "flow")  # the others in soak
INPAINTING = ("inpainting", "file inpainting")  # test_inpainting_training.py
SHOWN = {"validation_prompt": "a card", "num_validation_images": 1, "validation_inference_steps": 3}
V_ZERO = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(autouse=True)
def single_files(monkeypatch):
    configure_single_files(monkeypatch)


def base_of(tmp_path, kind):
    make, changes = SUPPORTED[kind][:2]
    return make(tmp_path / ("model.safetensors" if make is file else "model"), **changes)


def run_on(tmp_path, base, **changes):
    settings = {"pretrained_model_name_or_path": str(base), "max_train_steps": 2, "checkpointing_steps": 2}
    return train(small(tmp_path / "run", **settings | changes))


def theirs(base, config):
    """The base as diffusers itself loads it: the pipeline, its scheduler and its VAE as the files say."""
    from diffusers import StableDiffusionXLPipeline

    if base.is_dir():
        variant = "fp16" if list((base / "unet").glob("*.fp16.*")) else None
        pipeline = StableDiffusionXLPipeline.from_pretrained(base, variant=variant, torch_dtype=torch.float32)
    else:
        pipeline = StableDiffusionXLPipeline.from_single_file(str(base), config=str(BASE))
        pipeline.scheduler = made(of_config(config).scheduler)
    if SUPPORTED["flow"][1]["only_scheduler"]["_class_name"] in type(pipeline.scheduler).__name__:
        pipeline.scheduler.init_noise_sigma = 1.0
        pipeline.scheduler.scale_model_input = lambda sample, timestep=None: sample
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def trained_and_drawn(tmp_path, kind):
    """Two steps, then the same picture by our `generate` and by diffusers' own pipeline with the LoRA loaded."""
    base = base_of(tmp_path, kind)
    run = run_on(tmp_path, base, **SHOWN)
    losses = [event["train_loss"] for event in run.events("step")]
    assert run.status == "completed" and len(losses) == 2 and np.isfinite(losses).all()
    assert all(torch.isfinite(tensor).all() for tensor in tensors(run.folder).values())
    options = {"num_inference_steps": 3, "guidance_scale": 5.0, "height": 32, "width": 32}
    ours = generate(str(base), run.folder, "a card", seeds=(7,), progress=False, **options).at()
    pipeline = theirs(base, run.config)
    before = pipeline("a card", generator=torch.Generator("cpu").manual_seed(7), **options).images[0]
    plain = generate(str(base), None, "a card", seeds=(7,), progress=False, **options).at()
    if kind != "shifted latents":  # which diffusers' pipeline of SDXL ignores
        assert np.abs(np.asarray(before).astype(int) - np.asarray(plain)).max() <= 1
    pipeline.load_lora_weights(run.folder)
    picture = pipeline("a card", generator=torch.Generator("cpu").manual_seed(7), **options).images[0]
    if kind != "shifted latents":
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(ours)).max() <= 2


@pytest.mark.parametrize("kind", DISTINCT)
def test_it_trains_reloads_and_draws(tmp_path, kind):
    trained_and_drawn(tmp_path, kind)


@pytest.mark.soak
@pytest.mark.parametrize("kind", sorted(SUPPORTED.keys() - set(DISTINCT) - {"file playground", *INPAINTING}))
def test_so_do_all_others(tmp_path, kind):
    trained_and_drawn(tmp_path, kind)


def test_a_marked_file_gives_the_lora_of_the_same_folder_bit_for_bit(tmp_path):
    marked = file(tmp_path / "noob.safetensors", v_pred=[], ztsnr=[])
    as_folder = folder(tmp_path / "noob", tiny=True, scheduler=V_ZERO)
    one, other = (run_on(tmp_path / name, base) for name, base in (("a", marked), ("b", as_folder)))
    ours, plain = tensors(one.folder), tensors(other.folder)
    assert ours.keys() == plain.keys() and all(torch.equal(ours[name], plain[name]) for name in ours)
    unmarked = tensors(run_on(tmp_path / "c", file(tmp_path / "plain.safetensors")).folder)
    assert not all(torch.equal(ours[name], unmarked[name]) for name in ours)
    (said,) = [line for line in (one.folder / "log.txt").read_text().splitlines() if line.startswith("The base")]
    assert said == (
        "The base predicts v with zero terminal SNR: its tensors v_pred and ztsnr say so. "
        "It draws with EulerDiscreteScheduler."
    )


def test_what_cannot_be_trained_is_said_before_anything_is_encoded(tmp_path, monkeypatch):
    from sdxl_nb.training import class_pictures

    monkeypatch.setattr(class_pictures, "draw", lambda *given: pytest.fail("class pictures are drawn"))
    prior = {"with_prior_preservation": True, "class_data_dir": str(tmp_path / "class"), "class_prompt": "a card"}
    for number, changes in enumerate(({"scheduler": {"prediction_type": "sample"}}, {"unet": {"in_channels": 8}})):
        base = folder(tmp_path / f"base-{number}", **changes)
        with pytest.raises(ModelError):
            run_on(tmp_path, base, **prior)
    with pytest.raises(ConfigError, match="does not fit"):
        run_on(tmp_path, folder(tmp_path / "flow", only_scheduler=FLOW), prediction_type="epsilon")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("scheduler", "changes", "words"),
    [
        ({"rescale_betas_zero_snr": True}, {"snr_gamma": 5.0}, "snr_gamma with the base's zero terminal SNR needs"),
        ({}, {"max_timestep": 1001}, "this base has 1000 timesteps: lower min_timestep and max_timestep to them"),
        (FLOW, {"p2_gamma": 1.0}, "p2_gamma is a loss weight for bases that predict epsilon or v"),
        ({}, {"flow_shift": 2.0}, "flow_shift needs a base that predicts the flow"),
        (FLOW, {"snr_gamma": 5.0}, "snr_gamma is a loss weight for bases that predict epsilon or v"),
    ],
)
def test_weights_that_do_not_fit_the_base_are_refused(tmp_path, scheduler, changes, words):
    base = folder(tmp_path / "base", scheduler=scheduler)
    with pytest.raises(ConfigError, match=words):
        run_on(tmp_path, base, **changes)
    assert not (tmp_path / "run").exists()


def test_logit_normal_and_shift_change_what_is_seen(tmp_path):
    base = folder(tmp_path / "base", only_scheduler=FLOW)
    kinds_of_time = [{}, {"timestep_distribution": "logit_normal"}, {"flow_shift": 1.0}]
    runs = [run_on(tmp_path / str(n), base, max_train_steps=1, **kind) for n, kind in enumerate(kinds_of_time)]
    assert len({next(run.events("step"))["train_loss"] for run in runs}) == 3


def test_the_header_says_it(tmp_path):
    run = run_on(tmp_path, folder(tmp_path / "base", only_scheduler=FLOW), max_train_steps=1)
    assert run.lora.metadata["modelspec.prediction_type"] == "flow"
    assert json.loads(run.lora.metadata["sdxl_nb_config"])["prediction_type"] is None
