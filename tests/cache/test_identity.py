"""What a frozen part is: the same for the same files wherever they lie, another for any others."""

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from small_runs import home

from sdxl_nb.cache import identity as module
from sdxl_nb.cache.identity import combined, identity
from sdxl_nb.data import file_facts as memos
from sdxl_nb.data.crops import plan_crop
from sdxl_nb.data.decoding import decode
from sdxl_nb.data.file_facts import Memo
from sdxl_nb.models.files import files, vae_config
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError

PARTS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@pytest.fixture
def base(tmp_path):
    return shutil.copytree(home()[0] / "base", tmp_path / "base")


def identities(base, tmp_path, **options):
    return {part: identity(Source(str(base), **options), part, Memo(tmp_path)) for part in PARTS}


def test_it_is_the_content_that_counts(base, tmp_path):
    before = identities(base, tmp_path)
    assert len(set(before.values())) == 5
    assert identities(shutil.copytree(base, tmp_path / "copy"), tmp_path) == before == identities(base, tmp_path / "m")
    memo = Memo(tmp_path)
    assert identity(Source(str(base)), "vae", memo, "bfloat16") != identity(Source(str(base)), "vae", memo, "float32")
    assert combined("a", "b") == combined("a", "b") != combined("b", "a")


@pytest.mark.parametrize(
    "file, part",
    [
        ("vae/diffusion_pytorch_model.safetensors", "vae"),
        ("vae/config.json", "vae"),
        ("text_encoder_2/model.safetensors", "text_encoder_2"),
        ("tokenizer/tokenizer.json", "tokenizer"),
        ("tokenizer/vocab.json", "tokenizer"),
        ("tokenizer/merges.txt", "tokenizer"),
        ("tokenizer/tokenizer_config.json", "tokenizer"),
        ("tokenizer_2/special_tokens_map.json", "tokenizer_2"),
        ("tokenizer_2/added_tokens.json", "tokenizer_2"),
    ],
)
def test_a_changed_file_changes_its_part_alone(base, tmp_path, file, part):
    before = identities(base, tmp_path)
    with open(base / file, "ab") as changed:
        changed.write(b" ")
    after = identities(base, tmp_path)
    assert [name for name in PARTS if before[name] != after[name]] == [part]


def test_another_version_of_what_we_compute_is_another_identity(base, tmp_path, monkeypatch):
    before = identities(base, tmp_path)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    after = identities(base, tmp_path)
    assert [name for name in PARTS if before[name] == after[name]] == []


def test_the_pixels_that_this_version_caches():
    """Where they change on purpose, raise FORMAT and note the new digest: or else old latents would be used."""
    data = (home()[0] / "pictures" / "5.png").read_bytes()  # 64 x 48
    picture, digest = decode(data, "5.png"), hashlib.sha256()
    for target, flip, method in (((32, 32), False, "lanczos"), ((24, 40), True, "lanczos"), (32, True, "bilinear")):
        crop = plan_crop((48, 64), target, flip=flip, u=0.5, v=0.5, interpolation=method)
        digest.update(repr(crop.time_ids).encode() + crop.apply(picture).tobytes())
    assert (module.FORMAT, digest.hexdigest()[:16]) == (3, "58af9d9b7c0d83ea")


def test_files_that_are_not_used_do_not_count(base, tmp_path):
    before = identities(base, tmp_path)
    for name in ("vae/diffusion_pytorch_model.fp16.safetensors", "vae/README.md", "text_encoder/model.bin"):
        (base / name).write_bytes(b"other")
    assert identities(base, tmp_path) == before
    other = identities(base, tmp_path, variant="fp16")
    assert other["vae"] != before["vae"] and other["tokenizer"] == before["tokenizer"]


def test_weights_in_several_files(base, tmp_path):
    weights = base / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, some in parts.items():
        save_file({name: tensors[name] for name in some}, weights.with_name(file), {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, some in parts.items() for name in some}}
    weights.with_name("model.safetensors.index.json").write_text(json.dumps(index))
    weights.unlink()
    found = [path.name for path in files(Source(str(base)), "text_encoder")]
    assert found == ["config.json", "model.safetensors.index.json", *parts]


def test_another_vae(base, tmp_path):
    (tmp_path / "alone").mkdir()
    for path in (base / "vae").iterdir():
        shutil.copy(path, tmp_path / "alone" / path.name)
    own = identities(base, tmp_path)["vae"]
    assert identities(base, tmp_path, vae=str(tmp_path / "alone"))["vae"] == own
    assert identities(base, tmp_path, vae=str(base))["vae"] == own
    file = tmp_path / "other.safetensors"
    shutil.copy(base / "vae" / "diffusion_pytorch_model.safetensors", file)
    source = Source(str(base), str(file))
    assert files(source, "vae") == [base / "vae" / "config.json", file]
    assert vae_config(source) == json.loads((base / "vae" / "config.json").read_text())


def test_without_a_network_a_file_that_the_hub_may_have_does_not_count(base, tmp_path, monkeypatch):
    """Offline the hub's client cannot tell an absent file from one that was never fetched."""
    before, find = identities(base, tmp_path), Source.find

    def offline(self, file):
        if (path := find(self, file)) is None:
            raise ModelError(f"{file} is not in the cache and HF_HUB_OFFLINE=1 forbids to fetch it.")
        return path

    monkeypatch.setattr(Source, "find", offline)
    assert identities(base, tmp_path) == before
    (base / "vae" / "config.json").unlink()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE=1"):
        vae_config(Source(str(base)))


def test_unchanged_weights_are_not_read_again(base, tmp_path, monkeypatch):
    before = identities(base, tmp_path)
    monkeypatch.setattr(memos, "_sha256", None)
    assert identities(base, tmp_path) == before


def test_a_base_without_a_vae(base):
    (base / "vae" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no VAE with a config.json: give a whole SDXL model\."):
        vae_config(Source(str(base)))
