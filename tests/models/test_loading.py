"""Base models and VAEs from folders; each thing that can be wrong with one is one sentence."""

# ruff: noqa: E501  (a table row is one line)

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_single_file import BASE, same

from sdxl_nb.config.precedence import DEFAULT_BASE
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.models.loading import load, load_pipeline, load_unet, load_vae
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ConfigError, ModelError

pytestmark = pytest.mark.slow

TINY = Source("embedded:tiny-sdxl")
VAE = "madebyollin/sdxl-vae-fp16-fix"
UNET = "unet/diffusion_pytorch_model.safetensors"
PARTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model")


def copy(target, **changes):
    """A copy of the embedded base; changes are {"unet": {"field": value}} in the parts' config.json."""
    shutil.copytree(BASE, target)
    for part, fields in changes.items():
        path = target / ("model_index.json" if part == "model_index" else f"{part}/config.json")
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return target


def shifted(source, target, by):
    """The same tensors, all of them a little larger, so that one can tell which file was read."""
    save_file({name: tensor + by for name, tensor in load_file(source).items()}, target)


def fingerprint(path):
    return hashlib.sha256(b"".join(t.float().numpy().tobytes() for _, t in sorted(load_file(path).items()))).hexdigest()


# On this machine.


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_diffusers_folder_gives_frozen_parts(tmp_path, part):
    found = load(Source(str(copy(tmp_path / "model"))), part)
    assert same(found, load(TINY, part))
    assert not found.training and not any(p.requires_grad for p in found.parameters())


def test_another_vae_by_folder_alone_or_inside_a_model(tmp_path):
    model = copy(tmp_path / "model")
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    shifted(BASE / "vae" / weights.name, weights, 0.5)
    for folder in (model, model / "vae"):
        vae = load_vae(Source("embedded:tiny-sdxl", str(folder)), torch.float32)
        assert torch.allclose(vae.quant_conv.bias, load(TINY, "vae").quant_conv.bias + 0.5, atol=1e-3)  # fp16


def test_only_a_safe_vae_leaves_fp32(tmp_path):
    unsafe = Source(str(copy(tmp_path / "unsafe", vae={"force_upcast": True})))
    for dtype in (torch.float16, torch.bfloat16):
        assert load_vae(unsafe, dtype).dtype == load(unsafe, "vae", dtype).dtype == torch.float32
        assert load_vae(TINY, dtype).dtype == dtype


def test_a_pipeline_has_one_dtype_and_draws(tmp_path):
    pipeline = load_pipeline(str(copy(tmp_path / "unsafe", vae={"force_upcast": True})), torch.bfloat16)
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder_2.dtype} == {torch.bfloat16}
    assert pipeline("a red circle", num_inference_steps=1, height=64, width=64).images[0].size == (64, 64)


def test_loading_prints_nothing(capfd, recwarn):
    load_pipeline("embedded:tiny-sdxl", torch.bfloat16)
    assert capfd.readouterr() == ("", "")
    assert not [str(w.message) for w in recwarn if w.category in (UserWarning, FutureWarning)]


def sentence(call, tmp_path):
    with pytest.raises((ModelError, ConfigError)) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{tmp_path}/", "")


AN_SDXL = f"give an SDXL base, for example {DEFAULT_BASE}."
WRONG = [  # the change to a copy of the embedded base, and what is said of it
    (lambda f: (f / "model_index.json").unlink(), "model is no diffusers model (it has no model_index.json): give one, or a .safetensors checkpoint."),
    (lambda f: (f / "unet/config.json").unlink(), "model has no unet/config.json: download it again, or give a whole SDXL model."),
    (lambda f: (f / "model_index.json").write_text("{"), "model_index.json of model is not valid JSON: download it again."),
    (lambda f: (f / UNET).unlink(), "The unet of model has no safetensors weights, and pickled ones (.bin) are never read: give a model that has."),
    (lambda f: (f / UNET).rename(f / "unet/diffusion_pytorch_model.bin"), "The unet of model has no safetensors weights, and pickled ones (.bin) are never read: give a model that has."),
    (lambda f: (f / UNET).write_bytes((BASE / UNET).read_bytes()[:99_999]), "The unet of model is truncated or no safetensors file (a pickle is never read, whatever its name): download it again, as .safetensors."),
    (lambda f: torch.save({"a": torch.zeros(2)}, f / UNET), "The unet of model is truncated or no safetensors file (a pickle is never read, whatever its name): download it again, as .safetensors."),
    (lambda f: save_file({"conv_in.bias": torch.zeros(64)}, f / UNET), "lacks"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), WRONG, ids=range(len(WRONG)))
def test_a_broken_folder_is_one_sentence(tmp_path, change, words):
    change(copy(tmp_path / "model"))
    said = sentence(lambda: load(Source(str(tmp_path / "model")), "unet"), tmp_path)
    assert words in said if words == "lacks" else said == words


