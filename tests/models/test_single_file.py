"""One .safetensors checkpoint as the base, in the names of SDXL's first release (sgm), and a VAE as one file."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdxl_nb.config.precedence import DEFAULT_BASE
from sdxl_nb.drawing.generation import generate
from sdxl_nb.models import files, loading, sources
from sdxl_nb.models.loading import load, load_pipeline, load_vae
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError

BASE = sources.EMBEDDED["embedded:tiny-sdxl"]
OUTER = {
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
}
RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "time_emb_proj.": "emb_layers.1.",
    "conv_shortcut.": "skip_connection.",
}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def replaced(text, table):
    for old, new in table.items():
        text = text.replace(old, new)
    return text


def sgm_unet(name, span=2, up_attention=(True, True, False)):
    """A diffusers U-Net's tensor name as sgm has it; span is layers_per_block + 1."""
    if name.startswith(tuple(OUTER)):
        return replaced(name, OUTER)
    if match := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.+)", name):
        return f"input_blocks.{(int(match[1]) + 1) * span}.0.op.{match[2]}"
    if match := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.conv\.(.+)", name):
        place = 2 if up_attention[int(match[1])] else 1
        return f"output_blocks.{(int(match[1]) + 1) * span - 1}.{place}.conv.{match[2]}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        block = "middle_block.1" if match[1] == "attentions" else f"middle_block.{2 * int(match[2])}"
    else:
        match = re.match(r"(down|up)_blocks\.(\d)\.(?=resnets|attentions)", name)
        side, number = match[1], int(match[2]) * span
        match = re.match(r"(resnets|attentions)\.(\d)\.(.+)", name[match.end() :])
        number += int(match[2]) + (side == "down")
        block = f"{'input' if side == 'down' else 'output'}_blocks.{number}.{int(match[1] == 'attentions')}"
    return f"{block}.{replaced(match[3], RESNET) if match[1] == 'resnets' else match[3]}"


