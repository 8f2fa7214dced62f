"""A LoRA from two models: itself again after it was fused, however the models are stored; and what it cannot hold."""

import weakref

import pytest
import torch
from bases import configure_single_files, file, folder, halves
from safetensors.torch import load_file, save_file
from small_runs import home
from test_lora import add_lora, make_models, models_of

from sdxl_nb.config.header import objective_flags
from sdxl_nb.lora import extract
from sdxl_nb.lora.changes.reading import Parameter
from sdxl_nb.lora.command import main
from sdxl_nb.lora.files.file import LoraFile
from sdxl_nb.lora.files.reader import read_lora
from sdxl_nb.lora.files.writer import save_lora, save_one
from sdxl_nb.lora.fusing import fuse
from sdxl_nb.lora.layers import collect, delta
from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.system.errors import ModelError

pytestmark = pytest.mark.slow
EMBEDDED = "embedded:tiny-sdxl"


def distance(found, expected):
    """The largest difference of two changes, as a share of the second's norm."""
    return float((found.flatten(1) - expected.flatten(1)).norm() / expected.norm())


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """On every layer of the small base that can carry one, text encoders too."""
    models = make_models()
    add_lora(models, "all", lora_alpha=6)
    return save_lora(collect(**models), tmp_path_factory.mktemp("lora"), "style", {})[1]


@pytest.fixture(scope="module")
def fused(lora, tmp_path_factory):
    return fuse(home()[0] / "base", lora, tmp_path_factory.mktemp("fused") / "model")


def test_a_fused_lora_is_extracted_as_itself(lora, fused):
    found = extract(home()[0] / "base", fused, 4)
    expected = read_lora(lora)
    assert found.weights.layers.keys() == expected.layers.keys() and found.weights.base == expected.base
    for path, layer in expected.layers.items():
        assert distance(delta(found.weights.layers[path]), delta(layer)) < 1e-4, path
    assert found.kept > 1 - 1e-8 and found.remarks == []


def test_one_layer_of_each_is_read_at_a_time(lora, fused, monkeypatch):
    alive, most = set(), []
    read = Parameter.read

    def watched(self):
        tensor = read(self)
        alive.add(id(tensor))
        weakref.finalize(tensor, alive.discard, id(tensor))
        most.append(len(alive))
        return tensor

    monkeypatch.setattr(Parameter, "read", watched)
    extract(home()[0] / "base", fused, 1)
    assert max(most) == 2 and len(most) > 1000


@pytest.mark.parametrize(("one", "two"), [("file", "file"), ("file", "folder"), ("folder", "file")])
def test_files_and_folders_give_the_same(tmp_path, monkeypatch, one, two):
    """A LoRA on three kinds of layers of the embedded base: open_clip's joined tensor, a convolution, a projection."""
    configure_single_files(monkeypatch)
    models = models_of(load_pipeline(EMBEDDED))
    add_lora(models, ["to_q", "q_proj", "conv1"], r=2)
    weights = collect(**models)
    path = save_one(weights, tmp_path / "lora.safetensors")
    base = file(tmp_path / "base.safetensors")
    made = fuse(base, path, tmp_path / "tuned.safetensors", 1.0, torch.float32)
    if two == "folder":
        made = fuse(EMBEDDED, path, tmp_path / "tuned", 1.0)
    found = extract(EMBEDDED if one == "folder" else base, made, 2)
    assert found.weights.layers.keys() == weights.layers.keys()
    for name, layer in weights.layers.items():
        assert distance(delta(found.weights.layers[name]), delta(layer)) < 1e-4, name
    assert found.remarks == []


def changed(target, base=None, **tensors):
    """A copy of the small base where some tensors are other: {"unet/conv_in.bias": value added}."""
    made = folder(target) if base is None else base
    for place, values in tensors.items():
        part, _, name = place.partition("/")
        path = next((made / part).glob("*.safetensors"))
        held = load_file(path)
        held[name] = held[name] + values
        save_file(held, path, {"format": "pt"})
    return made