@pytest.mark.parametrize("content", ["nothing", "truncated", "pickle"])
def test_broken_text_encoders_too(tmp_path, content):
    path = copy(tmp_path / "model") / "text_encoder_2" / "model.safetensors"
    if content == "nothing":
        path.unlink()
    elif content == "truncated":
        path.write_bytes(path.read_bytes()[:50_000])
    else:
        torch.save({"a": torch.zeros(2)}, path)
    said = sentence(lambda: load(Source(str(tmp_path / "model")), "text_encoder_2"), tmp_path)
    assert said.startswith(
        "The text_encoder_2 of model has no safetensors weights"
        if content == "nothing"
        else "The text_encoder_2 of model is truncated or no safetensors file"
    )


def test_text_encoder_weights_under_other_names_are_not_made_up(tmp_path):
    """transformers fills what it does not find with random numbers and only logs it."""
    path = copy(tmp_path / "model") / "text_encoder_2" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("text_projection.weight")
    save_file(tensors, path, {"format": "pt"})
    assert sentence(lambda: load(Source(str(tmp_path / "model")), "text_encoder_2"), tmp_path) == (
        "The text_encoder_2 of model lacks 1 of its tensors, text_projection.weight first: download it again."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"unet": {"addition_embed_type": None}, "model_index": {"_class_name": "StableDiffusionPipeline"}},
            f"model is not SDXL (it is a StableDiffusionPipeline): {AN_SDXL}",
        ),
        (
            {"model_index": {"text_encoder": [None, None], "tokenizer": [None, None]}},
            f"model is SDXL's refiner, which has one text encoder: give a base model, for example {DEFAULT_BASE}.",
        ),
        (
            {"model_index": {"tokenizer_2": None}},
            "model has no tokenizer_2 (its model_index.json says so): give a whole SDXL model.",
        ),
    ],
)
def test_a_folder_of_another_kind_is_told_before_anything_is_loaded(tmp_path, changes, words):
    copy(tmp_path / "model", **changes)
    assert sentence(lambda: load(Source(str(tmp_path / "model")), "tokenizer"), tmp_path) == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"latent_channels": 16}, "it has 16 latent channels, the base's own has 4"),
        ({"scaling_factor": 0.18215}, "it has 0.18215 as scaling factor, the base's own has "),
        ({"_class_name": "AutoencoderTiny"}, "is no VAE but a AutoencoderTiny"),
    ],
)
def test_a_vae_that_does_not_fit_the_base_is_refused(tmp_path, fields, words):
    vae = copy(tmp_path / "model", vae=fields) / "vae"
    said = sentence(lambda: load_vae(Source("embedded:tiny-sdxl", str(vae)), torch.float32), tmp_path)
    assert words in said and "model/vae" in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embedded:huge-sdxl", "There is no embedded model embedded:huge-sdxl: the one there is, is embedded:tiny-sdxl."),
        ("./nowhere", "./nowhere does not exist: give a hub id, a diffusers folder or a .safetensors file."),
        ("none.safetensors", "none.safetensors does not exist: give a hub id, a diffusers folder or a .safetensors file."),
        ("not a name", "not a name is neither a folder or file here nor a hub id (owner/name): check the name."),
        ("o/absent", "o/absent is not in the cache and HF_HUB_OFFLINE=1 forbids to fetch it: unset it, or give a local folder."),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere(tmp_path, name, words):
    assert sentence(lambda: load(Source(name), "unet"), tmp_path) == words
    if not name.startswith("embedded"):
        said = sentence(lambda: load_vae(Source("embedded:tiny-sdxl", name), torch.float32), tmp_path)
        assert said == words


def test_an_empty_folder_is_no_vae(tmp_path):
    assert sentence(lambda: load_vae(Source("embedded:tiny-sdxl", str(tmp_path)), torch.float32), tmp_path).endswith(
        "is no VAE (it has no config.json): give a VAE's hub id, folder or .safetensors file."
    )


@pytest.mark.parametrize("targets", [["to_nothing"], ["q_proj"], r".*attn9.*"])
def test_lora_targets_that_hit_nothing_are_refused(tmp_path, targets):
    said = sentence(lambda: add_lora(TrainConfig.preset("tiny", target_modules=targets), load(TINY, "unet")), tmp_path)
    assert "target_modules" in said and str(targets if isinstance(targets, str) else targets[0]) in said


# From a hub.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dora_begins_as_a_base_in_half_precision(dtype, tmp_path):
    """peft rounds its magnitudes to the base's dtype, and divides by norms that are not rounded."""
    config = TrainConfig.preset("tiny", output_dir=str(tmp_path), use_dora=True, target_modules=["to_q", "conv1"])
    unet = load_unet(Source("embedded:tiny-sdxl"), dtype)
    add_lora(config, unet)
    for module in unet.modules():
        if hasattr(module, "lora_magnitude_vector"):
            base = module.get_base_layer()
            given = (
                torch.randn(2, 9, base.in_features) if base.weight.ndim == 2 else torch.randn(2, base.in_channels, 8, 8)
            )
            with torch.autocast("cpu", dtype):
                assert torch.equal(module(given), base(given))
