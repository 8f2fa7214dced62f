"""Kinds of base as people have them: what each says of itself, and what was decided about it."""

# ruff: noqa: E501  (a table row is one line)

import pytest
import torch
from bases import COSXL, EDM, STATISTICS, configure_single_files, file, folder, halves, relative, scheduler
from safetensors.torch import save_file

from sdxl_nb.config.precedence import DEFAULT_BASE
from sdxl_nb.models import variants
from sdxl_nb.models.objective.base_objective import made as made_scheduler
from sdxl_nb.models.objective.base_objective import of
from sdxl_nb.models.objective.latent_scaling import LatentScaling
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ConfigError, ModelError

V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True}
SSD = {
    "transformer_layers_per_block": (1, (1, 2), (2, 1)),
    "reverse_transformer_layers_per_block": ((2, 1, 1), (1, 2, 1), 1),
}
SSD |= {"layers_per_block": 2, "mid_block_type": "UNetMidBlock2D"}
VEGA = {"mid_block_type": None}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
DPM_FLOW = scheduler(
    "DPMSolverMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
)
UNET, ONE, TWO = "model.diffusion_model.", "conditioner.embedders.0.", "conditioner.embedders.1."
CONFIG = "its scheduler/scheduler_config.json says so"

SUPPORTED = {  # how it is made; what is decided: prediction, zero SNR, scheduler; who said it; a word of each remark
    "sdxl": (folder, {}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "ddpm": (folder, {"only_scheduler": scheduler("DDPMScheduler")}, "epsilon", False, "DDPMScheduler", CONFIG, []),
    "pndm": (folder, {"only_scheduler": scheduler("PNDMScheduler", skip_prk_steps=True)}, "epsilon", False, "PNDMScheduler", CONFIG, []),
    "ddim v": (folder, {"only_scheduler": scheduler("DDIMScheduler", **V)}, "v_prediction", False, "DDIMScheduler", CONFIG, []),
    "v zero": (folder, {"scheduler": V | ZERO}, "v_prediction", True, "EulerDiscreteScheduler", CONFIG, []),
    "epsilon zero": (folder, {"scheduler": ZERO}, "epsilon", True, "EulerDiscreteScheduler", CONFIG, ["exclude each other"]),
    "dpm++": (folder, {"only_scheduler": scheduler("DPMSolverMultistepScheduler")}, "epsilon", False, "DPMSolverMultistepScheduler", CONFIG, []),
    "unipc": (folder, {"only_scheduler": scheduler("UniPCMultistepScheduler")}, "epsilon", False, "UniPCMultistepScheduler", CONFIG, []),
    "turbo": (folder, {"only_scheduler": scheduler("EulerAncestralDiscreteScheduler", timestep_spacing="trailing")}, "epsilon", False, "EulerAncestralDiscreteScheduler", CONFIG, ["few steps"]),
    "lightning": (folder, {"scheduler": {"timestep_spacing": "trailing"}}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, ["few steps"]),
    "lcm": (folder, {"only_scheduler": scheduler("LCMScheduler")}, "epsilon", False, "LCMScheduler", CONFIG, ["few steps"]),
    "tcd": (folder, {"only_scheduler": scheduler("TCDScheduler")}, "epsilon", False, "TCDScheduler", CONFIG, ["few steps"]),
    "class defaults": (folder, {"only_scheduler": {"_class_name": "LCMScheduler"}}, "epsilon", False, "LCMScheduler", CONFIG, ["few steps"]),
    "betas": (folder, {"scheduler": {"trained_betas": [2e-5 * n for n in range(1, 1001)]} | V}, "v_prediction", False, "EulerDiscreteScheduler", CONFIG, []),
    "playground": (folder, {"only_scheduler": EDM, "vae": STATISTICS}, "edm", False, "EDMDPMSolverMultistepScheduler", CONFIG, []),
    "cosxl": (folder, {"only_scheduler": COSXL}, "edm", False, "EDMEulerScheduler", CONFIG, []),
    "flow": (folder, {"only_scheduler": FLOW}, "flow", False, "FlowMatchEulerDiscreteScheduler", CONFIG, []),
    "flow by dpm++": (folder, {"only_scheduler": DPM_FLOW}, "flow", False, "DPMSolverMultistepScheduler", CONFIG, []),
    "empty encoded": (folder, {"index": {"force_zeros_for_empty_prompt": False}}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "shifted latents": (folder, {"vae": {"shift_factor": 0.25}}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "fp16 alone": (halves, {}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "ssd-1b": (relative, SSD, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "vega": (relative, VEGA, "epsilon", False, "EulerDiscreteScheduler", CONFIG, []),
    "inpainting": (relative, {"in_channels": 9}, "epsilon", False, "EulerDiscreteScheduler", CONFIG, ["inpaints"]),
    "file inpainting": (file, {f"{UNET}input_blocks.0.0.weight": torch.zeros(64, 9, 3, 3).tolist()}, "epsilon", False, "EulerDiscreteScheduler", "SDXL's own way, for the file says nothing else", ["inpaints"]),
    "file": (file, {}, "epsilon", False, "EulerDiscreteScheduler", "SDXL's own way, for the file says nothing else", []),
    "file v": (file, {"v_pred": []}, "v_prediction", False, "EulerDiscreteScheduler", "its tensor v_pred says so", []),
    "file v zero": (file, {"v_pred": [], "ztsnr": []}, "v_prediction", True, "EulerDiscreteScheduler", "its tensors v_pred and ztsnr say so", []),
    "file zero": (file, {"ztsnr": []}, "epsilon", False, "EulerDiscreteScheduler", "SDXL's own way, for the file says nothing else", ["without v_pred"]),
    "file header v": (file, {"header": {"modelspec.prediction_type": "v"}}, "v_prediction", False, "EulerDiscreteScheduler", "its header says v", []),
    "file header of comfy": (file, {"header": {"modelspec.predict_key": "v"}, "ztsnr": []}, "v_prediction", True, "EulerDiscreteScheduler", "its header says v", []),
    "file header epsilon": (file, {"header": {"modelspec.prediction_type": "epsilon"}}, "epsilon", False, "EulerDiscreteScheduler", "its header says epsilon", []),
    "file contradicted": (file, {"header": {"modelspec.prediction_type": "epsilon"}, "v_pred": []}, "v_prediction", False, "EulerDiscreteScheduler", "its tensor v_pred says so", ["is believed"]),
    "file playground": (file, {"edm_mean": STATISTICS["latents_mean"], "edm_std": STATISTICS["latents_std"]}, "edm", False, "EDMDPMSolverMultistepScheduler", "its tensors edm_mean and edm_std say so", []),
    "file cosxl": (file, {"edm_vpred.sigma_max": 100.0, "edm_vpred.sigma_min": 0.01}, "edm", False, "EDMEulerScheduler", "its tensor edm_vpred.sigma_max says so", []),
    "file flow": (file, {"header": {"modelspec.prediction_type": "rectified_flow"}}, "flow", False, "FlowMatchEulerDiscreteScheduler", "its header says rectified_flow", []),
    "name vpred": (file, {}, "epsilon", False, "EulerDiscreteScheduler", "SDXL's own way, for the file says nothing else", ["is called a v-prediction model"]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def single_files(monkeypatch):
    configure_single_files(monkeypatch)


def made(tmp_path, kind):
    """A base of SUPPORTED, as a Source."""
    make, changes = SUPPORTED[kind][:2]
    suffix = ".safetensors" if make is file else ""
    name = "some-vPred" if kind == "name vpred" else "model"
    return Source(str(make(tmp_path / f"{name}{suffix}", **changes)))


@pytest.mark.parametrize("kind", SUPPORTED)
def test_what_a_base_says_is_believed(tmp_path, kind):
    _, _, prediction, zero, drawn, why, remarks = SUPPORTED[kind]
    found = of(made(tmp_path, kind))
    assert (found.prediction, found.zero_snr, found.scheduler["_class_name"], found.why) == (
        prediction,
        zero,
        drawn,
        why,
    )
    assert len(found.remarks) == len(remarks) and all(
        word in said for word, said in zip(remarks, found.remarks, strict=True)
    )
    assert why in str(found) and drawn in str(found) and "\n" not in str(found)


def test_the_table_is_long_enough():
    assert len(SUPPORTED) + len(REFUSED) >= 25 and len({row[4] for row in SUPPORTED.values()}) >= 12


def test_latents_are_as_the_vae_or_the_markers_say(tmp_path):
    statistics = (0.5, tuple(STATISTICS["latents_mean"]), tuple(STATISTICS["latents_std"]))
    assert of(made(tmp_path / "a", "playground")).latents == LatentScaling(*statistics)
    found = of(made(tmp_path / "b", "file playground")).latents
    assert (found.factor, found.mean) == (0.5, pytest.approx(statistics[1])) and found.std == pytest.approx(
        statistics[2]
    )
    assert of(made(tmp_path / "c", "shifted latents")).latents == LatentScaling(0.18215, (0.25,) * 4, (1.0,) * 4)
    assert of(made(tmp_path / "d", "sdxl")).latents == LatentScaling(0.18215)


def test_details_of_schedules(tmp_path):
    sigmas = of(made(tmp_path / "a", "file cosxl")).scheduler
    assert (sigmas["sigma_max"], sigmas["sigma_min"], sigmas["sigma_data"]) == (100.0, pytest.approx(0.01), 1.0)
    assert of(made(tmp_path / "b", "class defaults")).scheduler["beta_start"] == 0.00085  # LCM's own, not Euler's
    assert [of(made(tmp_path / name, name)).flow_shift for name in ("flow", "flow by dpm++", "file flow")] == [3, 2, 1]
    assert not of(made(tmp_path / "c", "empty encoded")).zeros_for_empty
    assert of(Source(str(folder(tmp_path / "f", scheduler={"trained_betas": [0.5, 1.0]} | V)))).zero_snr
    assert of(made(tmp_path / "e", "file v zero")).scheduler["timestep_spacing"] == "trailing"


def test_a_variant_that_is_alone_is_said(tmp_path):
    assert variants.remarks(made(tmp_path, "fp16 alone")) == [
        f"{tmp_path}/model has only fp16 weights of unet, vae, text_encoder, text_encoder_2: they are taken, without --variant."
    ]
    assert variants.remarks(made(tmp_path / "b", "sdxl")) == variants.remarks(made(tmp_path / "c", "file")) == []


@pytest.mark.parametrize(
    ("kind", "flags", "prediction", "zero", "words"),
    [
        ("file v zero", {"prediction": "epsilon"}, "epsilon", True, ["its tensors v_pred and ztsnr say so, and --prediction_type epsilon says otherwise"]),
        ("file", {"prediction": "v_prediction", "rescale_zero_snr": True}, "v_prediction", True, ["says otherwise"]),
        ("sdxl", {"prediction": "epsilon"}, "epsilon", False, []),
        ("sdxl", {"rescale_zero_snr": True}, "epsilon", True, ["there is noise alone"]),
        ("v zero", {"rescale_zero_snr": True}, "v_prediction", True, []),
        ("epsilon zero", {"prediction": "v_prediction"}, "v_prediction", True, ["says otherwise"]),
        ("sdxl", {"prediction": "flow", "flow_shift": 2.0}, "flow", False, ["says otherwise"]),
        ("flow", {"flow_shift": 2.5}, "flow", False, []),
        ("class defaults", {"prediction": "v_prediction", "rescale_zero_snr": True}, "v_prediction", True, ["says otherwise"]),
    ],
)  # fmt: skip
def test_flags_go_before_what_the_base_says_and_contradictions_are_said(tmp_path, kind, flags, prediction, zero, words):
    found = of(made(tmp_path, kind), **flags)
    assert (found.prediction, found.zero_snr) == (prediction, zero)
    assert len(found.remarks) == len(words) and all(
        word in said for word, said in zip(words, found.remarks, strict=True)
    )
    assert found.prediction == "flow" or found.scheduler["prediction_type"] == prediction
    assert found.prediction == "flow" or made_scheduler(found.scheduler).config.prediction_type == prediction
    assert "flow_shift" not in flags or found.flow_shift == flags["flow_shift"]


def test_pictures_of_epsilon_are_drawn_without_the_zero(tmp_path):
    """Of noise alone epsilon says nothing: the base's own picture would be a blot."""
    assert not of(made(tmp_path, "sdxl"), rescale_zero_snr=True).scheduler["rescale_betas_zero_snr"]


@pytest.mark.parametrize("kind", ["playground", "flow"])
@pytest.mark.parametrize("flags", [{"prediction": "v_prediction"}, {"rescale_zero_snr": True}])
def test_flags_that_do_not_fit_are_refused(tmp_path, kind, flags):
    with pytest.raises(
        ConfigError, match=r"^--(prediction_type v_prediction|rescale_betas_zero_snr) does not fit .*: drop it\.$"
    ):
        of(made(tmp_path, kind), **flags)


def alone(target, **tensors):
    """A file of these tensors."""
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.zeros(value) for name, value in tensors.items()}, target)
    return target


def broken(target, cut):
    """The first bytes of a file, or others."""
    whole = file(target).read_bytes()
    target.write_bytes(cut(whole))
    return target


NOT = "X is not SDXL ({}): give an SDXL base, for example " + DEFAULT_BASE + "."
BROKEN = "X is truncated or no safetensors file (a pickle is never read, whatever its name): download it again, as .safetensors."
SWAPPED = "X has its two text encoders swapped: download it again, or give another."
QUANTISED = "X holds quantised weights ({}), whose scales would be lost: give the fp16, bf16 or fp32 model."
UNKNOWN = (
    "X says in its header that it predicts 'magic', which is unknown: give a base that predicts epsilon, v or the flow."
)
SAMPLE = "X predicts sample ({}), which cannot be trained here: give a base that predicts epsilon, v_prediction or the flow, or an EDM model."
INDEX = "_class_name"

REFUSED = {
    "sample": (folder, {"scheduler": {"prediction_type": "sample"}}, SAMPLE.format(CONFIG)),
    "edm sample": (folder, {"only_scheduler": EDM | {"prediction_type": "sample"}}, SAMPLE.format(CONFIG)),
    "unknown scheduler": (folder, {"only_scheduler": {"_class_name": "KarrasVeScheduler"}}, "X draws with KarrasVeScheduler, a scheduler that cannot be trained for here: give a base with one of DDPM's schedule, EDM or flow matching."),
    "dynamic flow": (folder, {"only_scheduler": FLOW | {"use_dynamic_shifting": True}}, "X has a flow with use_dynamic_shifting, which cannot be trained here: give another base."),
    "editing": (folder, {"unet": {"in_channels": 8}}, NOT.format("its U-Net takes 8 channels, not the VAE's 4, as models that edit pictures do")),
    "refiner": (folder, {"index": {"text_encoder": [None, None]}}, f"X is SDXL's refiner, which has one text encoder: give a base model, for example {DEFAULT_BASE}."),
    "sd1": (folder, {"index": {INDEX: "StableDiffusionPipeline"}, "unet": {"addition_embed_type": None}}, NOT.format("it is a StableDiffusionPipeline")),
    "kolors": (folder, {"index": {INDEX: "KolorsPipeline", "text_encoder": ["kolors", "ChatGLMModel"]}}, NOT.format("it is a KolorsPipeline, whose text_encoder is a ChatGLMModel, not a CLIPTextModel")),
    "swapped": (folder, {"text_encoder": {"architectures": ["CLIPTextModelWithProjection"]}, "text_encoder_2": {"architectures": ["CLIPTextModel"]}}, "X has its two text encoders swapped: text_encoder_2 must be the one with a projection."),
    "other encoders": (folder, {"text_encoder": {"hidden_size": 40}}, "The text encoders of X do not fit its U-Net: they give 40 and 32 numbers a token, it takes 64; give a whole SDXL model."),
    "quantised": (folder, {"unet": {"quantization_config": {"quant_method": "bitsandbytes"}}}, QUANTISED.format("its unet's config.json says so")),
    "file header unknown": (file, {"header": {"modelspec.prediction_type": "magic"}}, UNKNOWN),
    "file header sample": (file, {"header": {"modelspec.prediction_type": "x0"}}, SAMPLE.format("its header says x0")),
    "file scaled fp8": (file, {f"{UNET}out.2.scale_weight": 1.0}, QUANTISED.format(f"it has the tensor {UNET}out.2.scale_weight")),
    "file marked fp8": (file, {"scaled_fp8": []}, QUANTISED.format("it has the tensor scaled_fp8")),
    "file nf4": (file, {f"{UNET}out.2.weight.quant_state.bitsandbytes__nf4": [0]}, QUANTISED.format(f"it has the tensor {UNET}out.2.weight.quant_state.bitsandbytes__nf4")),
    "file swapped": (file, {"without": [ONE, TWO], f"{ONE}model.ln_final.bias": [0.0], f"{TWO}transformer.text_model.x": [0.0]}, SWAPPED),
    "file refiner": (file, {"without": [ONE, TWO], f"{ONE}model.ln_final.bias": [0.0]}, f"X is SDXL's refiner, which has one text encoder: give a base model, for example {DEFAULT_BASE}."),
    "file without encoders": (file, {"without": [ONE, TWO]}, "X has no text_encoder: give a whole SDXL checkpoint, not its U-Net alone."),
    "file with one encoder": (file, {"without": [TWO]}, "X has no text_encoder_2: give a whole SDXL checkpoint, not its U-Net alone."),
    "file without vae": (file, {"without": ["first_stage_model."]}, "X has no VAE: give a whole SDXL checkpoint, not its U-Net alone."),
    "file relative": (file, {f"{UNET}input_blocks.5.1.transformer_blocks.1.norm1.bias": [0.0], f"{UNET}input_blocks.3.1.transformer_blocks.1.norm1.bias": [0.0]}, "X is no SDXL but a relative, whose U-Net has other layers (0-2-2 transformer blocks a level, SDXL 0-1-1): one file does not say how they are arranged, so give its diffusers folder."),
    "unet alone": (alone, {"down_blocks.0.resnets.0.conv1.weight": 1}, "X is a U-Net alone, under diffusers' names: give a whole SDXL checkpoint or folder."),
    "vae alone": (alone, {"decoder.conv_in.weight": 1}, NOT.format("the file has no SDXL U-Net")),
    "sd1 file": (alone, {"cond_stage_model.x": 1, f"{UNET}label_emb.0": 1}, NOT.format("it is a Stable Diffusion 1 or 2 checkpoint")),
    "lora file": (alone, {"lora_unet_mid.lora_up.weight": 1}, NOT.format("it is a LoRA file")),
    "lokr file": (alone, {"diffusion.x.lokr_w1": 1}, NOT.format("it is a LoRA file")),
    "controlnet": (alone, {"control_model.x": 1}, NOT.format("it is a ControlNet")),
    "flux file": (alone, {f"{UNET}double_blocks.0.x": 1}, NOT.format("it is a Flux model")),
    "sd3 file": (alone, {f"{UNET}joint_blocks.0.x": 1}, NOT.format("it is a Stable Diffusion 3 model")),
    "embedding": (alone, {"emb_params": 1}, NOT.format("it is an embedding")),
    "truncated": (broken, {"cut": lambda whole: whole[: len(whole) // 2]}, BROKEN),
    "header cut": (broken, {"cut": lambda whole: whole[:100]}, BROKEN),
    "empty": (broken, {"cut": lambda whole: b""}, BROKEN),
    "zeros": (broken, {"cut": lambda whole: bytes(4096)}, BROKEN),
    "a page": (broken, {"cut": lambda whole: b"<!DOCTYPE html><title>Sign in</title>" * 9}, BROKEN),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_trained_is_one_sentence_before_anything_is_loaded(tmp_path, kind):
    make, changes, sentence = REFUSED[kind]
    path = make(tmp_path / ("model" if make is folder else "model.safetensors"), **changes)
    with pytest.raises(ModelError) as error:
        of(Source(str(path)))
    assert str(error.value).replace(str(path), "X") == sentence
