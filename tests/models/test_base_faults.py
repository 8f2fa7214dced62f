"""Bases that nobody can train from: what was let through, or was refused for a reason that is not so."""

import pytest
import torch
from bases import checkpoint, configure_single_files, file, folder
from safetensors.torch import save_file

from sdxl_nb.models.loading import load
from sdxl_nb.models.objective.base_objective import of
from sdxl_nb.models.sources import Source
from sdxl_nb.system.errors import ModelError

UNET = "model.diffusion_model."


def refusal(path):
    with pytest.raises(ModelError) as error:
        of(Source(str(path)))
    return str(error.value)


def test_a_lone_unet_of_comfyuis_names_is_called_so(tmp_path, monkeypatch):
    configure_single_files(monkeypatch)
    alone = {name.removeprefix(UNET): tensor for name, tensor in checkpoint().items() if name.startswith(UNET)}
    save_file({name: tensor.clone() for name, tensor in alone.items()}, tmp_path / "u.safetensors")
    said = refusal(tmp_path / "u.safetensors")
    assert said.endswith("u.safetensors is a U-Net alone: give a whole SDXL checkpoint, with text encoders and VAE.")


def test_whole_numbers_are_no_weights(tmp_path, monkeypatch):
    """Eight bits without the scale that belongs to them would be trained on as numbers up to 127."""
    configure_single_files(monkeypatch)
    key = f"{UNET}time_embed.0.weight"
    whole = (checkpoint()[key] * 100).to(torch.int8)
    said = refusal(file(tmp_path / "i.safetensors", **{key: whole}))
    assert f"holds quantised weights (it has {key} of I8), whose scales would be lost" in said


@pytest.mark.parametrize("name", ["base.gguf", "base.sft", "base.SAFETENSORS"])
def test_a_file_that_is_there_is_not_said_to_be_missing(tmp_path, name):
    (tmp_path / name).write_bytes(b"GGUF")
    said = refusal(tmp_path / name)
    assert said == f"{tmp_path / name} is a file whose name does not end in .safetensors: only those are read."


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"scaling_factor": None}, "None as scaling_factor"),
        ({"scaling_factor": 0}, "0 as scaling_factor"),
        ({"latents_mean": [0.1], "latents_std": [1.0]}, "a latents_mean that is not one number for each of 4 channels"),
        (
            {"latents_mean": [0, 0, 0, 0], "latents_std": [1, 1, 1, 0]},
            "a latents_std that is not one number above 0 for each of 4 channels",
        ),
    ],
)
def test_a_vae_that_cannot_scale_its_latents(tmp_path, config, fault):
    said = refusal(folder(tmp_path / "base", tiny=True, vae=config))
    assert said == f"The VAE of {tmp_path / 'base'} has {fault} in its config.json: download it again."


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize("left", [[], ["tokenizer_config.json", "special_tokens_map.json"]])
def test_a_tokenizer_without_its_vocabulary(tmp_path, part, left):
    """Of these transformers 5 makes a tokenizer of two tokens, to which every word is unknown, and says nothing."""
    base = folder(tmp_path / "base", tiny=True)
    for path in (base / part).iterdir():
        if path.name not in left:
            path.unlink()
    said = f"The {part} of {base} has no vocabulary (tokenizer.json, or vocab.json with merges.txt): download it again."
    assert refusal(base) == said
    with pytest.raises(ModelError) as error:  # as of a repository of the hub, whose files are not looked at before
        load(Source(str(base)), part)
    assert str(error.value) == said
