"""Headers: what the UIs need is there, nothing private is, and a stranger's header is filtered."""

import hashlib
import json
from datetime import datetime, timezone

import pytest
import torch
from safetensors.torch import save

from sdxl_nb.config.header import config_from_header, safe_config
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.lora.files.metadata import build_metadata, data_hashes
from sdxl_nb.system.errors import ModelError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
TOKEN = "hf_" + "a1B2" * 9


def header(**changes):
    settings = {"output_dir": "/home/bob/out", "rank": 8, "lora_alpha": 16, "resolution": 64, "seed": 3, **changes}
    return build_metadata(
        TrainConfig(**settings),
        output_name="style",
        steps=120,
        epochs=4,
        num_train_images=30,
        data_fingerprint="abc",
        loss={"train": 0.25},
        trigger_words=["zebrafant"],
        now=NOW,
    )


def test_what_the_uis_read():
    found = header()
    assert all(isinstance(value, str) and value for value in found.values())
    expected = {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "8",
        "ss_network_alpha": "16.0",
        "ss_network_args": "{}",
        "ss_output_name": "style",
        "ss_resolution": "(64, 64)",
        "ss_num_train_images": "30",
        "ss_steps": "120",
        "ss_num_epochs": "4",
        "ss_tag_frequency": '{"style": {"zebrafant": 1}}',
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": "style",
        "modelspec.resolution": "64x64",
        "modelspec.prediction_type": "epsilon",
        "modelspec.trigger_phrase": "zebrafant",
        "modelspec.date": "2026-01-02T03:04:05+00:00",
        "sdxl_nb_loss": '{"train": 0.25}',
        "sdxl_nb_data_fingerprint": "abc",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert {"torch", "diffusers", "peft", "python"} <= json.loads(found["sdxl_nb_versions"]).keys()
    assert header(prediction_type="v_prediction")["modelspec.prediction_type"] == "v"


def test_trigger_words_default_to_the_configs_and_a_config_may_be_missing():
    found = build_metadata(TrainConfig(trigger_word="zebrafant"), output_name="style")
    assert found["modelspec.trigger_phrase"] == "zebrafant"
    assert build_metadata(None, output_name="style")["sdxl_nb_config"] == "{}"


def test_a_config_comes_back_without_what_is_private(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    changes = {
        "train_data_dir": str(pictures),
        "pretrained_model_name_or_path": "/home/bob/models/my-sdxl",
        "cache_dir": "/home/bob/.cache",
        "push_to_hub": True,
        "hub_model_id": "bob/secret-project",
        "validation_prompt": "a cat / a dog",
        "report_to": "tensorboard",
    }
    found = header(**changes)
    config = config_from_header(found)
    for name in ("output_dir", "output_name", "push_to_hub", "hub_model_id", "report_to", "cache_dir", "logging_dir"):
        assert name not in config
    assert "resume_from_checkpoint" not in config
    assert config["train_data_dir"] == "pictures" and config["pretrained_model_name_or_path"] == "my-sdxl"
    assert (config["rank"], config["lora_alpha"], config["seed"]) == (8, 16, 3)
    assert "a cat / a dog" in json.dumps(config["validation_prompt"])
    for private in ("bob", "/home", str(tmp_path), "secret-project"):
        assert private not in json.dumps(found)
    again = TrainConfig(**config)
    assert again.rank == 8 and again.hub_model_id is None and again.push_to_hub is False


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("embedded:tiny-sdxl", "embedded:tiny-sdxl"),
        ("/home/bob/x.safetensors", "x.safetensors"),
        ("~/models/x", "x"),
        ("./data/pictures", "pictures"),
        ("../bob", "bob"),
        ("bob/data/pictures", "pictures"),
        ("C:\\Users\\bob\\x", "x"),
        ("\\\\server\\bob\\x", "x"),
        ("s3://sagemaker-us-east-1-123456789012/bob/pictures/", "pictures"),
        ("https://bob:pw@host/x.safetensors?key=1", "x.safetensors"),
        (f"https://host/{TOKEN}", "***"),
        (["/home/bob/a", {"/home/bob/b": "/c/d"}], ["a", {"b": "d"}]),
        (None, None),
        (0.5, 0.5),
    ],
)
def test_paths_become_base_names(value, kept):
    assert safe_config({"train_data_dir": value}) == {"train_data_dir": kept}


def test_a_relative_folder_that_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bob" / "pictures").mkdir(parents=True)
    assert safe_config({"dataset_name": "bob/pictures"}) == {"dataset_name": "pictures"}
    assert safe_config({"dataset_name": "bob/other"}) == {"dataset_name": "bob/other"}


def test_secrets_go_by_name_and_by_look():
    config = {"hub_token": "x", "aws_secret_access_key": "x", "wandb_api_key": "x", "validation_prompt": f"a {TOKEN}"}
    assert safe_config(config) == {"validation_prompt": "a ***"}


def test_a_strangers_header_publishes_and_overwrites_nothing():
    text = json.dumps(
        {"rank": 4, "push_to_hub": True, "output_dir": "/etc", "hub_model_id": "x", "resume_from_checkpoint": "l"}
    )
    assert config_from_header({"sdxl_nb_config": text}) == {"rank": 4}


@pytest.mark.parametrize("text", ["{", "[1]", "null", '"x"', "[" * 100_000, "1" * 1_000_001])
def test_a_damaged_config_is_a_sentence(text):
    with pytest.raises(ModelError, match="is damaged; pass the settings by hand"):
        config_from_header({"sdxl_nb_config": text})


def test_no_config_is_a_sentence():
    with pytest.raises(ModelError, match="carries no sdxl_nb configuration"):
        config_from_header({"ss_network_dim": "4"})


def test_hashes_cover_the_tensors_and_not_the_header():
    tensor = torch.arange(6, dtype=torch.float32)
    expected = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    for metadata in ({"a": "b"}, {"a": "c" * 100}):
        found = data_hashes(save({"t": tensor}, metadata))
        assert found["sshs_model_hash"] == expected and found["modelspec.hash_sha256"] == f"0x{expected}"
    assert len(found["sshs_legacy_hash"]) == 8
