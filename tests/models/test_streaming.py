"""Weights read tensor by tensor: from folders, shards and one checkpoint file, into a model that was hollow."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_single_file import BASE, checkpoint, configs, same  # noqa: F401  # fixtures

from sdxl_nb.models.loading import load, load_text_encoder, load_unet, load_vae, load_vae_encoder, open_unet
from sdxl_nb.models.sources import Source
from sdxl_nb.models.stored import Stored

TINY = Source("embedded:tiny-sdxl")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_checkpoint_gives_what_the_folder_gives(checkpoint, dtype):  # noqa: F811
    source = Source(str(checkpoint))
    assert type(load_unet(source)).__name__ == "SdxlUNet"
    assert same(load_unet(source, dtype), load_unet(TINY, dtype))
    assert same(load_vae_encoder(source, dtype), load_vae_encoder(TINY, dtype))
    assert type(load_vae_encoder(source)).__name__ == "VaeEncoder"
    for part in ("text_encoder", "text_encoder_2"):
        assert same(load(source, part, dtype), load(TINY, part, dtype))


def test_the_libraries_read_the_same(checkpoint):  # noqa: F811
    theirs = load_unet(TINY, torch.bfloat16, ours=False)
    assert same(theirs, load_unet(Source(str(checkpoint)), torch.bfloat16))
    encoder, whole = load_vae_encoder(TINY), load_vae(TINY, torch.float32)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in encoder.state_dict().items())


def test_shards_are_one_model(tmp_path):
    shutil.copytree(BASE, tmp_path / "base")
    folder, stem = tmp_path / "base" / "unet", "diffusion_pytorch_model"
    tensors = load_file(folder / f"{stem}.safetensors")
    names = {name: f"{stem}-0000{number % 3 + 1}-of-00003.safetensors" for number, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensor for name, tensor in tensors.items() if names[name] == file}, folder / file)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / f"{stem}.safetensors").unlink()
    assert same(load_unet(Source(str(tmp_path / "base"))), load_unet(TINY))


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_hollow_unet_has_shapes_and_no_memory_until_it_is_filled(precision):
    unet, fill = open_unet(TINY, torch.bfloat16, ours=True, precision=precision)
    layers = [module for module in unet.modules() if isinstance(module, Stored)]
    tensors = [*unet.parameters(), *unet.buffers()]
    assert {tensor.untyped_storage().nbytes() for tensor in tensors} <= {1, 2, 4}
    assert all(layer.weight.dtype == torch.bfloat16 for layer in layers) and bool(layers) == bool(precision)
    parameters = [id(parameter) for parameter in unet.parameters()]
    fill(None)
    assert parameters == [id(parameter) for parameter in unet.parameters()]
    assert all(tensor.is_contiguous() for tensor in (*unet.parameters(), *unet.buffers()))


def test_text_encoders_are_those_of_the_library(tmp_path):
    from transformers import CLIPTextModelWithProjection

    theirs = CLIPTextModelWithProjection.from_pretrained(BASE / "text_encoder_2", dtype=torch.bfloat16).eval()
    ours = load_text_encoder(TINY, "text_encoder_2", torch.bfloat16)
    assert same(ours, theirs) and not ours.training and not any(p.requires_grad for p in ours.parameters())
    ids = torch.tensor([[1, 5, 9, 2] + [0] * 28])
    with torch.no_grad():
        assert torch.equal(ours(ids).text_embeds, theirs(ids).text_embeds)