def sgm_vae(name, blocks=3):
    name = re.sub(r"decoder\.up_blocks\.(\d)", lambda m: f"decoder.up.{blocks - 1 - int(m[1])}", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    table = {"down_blocks": "down", ".resnets.": ".block.", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}
    table |= {"mid_block.attentions.0": "mid.attn_1", "group_norm": "norm", "to_out.0": "proj_out"}
    table |= {"to_q": "q", "to_k": "k", "to_v": "v", "conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"}
    return replaced(name, table)


def sgm_vae_tensors(tensors):
    """LDM's attention is made of 1 x 1 convolutions."""
    attention = re.compile(r"mid_block\.attentions\.0\.to_.*weight")
    return {sgm_vae(n): t[:, :, None, None] if attention.search(n) else t for n, t in tensors.items()}


def open_clip(tensors):
    """transformers' CLIPTextModelWithProjection as open_clip names it, with q, k and v in one tensor."""
    made = {
        "positional_embedding": tensors.pop("text_model.embeddings.position_embedding.weight"),
        "token_embedding.weight": tensors.pop("text_model.embeddings.token_embedding.weight"),
        "ln_final.weight": tensors.pop("text_model.final_layer_norm.weight"),
        "ln_final.bias": tensors.pop("text_model.final_layer_norm.bias"),
        "text_projection": tensors.pop("text_projection.weight").T.contiguous(),
        "logit_scale": torch.ones(()),
    }
    for name, tensor in tensors.items():
        name = name.replace("text_model.encoder.layers.", "transformer.resblocks.")
        if match := re.match(r"(.+)\.self_attn\.q_proj\.(weight|bias)", name):
            original = name.replace("transformer.resblocks.", "text_model.encoder.layers.")
            parts = [tensors[original.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            made[f"{match[1]}.attn.in_proj_{match[2]}"] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            made[replaced(name, OPEN_CLIP).replace("self_attn", "attn")] = tensor
    return made


def sgm_checkpoint(folder):
    """Every tensor of a diffusers folder under the names of a single-file SDXL checkpoint."""

    def read(part, stem="model"):
        return load_file(folder / part / f"{stem}.safetensors")

    weights = "diffusion_pytorch_model"
    text = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in read("text_encoder").items()}
    parts = {
        "model.diffusion_model.": {sgm_unet(n): t for n, t in read("unet", weights).items()},
        "first_stage_model.": sgm_vae_tensors(read("vae", weights)),
        "conditioner.embedders.0.transformer.": text,
        "conditioner.embedders.1.model.": open_clip(read("text_encoder_2")),
    }
    return {prefix + name: tensor.contiguous() for prefix, part in parts.items() for name, tensor in part.items()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "tiny.safetensors"
    save_file(sgm_checkpoint(BASE), path)
    return path


@pytest.fixture(autouse=True)
def configs(monkeypatch):
    """The embedded base in the place of full-size SDXL."""
    for module in (files, loading, sources):
        monkeypatch.setattr(module, "checkpoint_configs", lambda cache_dir=None: BASE)


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    return True


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_every_tensor_of_a_checkpoint_is_the_originals(checkpoint, part):
    found = load(Source(str(checkpoint)), part)
    assert same(found, load(Source("embedded:tiny-sdxl"), part))
    assert not found.training and not any(p.requires_grad for p in found.parameters())
    assert next(found.parameters()).dtype == torch.float32


def test_a_checkpoint_loads_in_the_dtype_asked_for(checkpoint):
    parts = [load(Source(str(checkpoint)), part, torch.bfloat16) for part in ("unet", "text_encoder_2")]
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.bfloat16}


def test_the_small_parts_come_with_the_configurations(checkpoint):
    source = Source(str(checkpoint))
    assert (
        load(source, "tokenizer")("a red circle").input_ids
        == load(Source("embedded:tiny-sdxl"), "tokenizer")("a red circle").input_ids
    )
    assert load(source, "scheduler").config.prediction_type == "epsilon"


def test_a_checkpoint_draws_what_the_folder_draws(checkpoint):
    options = {"num_inference_steps": 1, "seeds": (3,), "progress": False}
    one, other = (generate(base, None, "a red circle", **options) for base in (str(checkpoint), "embedded:tiny-sdxl"))
    assert [p.tobytes() for p in one.pictures.values()] == [p.tobytes() for p in other.pictures.values()]


def test_a_pipeline_of_a_checkpoint_is_whole(checkpoint):
    pipeline = load_pipeline(str(checkpoint))
    assert same(pipeline.unet, load(Source("embedded:tiny-sdxl"), "unet"))
    assert {type(part).__name__ for part in pipeline.components.values()} >= {"CLIPTextModel", "CLIPTokenizer"}


@pytest.mark.parametrize("names", ["ldm", "diffusers"])
def test_a_vae_in_one_file_takes_the_bases_scaling(tmp_path, names):
    tensors = load_file(BASE / "vae" / "diffusion_pytorch_model.safetensors")
    save_file(sgm_vae_tensors(tensors) if names == "ldm" else tensors, tmp_path / "vae.safetensors")
    vae = load_vae(Source("embedded:tiny-sdxl", str(tmp_path / "vae.safetensors")), torch.float32)
    own = load(Source("embedded:tiny-sdxl"), "vae")
    assert same(vae, own)
    assert vae.config.scaling_factor == own.config.scaling_factor != 0.18215


def test_the_vae_of_a_whole_checkpoint_can_be_another_bases(checkpoint):
    assert same(
        load_vae(Source("embedded:tiny-sdxl", str(checkpoint)), torch.float32), load(Source(str(checkpoint)), "vae")
    )


def refused(path, **options):
    with pytest.raises(ModelError) as error:
        load(Source(str(path), **options), "unet")
    return str(error.value).replace(str(path), "FILE")


PREFIXES = {
    "unet": "model.diffusion_model.",
    "vae": "first_stage_model.",
    "one": "conditioner.embedders.0.",
    "two": "conditioner.embedders.1.",
}


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        (["unet", "vae", "one"], "FILE has no text_encoder_2: give a whole SDXL checkpoint, not its U-Net alone."),
        (["unet", "one", "two"], "FILE has no VAE: give a whole SDXL checkpoint, not its U-Net alone."),
        (["unet"], "FILE has no text_encoder: give a whole SDXL checkpoint, not its U-Net alone."),
        (["vae"], "FILE is not SDXL (the file has no SDXL U-Net): give an SDXL base, for example SDXL."),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_told_apart(checkpoint, tmp_path, kept, sentence):
    prefixes = tuple(PREFIXES[part] for part in kept)
    tensors = {n: t for n, t in load_file(checkpoint).items() if n.startswith(prefixes)}
    save_file(tensors, tmp_path / "part.safetensors")
    assert refused(tmp_path / "part.safetensors") == sentence.replace("example SDXL", f"example {DEFAULT_BASE}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cond_stage_model.transformer.text_model.x", "(it is a Stable Diffusion 1 or 2 checkpoint)"),
        ("lora_unet_middle_block_1_proj_in.lora_down.weight", "(it is a LoRA file)"),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", "(it is a LoRA file)"),
        ("conditioner.embedders.0.model.text_projection", "is SDXL's refiner, which has one text encoder"),
    ],
)
def test_another_kind_of_checkpoint_is_named(tmp_path, name, words):
    save_file({name: torch.zeros(1)}, tmp_path / "other.safetensors")
    assert words in refused(tmp_path / "other.safetensors")


def test_a_checkpoint_that_lacks_a_tensor_is_refused(checkpoint, tmp_path):
    tensors = load_file(checkpoint)
    del tensors["model.diffusion_model.middle_block.0.in_layers.2.weight"]
    save_file(tensors, tmp_path / "holes.safetensors")
    assert refused(tmp_path / "holes.safetensors") == (
        "The unet of FILE lacks 1 of its tensors, model.diffusion_model.middle_block.0.in_layers.2.weight first: "
        "download it again."
    )


@pytest.mark.parametrize("content", ["truncated", "pickle", "empty"])
def test_a_broken_file_is_one_sentence(checkpoint, tmp_path, content):
    path = tmp_path / "broken.safetensors"
    if content == "truncated":
        path.write_bytes(checkpoint.read_bytes()[:100_000])
    elif content == "pickle":
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        path.touch()
    sentence = (
        "{} is truncated or no safetensors file (a pickle is never read, whatever its name): download it again, as "
        ".safetensors."
    )
    assert refused(path) == sentence.format("FILE")
    with pytest.raises(ModelError) as error:
        load_vae(Source("embedded:tiny-sdxl", str(path)), torch.float32)
    assert str(error.value) == sentence.format(path)


def test_pickles_and_addresses_are_refused_by_name(tmp_path):
    torch.save({}, tmp_path / "sdxl.ckpt")
    assert refused(tmp_path / "sdxl.ckpt") == (
        "FILE is a pickle, which can run code and is never read: give a .safetensors file."
    )
    assert "is an address" in refused("https://huggingface.co/a/b/blob/main/c.safetensors")
