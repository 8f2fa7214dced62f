"""Base models and VAEs from folders and from a hub; each thing that can be wrong with one is one sentence."""

# ruff: noqa: E501  (a table row is one line)

import hashlib
import json
import shutil
import subprocess
import sys
import time

import pytest
import torch
from hub import Hub
from safetensors.torch import load_file, save_file
from test_single_file import BASE, same, sgm_checkpoint

from sdxl_nb.config.precedence import DEFAULT_BASE
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.adapter import add_lora
from sdxl_nb.models.loading import load, load_pipeline, load_unet, load_vae
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ConfigError, ModelError

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
    (lambda f: (f / "unet/config.json").unlink(), f"model is not SDXL (it is a StableDiffusionXLPipeline): {AN_SDXL}"),
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

CASES = {  # name: (Source's arguments, part)
    "base": ({"name": DEFAULT_BASE}, "unet"),
    "text": ({"name": DEFAULT_BASE}, "text_encoder_2"),
    "variant": ({"name": DEFAULT_BASE, "variant": "fp16"}, "unet"),
    "revision": ({"name": DEFAULT_BASE, "revision": "v2"}, "unet"),
    "no variant": ({"name": DEFAULT_BASE, "variant": "int8"}, "unet"),
    "no variant, text": ({"name": DEFAULT_BASE, "variant": "int8"}, "text_encoder"),
    "no revision": ({"name": DEFAULT_BASE, "revision": "v9"}, "unet"),
    "gated": ({"name": "o/gated"}, "tokenizer"),
    "absent": ({"name": "o/absent"}, "tokenizer"),
    "pickles": ({"name": "o/pickles"}, "unet"),
    "vae": ({"name": DEFAULT_BASE, "vae": VAE}, "vae"),
    "whole as vae": ({"name": DEFAULT_BASE, "vae": "o/other"}, "vae"),
    "no vae": ({"name": DEFAULT_BASE, "vae": "o/pictures"}, "vae"),
    "one file": ({"name": "tiny.safetensors"}, "unet"),
    "its text": ({"name": "tiny.safetensors"}, "text_encoder"),
    "its tokens": ({"name": "tiny.safetensors"}, "tokenizer_2"),
}
SCRIPT = """
import hashlib, json, sys
from sdxl_nb.models.loading import Source, load
for name, (source, part) in json.loads(sys.argv[1]).items():
    try:
        found = load(Source(**source), part)
    except Exception as error:
        print(json.dumps([name, f"{type(error).__name__}: {error}"]))
        continue
    tensors = sorted(found.state_dict().items()) if hasattr(found, "state_dict") else []
    print(json.dumps([name, hashlib.sha256(b"".join(t.numpy().tobytes() for _, t in tensors)).hexdigest()]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a fresh process gets from the hub for each case, its stderr, and what was downloaded."""
    folder = tmp_path_factory.mktemp("hub")
    base = copy(folder / "base")
    for part in PARTS:
        shifted(BASE / f"{part}.safetensors", base / f"{part}.fp16.safetensors", 0.25)
        (base / f"{part}.bin").write_bytes(b"pickle")
    (base / "sd_xl_base_1.0.safetensors").write_bytes(b"6.9 GB that nobody asked for")
    shifted(BASE / UNET, copy(folder / "v2") / UNET, 0.5)
    (copy(folder / "pickles") / UNET).rename(folder / "pickles" / "unet" / "diffusion_pytorch_model.bin")
    vae = "vae/diffusion_pytorch_model.safetensors"
    shifted(BASE / vae, copy(folder / "other") / vae, 1.0)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "README.md").write_text("cats")
    save_file(sgm_checkpoint(BASE), folder / "tiny.safetensors")
    models = {DEFAULT_BASE: base, VAE: BASE / "vae", "o/gated": base}
    models |= {f"o/{name}": folder / name for name in ("pickles", "other", "pictures")}
    with Hub(models=models, revisions={(DEFAULT_BASE, "v2"): folder / "v2"}, gated=["o/gated"]) as hub:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps(CASES)],
            env=hub.environment(folder / "home"),
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        answers = dict(map(json.loads, done.stdout.splitlines()))
        return answers, done.stderr, {name: hub.downloads(name) for name in models}, hub.url, folder


@pytest.mark.parametrize(
    ("case", "file"),
    [
        ("base", f"base/{UNET}"),
        ("text", "base/text_encoder_2/model.safetensors"),
        ("variant", "base/unet/diffusion_pytorch_model.fp16.safetensors"),
        ("revision", f"v2/{UNET}"),
        ("vae", "base/vae/diffusion_pytorch_model.safetensors"),
        ("whole as vae", "other/vae/diffusion_pytorch_model.safetensors"),
        ("one file", f"base/{UNET}"),
        ("its text", "base/text_encoder/model.safetensors"),
    ],
)
def test_the_hub_gives_the_right_weights(answers, case, file):
    assert answers[0][case] == fingerprint(answers[4] / file)