def test_what_no_lora_holds_is_counted(tmp_path, capsys):
    tuned = changed(
        tmp_path / "tuned",
        **{
            "unet/mid_block.attentions.0.proj_in.weight": torch.eye(16),
            "unet/conv_in.bias": 1.0,
            "unet/conv_norm_out.weight": 1.0,
            "unet/conv_norm_out.bias": 1.0,
            "text_encoder/embeddings.token_embedding.weight": 1.0,
            "text_encoder_2/text_projection.weight": 1.0,
            "vae/encoder.conv_in.weight": 1.0,
        },
    )
    goal = tmp_path / "goal.safetensors"
    arguments = ["--base", str(home()[0] / "base"), "--tuned", str(tuned), "--output", str(goal)]
    assert main(["extract", *arguments, "--energy", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "kept 50.00% of the energy at rank 8" in said  # of an identity of 16
    held = {
        f"{path.parent.name}.{name}": tensor
        for path in (home()[0] / "base").rglob("*.safetensors")
        for name, tensor in load_file(path).items()
    }
    vae = sum(name.startswith("vae.") for name in held)
    rest = {name: tensor for name, tensor in held.items() if not name.startswith("vae.")}
    norms = {name.removesuffix(".weight") for name, tensor in rest.items() if tensor.ndim == 1 and "weight" in name}
    biases = sum(name.endswith(".bias") for name in rest) - len(norms)
    (remark,) = (line for line in said.splitlines() if line.startswith("Not in the LoRA, which holds no such: "))
    assert set(remark.removesuffix(".").partition("changes of ")[2].split(", ")) == {
        f"1 of {biases} biases",
        f"2 of {2 * len(norms)} norms' weights and biases",
        "1 of 4 embeddings",
        "1 of 7 layers that not every reader knows",
        f"1 of {vae} tensors of the VAE",
    }
    assert list(read_lora(goal).layers) == ["unet.mid_block.attentions.0.proj_in"]
    assert main(["check", str(goal)]) == 0
    header = LoraFile(goal).metadata
    assert header["modelspec.title"] == "tuned" and header["ss_sd_model_name"] == "base"
    assert header["ss_base_model_version"] == "sdxl_base_v1-0" and "sdxl_nb_config" not in header
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_rounded_copy_is_compared_as_such(tmp_path):
    """fp16 of the same weights is no change, whichever side it is on; a change of an fp16 base in fp32 is exact."""
    base, half = home()[0] / "base", halves(tmp_path / "half")
    for one, other in ((base, half), (half, base)):
        with pytest.raises(ModelError, match="have the same weights: there is nothing to extract"):
            extract(one, other, 4)
    small = 1e-4 * torch.ones(16, 16)  # less than the rounding of many of the weights
    tuned = changed(tmp_path / "tuned", **{"unet/mid_block.attentions.0.proj_in.weight": small})
    found = extract(half, tuned, 1)
    assert found.compared == torch.float16 and "compared as float16" in found.remarks[0]
    upcast = folder(tmp_path / "upcast")
    for path in upcast.rglob("*.safetensors"):
        save_file({name: tensor.half().float() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    changed(None, upcast, **{"unet/mid_block.attentions.0.proj_in.weight": small})
    found = extract(half, upcast, 1)
    (layer,) = found.weights.layers.values()
    assert found.compared is None and distance(delta(layer), small) < 1e-4


def test_the_objective_of_the_tuned_model_is_in_the_header(tmp_path):
    tuned = folder(tmp_path / "tuned", scheduler={"prediction_type": "v_prediction"})
    changed(None, tuned, **{"unet/mid_block.attentions.0.proj_in.weight": torch.eye(16)})
    header = extract(home()[0] / "base", tuned, 2).weights.metadata
    assert objective_flags(header).prediction_type == "v_prediction" and header["modelspec.prediction_type"] == "v"


def test_what_cannot_be_extracted_is_one_sentence(tmp_path, capsys):
    base = home()[0] / "base"
    nan = changed(tmp_path / "nan", **{"unet/conv_in.weight": float("nan")})
    bias = changed(tmp_path / "bias", **{"unet/conv_in.bias": 1.0})
    lone = folder(tmp_path / "lone", index={"text_encoder": [None, None]})
    lacking = folder(tmp_path / "lacking")
    next((lacking / "text_encoder_2").glob("*.safetensors")).unlink()
    save_file({"cond_stage_model.a": torch.zeros(1)}, tmp_path / "sd1.safetensors")
    for tuned, options, sentence in [
        (base, {}, "are the same: give the base"),
        (base / ".." / "base", {}, "are the same"),
        (tmp_path / "sd1.safetensors", {}, "it is a Stable Diffusion 1 or 2 checkpoint"),
        (lone, {}, "is SDXL's refiner"),
        (lacking, {}, "The text_encoder_2 of .* has no safetensors weights"),
        (EMBEDDED, {}, "have other shapes .text_encoder: hidden_size is 32 and 64"),
        (nan, {}, "nan holds NaN or infinity in conv_in.weight"),
        (bias, {}, "same weights, but for what no LoRA holds"),
        (tmp_path / "nowhere", {}, "does not exist"),
        (bias, {"rank": None}, "Give a rank, or the share"),
        (bias, {"rank": 0}, "0 is no rank"),
        (bias, {"energy": 1.5}, "not 1.5"),
        (bias, {"per_layer": True}, "give an energy"),
    ]:
        with pytest.raises(ModelError, match=sentence):
            extract(base, tuned, **{"rank": 4, **options})
    assert main(["extract", "--base", str(base), "--tuned", str(bias), "--output", "x.ckpt", "--rank", "4"]) == 2
    assert capsys.readouterr().err == "error: x.ckpt must end in .safetensors.\n"
