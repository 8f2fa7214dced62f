"""The configuration in a LoRA's header, back as a TrainConfig; and ranks and alphas of single layers."""

import json
import sys

import pytest
import torch
from random_sdxl import make_unet
from safetensors.torch import save_file
from test_lora import add_lora, make_models

from sdxl_nb import TrainConfig
from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.header import config_from_header
from sdxl_nb.lora.files.metadata import build_metadata
from sdxl_nb.lora.files.writer import save_lora
from sdxl_nb.lora.layers import collect
from sdxl_nb.system.errors import ConfigError

LEFT_OUT = {  # where results go, and who may see them: never taken from a header
    "output_dir": "elsewhere",
    "output_name": "other",
    "overwrite_output_dir": True,
    "push_to_hub": True,
    "hub_model_id": "bob/model",
    "report_to": "wandb",
    "logging_dir": "other",
    "resume_from_checkpoint": "latest",
    "cache_dir": "/home/bob/.cache",
}
KEPT = {
    "rank": 8,
    "lora_alpha": 12.5,
    "learning_rate": 3e-4,
    "seed": 7,
    "resolution": 64,
    "max_train_steps": 12,
    "target_modules": "attention+ff",
    "rank_pattern": {"attn2.to_k": 2},
    "alpha_pattern": {"attn2.to_k": 1.5},
    "validation_prompt": ["a cat / a dog"],
    "num_validation_images": 2,
    "trigger_word": "zebrafant",
    "use_rslora": False,
}


def saved(config, folder):
    models = make_models(text=False)
    add_lora(models)
    return save_lora(collect(**models), folder, "style", build_metadata(config, output_name="style"))


def test_either_file_or_its_folder_gives_the_configuration_back(tmp_path):
    config = TrainConfig.preset("tiny", **KEPT, **LEFT_OUT)
    expected = TrainConfig(**{k: v for k, v in config.model_dump().items() if k not in LEFT_OUT})
    paths = saved(config, tmp_path)
    for path in (*paths, tmp_path):
        assert TrainConfig.from_lora(path) == expected
    for name, value in KEPT.items():
        assert getattr(expected, name) == value
    for name in LEFT_OUT:
        assert getattr(expected, name) == TrainConfig.model_fields[name].default
    assert TrainConfig.from_lora(paths[1], rank=2, train_data_dir="p").dataset_name is None


def test_the_command_line_trains_a_lora_again(tmp_path):
    config = TrainConfig.preset("tiny", **KEPT, **LEFT_OUT)
    path = saved(config, tmp_path)[1]
    flags = ["--config", str(path), "--output_dir", "again", "--learning_rate", "1e-3"]
    again, _ = read_flags(train_parser("train", ""), flags)
    assert (again.output_dir, again.learning_rate, again.push_to_hub) == ("again", 1e-3, False)
    assert again.replace(learning_rate=config.learning_rate).fingerprint() == config.fingerprint()


def header(path, **settings):
    save_file({"x": torch.zeros(1)}, path, {"sdxl_nb_config": json.dumps(settings)})
    return path


