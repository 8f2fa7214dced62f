"""Base models and VAEs from a hub: what is downloaded, what is read, and what is said when there is none."""

# ruff: noqa: E501  (a table row is one line)

import hashlib
import json
import subprocess
import sys

import pytest
from hub import Hub
from safetensors.torch import load_file, save_file
from test_loading import UNET, VAE, copy, shifted
from test_single_file import BASE

from sdxl_nb.config.precedence import DEFAULT_BASE

pytestmark = pytest.mark.slow

PARTS = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model")


def fingerprint(path):
    return hashlib.sha256(b"".join(t.float().numpy().tobytes() for _, t in sorted(load_file(path).items()))).hexdigest()


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
    ],
)
def test_the_hub_gives_the_right_weights(answers, case, file):
    assert answers[0][case] == fingerprint(answers[4] / file)


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


@pytest.mark.soak
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
from sdxl_nb.config.precedence import DEFAULT_BASE
from sdxl_nb.models.sources import Source
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
    script = "import time; time.sleep = lambda seconds: print('slept')  # as the client does before it asks again\n"
    script += f"from sdxl_nb.models.refusals.kinds import check_base; from sdxl_nb.models.sources import Source; check_base(Source({DEFAULT_BASE!r}))"
    with Hub() as hub:
        environment = hub.environment(tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"sdxl_nb.system.errors.ModelError: {DEFAULT_BASE} is not here and the hub at {hub.url} cannot be reached: "
        "check the network, HF_ENDPOINT or the name."
    )
    assert done.stdout == ""
