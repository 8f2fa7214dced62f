"""The command line: Option 2 word for word, switches, lists, null, and the page of all flags."""

import shlex

import pytest

from sdxl_nb.config.flags import Parser, allowed, read_flags, render_table, train_parser
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

PARSER = train_parser("train", "")
OPTION_2 = """--pretrained_model_name_or_path stabilityai/stable-diffusion-xl-base-1.0
--pretrained_vae_model_name_or_path madebyollin/sdxl-vae-fp16-fix --dataset_name lambdalabs/naruto-blip-captions
--output_dir ./output --resolution 1024 --learning_rate 1e-4 --rank 4 --train_batch_size 4 --num_train_epochs 10
--validation_prompt "a cute dragon creature" --mixed_precision fp16"""
DIFFUSERS_FLAGS = """
adam_beta1 adam_beta2 adam_epsilon adam_weight_decay allow_tf32 cache_dir caption_column center_crop checkpointing_steps
checkpoints_total_limit dataloader_num_workers dataset_config_name dataset_name debug_loss enable_npu_flash_attention
enable_xformers_memory_efficient_attention gradient_accumulation_steps gradient_checkpointing hub_model_id image_column
image_interpolation_mode learning_rate logging_dir lr_scheduler lr_warmup_steps max_grad_norm max_train_samples
max_train_steps mixed_precision noise_offset num_train_epochs num_validation_images output_dir prediction_type
pretrained_model_name_or_path pretrained_vae_model_name_or_path push_to_hub random_flip rank report_to resolution
resume_from_checkpoint revision scale_lr seed snr_gamma train_batch_size train_data_dir train_text_encoder
use_8bit_adam validation_epochs validation_prompt variant
"""  # of train_text_to_image_lora_sdxl.py, but hub_token, which is refused, and local_rank, which is ignored


def parse(line: str) -> TrainConfig:
    return read_flags(PARSER, shlex.split(line))[0]


def test_option_2_parses_to_the_right_config():
    config = parse(OPTION_2)
    assert config == TrainConfig(
        pretrained_model_name_or_path="stabilityai/stable-diffusion-xl-base-1.0",
        pretrained_vae_model_name_or_path="madebyollin/sdxl-vae-fp16-fix",
        dataset_name="lambdalabs/naruto-blip-captions",
        output_dir="./output",
        resolution=1024,
        learning_rate=1e-4,
        rank=4,
        train_batch_size=4,
        num_train_epochs=10,
        validation_prompt=["a cute dragon creature"],
        mixed_precision="fp16",
        seed=config.seed,
    )


def test_every_flag_of_the_diffusers_script_is_a_field():
    assert set(DIFFUSERS_FLAGS.split()) <= set(TrainConfig.model_fields)


def test_no_flag_is_the_default_config():
    assert parse("--seed 3") == TrainConfig(seed=3)


@pytest.mark.parametrize("spelling", ["--no_center_crop", "--no-center_crop", "--center_crop false"])
def test_a_switch_of_a_preset_can_be_turned_off(spelling):
    assert parse("--preset tiny").center_crop is True
    assert parse(f"--preset tiny {spelling}").center_crop is False


def test_a_switch_alone_or_with_true_is_on():
    assert parse("--random_flip --rank 8").random_flip is True
    assert parse("--random_flip true").random_flip is True


def test_prompts_together_repeated_and_with_a_dash():
    assert parse('--validation_prompt "a b" c --rank 8').validation_prompt == ["a b", "c"]
    assert parse("--validation_prompt a --validation_prompt b").validation_prompt == ["a", "b"]
    assert parse("--validation_prompt=-x").validation_prompt == ["-x"]


def test_an_empty_value_is_null():
    assert parse("--preset tiny --max_train_steps= --validation_prompt ''").max_train_steps is None
    assert parse("--preset tiny --validation_prompt ''").validation_prompt is None
    assert parse("--pretrained_vae_model_name_or_path=").pretrained_vae_model_name_or_path is None


def test_local_rank_is_accepted_and_ignored():
    assert parse("--local_rank 1 --seed 3") == TrainConfig(seed=3)


def test_a_program_may_add_flags_of_its_own():
    parser = train_parser("build_pipeline", "")
    parser.add_argument("--instance_type", default="ml.g5.2xlarge")
    config, namespace = read_flags(parser, ["--instance_type", "ml.p4d.24xlarge", "--rank", "8"])
    assert (config.rank, namespace.instance_type) == (8, "ml.p4d.24xlarge")
    with pytest.raises(ConfigError, match=r"did you mean --instance_type\?"):
        read_flags(parser, ["--instance_typ", "x"])


def test_flags_of_a_config_are_short():
    assert TrainConfig(seed=3, rank=8, random_flip=True).to_flags() == ["--random_flip", "--seed=3", "--rank=8"]


def test_help_shows_every_flag_and_preset(capsys):
    with pytest.raises(SystemExit) as left:
        PARSER.parse_args(["--help"])
    printed = capsys.readouterr().out
    assert left.value.code == 0
    assert all(f"--{name}" in printed for name in TrainConfig.model_fields)
    assert "tiny, sdxl-6gb, sdxl-8gb, sdxl-12gb, sdxl-16gb, sdxl-24gb, sdxl-80gb" in " ".join(printed.split())
    assert isinstance(PARSER, Parser)


def test_the_table_has_one_row_for_each_field():
    table = render_table()
    rows = [line for line in table.splitlines() if line.startswith("| `--")]
    assert [row.split("`")[1] for row in rows] == [f"--{name}" for name in TrainConfig.model_fields]
    assert "| `--rank` | `4` | whole number ≥ 1, ≤ 1024 | Rank of the LoRA matrices. |" in rows
    assert table.count("\n## ") + table.startswith("## ") == 7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lora_dropout", "number ≥ 0, < 1"),
        ("max_train_steps", "whole number ≥ 1, ≤ 1000000000"),
        ("mixed_precision", "no, fp16, bf16"),
        ("random_flip", "switch"),
        ("validation_prompt", "one or several texts"),
        ("dataset_name_mapping", "JSON"),
        ("output_dir", "text"),
    ],
)
def test_the_table_says_what_a_field_takes(name, words):
    assert allowed(name) == words