def test_a_checkpoints_tokenizer_comes_from_sdxls_own_repository(answers):
    assert answers[0]["its tokens"] == hashlib.sha256().hexdigest()
    assert {"tokenizer_2/tokenizer.json", "text_encoder/config.json"} <= set(answers[2][DEFAULT_BASE])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no variant", f"The unet of {DEFAULT_BASE} has no int8 weights as safetensors: give another --variant, or none."),
        ("no variant, text", f"The text_encoder of {DEFAULT_BASE} has no int8 weights as safetensors: give another --variant, or none."),
        ("no revision", f"{DEFAULT_BASE} has no revision v9: look at the branches and tags at URL/{DEFAULT_BASE}."),
        ("gated", "o/gated is gated: ask for access at URL/o/gated, then set HF_TOKEN."),
        ("absent", "There is no model o/absent here or at URL: check the name, or set HF_TOKEN if it is private."),
        ("pickles", "The unet of o/pickles has no safetensors weights, and pickled ones (.bin) are never read: give a model that has."),
        ("no vae", "o/pictures is no VAE (it has no config.json): give a VAE's hub id, folder or .safetensors file."),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_one_sentence(answers, case, words):
    assert answers[0][case].replace(answers[3], "URL") == f"ModelError: {words}"


def test_only_what_is_needed_is_downloaded_and_nothing_is_printed(answers):
    _, stderr, downloads, _, _ = answers
    assert stderr == ""
    files = downloads[DEFAULT_BASE]
    assert [f for f in files if f.endswith(".bin")] == [f for f in downloads["o/pickles"] if f.endswith(".bin")] == []
    assert sorted(f for f in files if f.endswith(".safetensors")) == sorted(
        [UNET, UNET, "unet/diffusion_pytorch_model.fp16.safetensors", "text_encoder_2/model.safetensors"]
    )
    assert sorted(downloads[VAE]) == ["config.json", "diffusion_pytorch_model.safetensors"]


LEAN = """
import hashlib, json, sys
from sdxl_nb.models.loading import Source, load_unet
for name, variant in json.loads(sys.argv[1]):
    unet = load_unet(Source(name, variant=variant))
    tensors = sorted(unet.state_dict().items())
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in tensors)).hexdigest()
    print(json.dumps([type(unet).__name__, digest, "diffusers.models.unets" in sys.modules]))
"""


def test_a_unet_from_the_hub_is_read_without_diffusers_where_it_is_one_file(tmp_path):
    base, shards = copy(tmp_path / "base"), copy(tmp_path / "shards")
    variant = base / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shifted(BASE / UNET, variant, 0.25)
    tensors = load_file(shards / UNET)
    (shards / UNET).unlink()
    halves = {f"diffusion_pytorch_model-0000{n + 1}-of-00002.safetensors": sorted(tensors)[n::2] for n in (0, 1)}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in names}, shards / "unet" / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, names in halves.items() for name in names}}
    (shards / f"{UNET}.index.json").write_text(json.dumps(index))
    wanted = [(DEFAULT_BASE, None), (DEFAULT_BASE, "fp16"), ("o/shards", None)]
    found = [["SdxlUNet", fingerprint(file), False] for file in (BASE / UNET, variant)]
    found += [["SdxlUNet", fingerprint(BASE / UNET), True]]
    with Hub(models={DEFAULT_BASE: base, "o/shards": shards}) as hub:
        for offline, many in (("0", 3), ("1", 2)):  # first nothing is in the hub's cache, then what it takes
            done = subprocess.run(
                [sys.executable, "-c", LEAN, json.dumps(wanted[:many])],
                env=hub.environment(tmp_path / "home", HF_HUB_OFFLINE=offline),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert [json.loads(line) for line in done.stdout.splitlines()] == found[:many]
        assert [file for file in hub.downloads(DEFAULT_BASE) if "safetensors" in file] == [UNET, f"unet/{variant.name}"]


ABSENT = """
from huggingface_hub import hf_hub_download
from sdxl_nb.models.sources import DEFAULT_BASE, Source
try:
    hf_hub_download(DEFAULT_BASE, "tokenizer/added_tokens.json")
except Exception as error:
    print(type(error).__name__, Source(DEFAULT_BASE).find("tokenizer/added_tokens.json"))
"""


def test_a_file_that_is_known_to_be_absent_is_not_asked_for_again(tmp_path):
    with Hub(models={DEFAULT_BASE: BASE}) as hub:
        environment = hub.environment(tmp_path / "home")
        done = [subprocess.run([sys.executable, "-c", ABSENT], env=environment, capture_output=True, text=True)]
        asked = len(hub.requests)
        environment["HF_HUB_OFFLINE"] = "1"
        done += [subprocess.run([sys.executable, "-c", ABSENT], env=environment, capture_output=True, text=True)]
    assert [each.stdout for each in done] == ["RemoteEntryNotFoundError None\n", "LocalEntryNotFoundError None\n"]
    assert asked == 1 == len(hub.requests)


def test_a_hub_that_is_down_is_said_at_once(tmp_path):
    script = f"from sdxl_nb.models.sources import Source, check_base; check_base(Source({DEFAULT_BASE!r}))"
    with Hub() as hub:
        environment = hub.environment(tmp_path / "home")
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"sdxl_nb.system.errors.ModelError: {DEFAULT_BASE} is not here and the hub at {hub.url} cannot be reached: "
        "check the network, HF_ENDPOINT or the name."
    )
    assert time.monotonic() - begun < 20  # the client would ask again for 25 s


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