def test_a_strangers_header_neither_publishes_nor_overwrites(tmp_path):
    found = TrainConfig.from_lora(header(tmp_path / "x.safetensors", rank=2, hub_token="t", **LEFT_OUT))
    assert found.rank == 2 and found.overwrite_output_dir is found.push_to_hub is False
    assert found.output_dir == TrainConfig.model_fields["output_dir"].default


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"warp_factor": 9},
            "x.safetensors was trained with the setting 'warp_factor', which this sdxl_nb does not know",
        ),
        ({"rank": -1}, "rank must be at least 1, not -1"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(tmp_path, settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TrainConfig.from_lora(header(tmp_path / "x.safetensors", **settings))


def test_a_header_never_names_code_to_run(tmp_path, monkeypatch):
    """An optimizer by its path, and what is handed to it, come from the person alone, and never without a word."""
    (tmp_path / "stranger.py").write_text("raise SystemExit('run')")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = {"optimizer": "stranger.Optimizer", "optimizer_args": ["x=1"], "rank": 2}
    path = header(tmp_path / "x.safetensors", **theirs)
    with pytest.raises(
        ConfigError, match=r"trained with optimizer 'stranger.Optimizer', optimizer_args \['x=1'\], which"
    ):
        TrainConfig.from_lora(path)
    with pytest.raises(
        ConfigError, match="never taken from a LoRA's header, because it can run code: give --optimizer"
    ):
        TrainConfig.from_lora(header(tmp_path / "y.safetensors", optimizer="prodigy", optimizer_args=["d_coef=2"]))
    for changes in ({"optimizer": "lion"}, {"optimizer_args": ["foreach=False"]}, {"optimizer": "a.B"}):
        again = TrainConfig.from_lora(path, **changes)
        assert (again.rank, again.optimizer) == (2, changes.get("optimizer", "adamw"))
        assert again.optimizer_args == changes.get("optimizer_args")
    assert config_from_header({"sdxl_nb_config": json.dumps(theirs)}) == {"rank": 2}
    assert "stranger" not in sys.modules
    kept = TrainConfig.from_lora(header(tmp_path / "z.safetensors", optimizer="lion", optimizer_args=None))
    assert kept.optimizer == "lion"


def test_files_that_hold_no_configuration_are_one_sentence(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "bare.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "bare.safetensors").read_bytes()[:20])
    torch.save({"x": 1}, tmp_path / "pickle.safetensors")
    for name, sentence in {
        "bare": "carries no sdxl_nb configuration",
        "cut": "cut.safetensors is truncated or is no safetensors file",
        "pickle": "is a pickled file, which can run code",
    }.items():
        with pytest.raises(ConfigError, match=sentence):
            TrainConfig.build(file=tmp_path / f"{name}.safetensors")
    with pytest.raises(ConfigError, match="there is no such LoRA file"):
        TrainConfig.build(file=tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="There is no LoRA file or folder"):
        TrainConfig.from_lora(tmp_path / "none")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("to_q=3", "rank_pattern must be JSON such as {\"attn2.to_k\": 8}, not 'to_q=3'"),
        ({"to_q(": 3}, "rank_pattern is not a valid pattern, 'to_q('"),
        ({"to_q": 0}, "rank_pattern must be at least 1, not 0"),
        ("[1]", "rank_pattern must be a JSON object"),
    ],
)
def test_a_wrong_rank_pattern_is_one_sentence(value, sentence):
    with pytest.raises(ConfigError) as refused:
        TrainConfig(rank_pattern=value)
    assert str(refused.value).startswith(sentence) and set(refused.value.problems) == {"rank_pattern"}


def test_patterns_come_as_flags_and_reach_the_layers():
    from sdxl_nb.lora.adapter import add_lora as put_lora

    flags = ["--preset", "tiny", "--rank_pattern", '{"attn2.to_k": 2}', "--alpha_pattern", '{"mid_block.*to_q": 1.5}']
    config, _ = read_flags(train_parser("train", ""), flags)
    assert config.rank_pattern == {"attn2.to_k": 2} and config.alpha_pattern == {"mid_block.*to_q": 1.5}
    assert TrainConfig(rank_pattern="{}").rank_pattern is None
    unet = make_unet()
    put_lora(config, unet)
    layers = collect(unet).layers
    assert {layer.rank for name, layer in layers.items() if name.endswith("attn2.to_k")} == {2}
    assert {layer.rank for name, layer in layers.items() if not name.endswith("attn2.to_k")} == {config.rank}
    changed = {name for name, layer in layers.items() if layer.alpha == 1.5}
    assert changed == {name for name in layers if "mid_block" in name and name.endswith("to_q")} and len(changed) == 2
    with pytest.raises(ConfigError, match="alpha_pattern: 'to_x' matches no layer that gets LoRA"):
        put_lora(config.replace(alpha_pattern={"to_x": 1}), make_unet())
