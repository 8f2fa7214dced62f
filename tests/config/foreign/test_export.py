"""Our configurations in kohya's and diffusers' forms, and read back: the same, but for what is said to be lost."""

import json
import os
import warnings

import pytest
from settings_files import EXPECTED, FILES, HERE

from sdxl_nb.config.train_config import TrainConfig

KNOWN = json.loads(EXPECTED.read_text("utf-8"))
READ = [name for name in FILES if "values" in KNOWN[name]]


def exported(config, path):
    """What is lost when a configuration is saved at path, and what is read back."""
    with warnings.catch_warnings(record=True) as lost:
        warnings.simplefilter("always")
        config.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [str(each.message) for each in lost], TrainConfig.load(path)


@pytest.mark.parametrize("name", READ)
def test_kohya_reads_what_is_not_said_to_be_lost(name, tmp_path, monkeypatch):
    monkeypatch.chdir(HERE / "files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = TrainConfig.load(name)
    lost, again = exported(config, tmp_path / "run.toml")
    named = {sentence.split()[0] for sentence in lost}
    now, then = again.essentials(), config.essentials()
    differ = {key for key in now.keys() | then.keys() if now.get(key) != then.get(key)}
    assert again.alpha() == config.alpha()
    assert again.base_loras() == config.base_loras()
    assert "optimizer" in named or again.optimizer_name() == config.optimizer_name()
    assert again.uses_buckets() == config.uses_buckets()
    equal = {"aspect_ratio_buckets", "lora_alpha", "base_lora", "optimizer", "use_8bit_adam"}
    without = {"center_crop", "num_train_epochs", "lr_warmup_steps"}  # which nothing comes of in such a run
    if "sample_prompts" in named and config.validation_steps:  # it is read back once a file of prompts is named
        without.add("validation_steps")
        assert f"sample_every_n_steps = {config.validation_steps}\n" in (tmp_path / "run.toml").read_text("utf-8")
    assert differ - equal - without <= named


def test_kohya_file_of_a_usual_run(tmp_path):
    config = TrainConfig(
        train_data_dir="img",
        rank=16,
        learning_rate=2e-4,
        lr_scheduler="cosine_with_restarts",
        lr_num_cycles=3,
        lr_warmup_steps=20,
        max_train_steps=400,
        target_modules="attention+ff",
        mixed_precision="bf16",
        train_batch_size=2,
        seed=7,
        trigger_word="sks",
        validation_prompt=["a cup"],
    )
    lost, again = exported(config, tmp_path / "run.toml")
    assert lost == [
        'trigger_word "sks" is no setting of kohya\'s script, and is left out.',
        'validation_prompt ["a cup"] is no setting of kohya\'s script, and is left out.',
    ]
    assert (tmp_path / "run.toml").read_text() == (
        "cache_latents = true\n"
        "cache_text_encoder_outputs = true\n"
        'caption_extension = ".txt"\n'
        "enable_bucket = true\n"
        "learning_rate = 0.0002\n"
        'log_with = "tensorboard"\n'
        'logging_dir = "sd-model-finetuned-lora/logs"\n'
        'lr_scheduler = "cosine_with_restarts"\n'
        "lr_scheduler_num_cycles = 3\n"
        "lr_warmup_steps = 20\n"
        "max_train_steps = 400\n"
        'mixed_precision = "bf16"\n'
        "network_alpha = 16.0\n"
        "network_dim = 16\n"
        'network_module = "networks.lora"\n'
        "network_train_unet_only = true\n"
        'optimizer_args = ["weight_decay=0.01", "eps=1e-08", "betas=0.9,0.999"]\n'
        'optimizer_type = "AdamW"\n'
        'output_dir = "sd-model-finetuned-lora"\n'
        'pretrained_model_name_or_path = "stabilityai/stable-diffusion-xl-base-1.0"\n'
        'resize_interpolation = "lanczos"\n'
        'resolution = "1024,1024"\n'
        "save_every_n_steps = 500\n"
        "seed = 7\n"
        "train_batch_size = 2\n"
        'train_data_dir = "img"\n'
        'vae = "madebyollin/sdxl-vae-fp16-fix"\n'
    )
    same = config.replace(trigger_word=None, validation_prompt=None, center_crop=True, lora_alpha=16)
    assert again == same.replace(aspect_ratio_buckets=True)


def test_diffusers_command_line_and_back(tmp_path):
    config = TrainConfig(
        dataset_name="a/b",
        rank=8,
        max_train_steps=100,
        center_crop=True,
        validation_prompt=["it's a cup", "a tin"],
        seed=3,
        optimizer="prodigy",
        snr_gamma=5,
    )
    lost, again = exported(config, tmp_path / "run.sh")
    assert lost == [
        "validation_prompt is one prompt there: 1 are left out.",
        "optimizer prodigy is not one of that script, which uses AdamW.",
    ]
    assert again == config.replace(
        optimizer="adamw", validation_prompt=["it's a cup"], aspect_ratio_buckets=False, cache_latents=False
    )


def test_every_setting_that_is_lost_is_said(tmp_path):
    config = TrainConfig(train_data_dir="img", lr_scheduler="rex", p2_gamma=1, use_ema=True, clean_tags=True, seed=1)
    for name in ("run.toml", "run.sh"):
        lost, _ = exported(config, tmp_path / name)
        said = {sentence.split()[0] for sentence in lost}
        assert {"lr_scheduler", "p2_gamma", "use_ema", "clean_tags"} <= said


def test_kohya_text_survives_every_character(tmp_path):
    prompt = 'a "cup"\\n\x7fé🜁\tend'
    _, again = exported(
        TrainConfig(train_data_dir="img", caption_prefix=prompt, seed=1), os.fspath(tmp_path / "a.toml")
    )
    assert again.caption_prefix == prompt
