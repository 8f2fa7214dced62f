"""TrainConfig: defaults, what "given" means, round trips, identity, derived numbers."""

import json
import subprocess
import sys

import pytest
from config_strategies import CONFIGS
from hypothesis import example, given, settings

from sdxl_nb.config.flags import read_flags, train_parser
from sdxl_nb.config.train_config import LATER, TrainConfig
from sdxl_nb.system.errors import ConfigError

pytestmark = pytest.mark.slow

BASE, VAE = "stabilityai/stable-diffusion-xl-base-1.0", "madebyollin/sdxl-vae-fp16-fix"
NARUTO = "lambdalabs/naruto-blip-captions"
PARSER = train_parser("train", "")
AWKWARD = TrainConfig(
    pretrained_model_name_or_path="a/b",
    pretrained_vae_model_name_or_path=VAE,
    train_data_dir="-pictures",
    validation_prompt=["\"quoted\" 'twice'", "-x", "--rank=3", "two\nlines\r\n", "龍 🐉\u2028", " null ", "no", "1e-4"],
    dataset_name_mapping={"my set": ["Bild", "text: ja"]},
    mixed_precision="no",
    cache_latents=False,
    adam_epsilon=1e-12,
    output_name="2024-01-01",
    seed=7,
)
thorough = settings(max_examples=100, deadline=None, database=None)


def test_defaults_are_those_of_the_contract():
    config = TrainConfig()
    assert (config.pretrained_model_name_or_path, config.pretrained_vae_model_name_or_path) == (BASE, VAE)
    assert (config.dataset_name, config.train_data_dir, config.resolution) == (NARUTO, None, 1024)
    assert (config.learning_rate, config.train_batch_size, config.num_train_epochs) == (1e-4, 16, 100)
    assert (config.rank, config.mixed_precision, config.columns()) == (4, None, ("image", "text"))


def test_every_field_says_what_it_is_for_in_one_sentence_and_has_a_group():
    groups = {"model & data", "training", "LoRA", "optimization", "memory", "validation", "logging"}
    assert {field.json_schema_extra["group"] for field in TrainConfig.model_fields.values()} == groups
    for name, field in TrainConfig.model_fields.items():
        assert field.description.endswith(".") and "\n" not in field.description, name
        assert ". " not in field.description.replace("arXiv. ", ""), name


@pytest.mark.parametrize("name", ["center_crop", "random_flip", "cache_latents"])
def test_cached_latents_are_said_to_keep_the_middle_crop(name):
    assert "keeps its middle crop in every epoch" in TrainConfig.model_fields[name].description


def test_import_is_light():
    heavy = "{'torch', 'diffusers', 'transformers', 'matplotlib', 'yaml', 'huggingface_hub'}"
    code = f"import sdxl_nb.config.train_config, sdxl_nb.flags, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What "given" means.


def test_a_data_source_given_replaces_the_default_one():
    assert TrainConfig(train_data_dir="pictures").dataset_name is None
    assert TrainConfig(dataset_name="a/b").train_data_dir is None


def test_a_data_source_given_replaces_the_one_of_a_lower_layer(tmp_path):
    saved = TrainConfig(dataset_name="a/b", dataset_config_name="small")
    saved.save(tmp_path / "run.json")
    config = TrainConfig.build(flags={"train_data_dir": "pictures"}, file=tmp_path / "run.json")
    assert (config.dataset_name, config.dataset_config_name, config.train_data_dir) == (None, None, "pictures")
    assert config.replace(dataset_name="c/d").train_data_dir is None


def test_two_data_sources_in_one_layer_are_refused():
    with pytest.raises(ConfigError, match="dataset_name and train_data_dir are both given") as refused:
        TrainConfig(dataset_name=NARUTO, train_data_dir="pictures")
    assert list(refused.value.problems) == ["train_data_dir"]


def test_the_default_vae_belongs_to_the_default_base():
    assert TrainConfig(pretrained_model_name_or_path="a/b").pretrained_vae_model_name_or_path is None
    assert TrainConfig(pretrained_model_name_or_path=BASE).pretrained_vae_model_name_or_path == VAE
    assert TrainConfig(pretrained_vae_model_name_or_path=None).pretrained_vae_model_name_or_path is None
    given_vae = TrainConfig(pretrained_model_name_or_path="a/b", pretrained_vae_model_name_or_path="c/d")
    assert given_vae.pretrained_vae_model_name_or_path == "c/d"


def test_another_base_drops_what_belonged_to_the_old_one():
    old = TrainConfig(pretrained_model_name_or_path="a/b", pretrained_vae_model_name_or_path="c/d", variant="fp16")
    new = old.replace(pretrained_model_name_or_path="e/f")
    assert (new.pretrained_vae_model_name_or_path, new.variant) == (None, None)
    assert old.replace(pretrained_model_name_or_path=BASE).pretrained_vae_model_name_or_path == VAE
    assert old.replace(pretrained_model_name_or_path="a/b") == old


def test_precedence_is_defaults_preset_file_flags(tmp_path):
    (tmp_path / "run.yaml").write_text("rank: 16\nlearning_rate: 1e-3\n")
    config = TrainConfig.build(flags={"rank": "32"}, file=tmp_path / "run.yaml", preset="tiny")
    assert (config.rank, config.learning_rate, config.resolution, config.adam_beta1) == (32, 1e-3, 64, 0.9)


def test_seed_is_drawn_once_and_stored(tmp_path):
    drawn = TrainConfig()
    assert 0 <= drawn.seed < 2**32
    assert len({TrainConfig().seed for _ in range(5)}) > 1
    drawn.save(tmp_path / "run.json")
    assert TrainConfig.load(tmp_path / "run.json").seed == drawn.seed == drawn.replace(rank=8).seed


def test_a_prompt_may_be_one_text_or_a_list():
    assert TrainConfig(validation_prompt="a dragon").validation_prompt == ["a dragon"]
    assert TrainConfig(validation_prompt=["a", "b"]).validation_prompt == ["a", "b"]
    assert TrainConfig(validation_prompt=[]).validation_prompt is None


def test_dropping_the_prompt_drops_how_many_pictures_it_had():
    config = TrainConfig(validation_prompt="a", num_validation_images=2)
    assert config.replace(validation_prompt=None).num_validation_images == 4


def test_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().rank = 8


# Round trips.


@thorough
@example(AWKWARD)
@given(CONFIGS)
def test_flags_round_trip(config):
    assert read_flags(PARSER, config.to_flags())[0] == config


@thorough
@example(AWKWARD)
@given(CONFIGS)
def test_json_and_hyperparameters_round_trip(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "run.json"
    config.save(path)
    assert TrainConfig.load(path) == config
    if len(config.essentials()) > 100:
        with pytest.raises(ConfigError, match=r"SageMaker takes 100 settings and \d+ differ from the defaults"):
            config.to_hyperparameters()
        return
    hyperparameters = config.to_hyperparameters()
    assert all(value.isascii() and value.isprintable() for value in hyperparameters.values())
    assert TrainConfig.from_hyperparameters(hyperparameters) == config


@settings(thorough, max_examples=50)
@example(AWKWARD)
@given(CONFIGS)
def test_yaml_round_trip(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "run.yaml"
    config.save(path)
    assert TrainConfig.load(path) == config


@thorough
@given(CONFIGS)
def test_replacing_nothing_changes_nothing_and_equal_configs_share_a_fingerprint(config):
    assert config.replace() == config
    assert config.replace().fingerprint() == config.fingerprint()
    assert config.differences(config.replace()) == []


def test_saving_is_complete_or_not_at_all(tmp_path):
    AWKWARD.save(tmp_path / "new" / "run.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.json"]
    assert set(json.loads((tmp_path / "new" / "run.json").read_text("utf-8"))) == set(TrainConfig.model_fields)
    with pytest.raises(ConfigError, match=r"must end in \.json, \.yaml or \.yml, or in \.toml"):
        AWKWARD.save(tmp_path / "run.ini")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        AWKWARD.save(tmp_path / "file" / "run.json")


def test_yaml_as_people_write_it(tmp_path):
    (tmp_path / "run.yml").write_text("mixed_precision: no\nlearning_rate: 1e-4\nvalidation_prompt: one\n")
    config = TrainConfig.load(tmp_path / "run.yml")
    assert (config.mixed_precision, config.learning_rate, config.validation_prompt) == ("no", 1e-4, ["one"])


def test_hyperparameters_take_bare_strings_of_a_pipeline():
    bare = {
        "mixed_precision": "fp16",
        "validation_prompt": "1984",
        "output_name": "true",
        "rank": "8",
        "variant": "null",
    }
    config = TrainConfig.from_hyperparameters(bare)
    assert (config.mixed_precision, config.validation_prompt, config.output_name) == ("fp16", ["1984"], "true")
    assert (config.rank, config.variant) == (8, None)


def test_a_hyperparameter_too_long_for_sagemaker_is_refused_by_name():
    with pytest.raises(ConfigError, match="validation_prompt takes 2504 characters as a SageMaker hyperparameter"):
        TrainConfig(validation_prompt="x" * 2500).to_hyperparameters()


# What identifies a run.

LOOKING_OR_PLACES = {
    "cache_dir", "latents_cache_dir", "output_dir", "output_name", "checkpointing_steps", "checkpoints_total_limit",
    "gradient_checkpointing_policy", "cuda_graphs", "save_precision",
    "resume_from_checkpoint", "dataloader_num_workers", "validation_prompt", "sample_prompts",
    "num_validation_images",
    "validation_epochs", "validation_steps", "validation_share", "validation_inference_steps",
    "validation_guidance_scale", "validation_seed", "report_to",
    "logging_dir", "debug_loss", "push_to_hub", "hub_model_id", "overwrite_output_dir",
}  # fmt: skip


def test_identity_holds_every_field_that_changes_the_weights():
    usual = TrainConfig()
    assert set(TrainConfig.model_fields) - set(usual.identity()) == LOOKING_OR_PLACES | LATER
    assert set(TrainConfig(caption_choice="first").identity()) - set(usual.identity()) == {"caption_choice"}


def test_a_run_from_before_a_field_keeps_its_fingerprint():
    """Only another value than what all runs did is part of a run's identity."""
    config = TrainConfig(seed=0)
    assert LATER and config.fingerprint() == config.replace(caption_choice="random").fingerprint()
    other = config.replace(caption_choice="first")
    assert other.fingerprint() != config.fingerprint()
    assert config.differences(other) == other.differences(config) == ["caption_choice"]


def test_fingerprint_tells_runs_apart_by_what_changes_the_weights():
    config = TrainConfig(seed=0)
    same = config.replace(
        output_dir="elsewhere", report_to="none", validation_prompt="a", resume_from_checkpoint="latest"
    )
    assert same.fingerprint() == config.fingerprint()
    other = config.replace(rank=8, learning_rate=2e-4)
    assert other.fingerprint() != config.fingerprint()
    assert config.differences(other) == ["rank", "learning_rate"]
    assert len(config.fingerprint()) == 64


def test_a_moved_folder_is_the_same_run_and_another_folder_is_not():
    here = TrainConfig(train_data_dir="/home/me/fish", pretrained_model_name_or_path="/models/base", seed=0)
    there = TrainConfig(train_data_dir="/opt/ml/fish/", pretrained_model_name_or_path="./base", seed=0)
    assert here.differences(there) == []
    assert here.differences(here.replace(train_data_dir="/home/me/birds")) == ["train_data_dir"]
    assert TrainConfig(dataset_name="a/set", seed=0).differences(TrainConfig(dataset_name="b/set", seed=0)) == [
        "dataset_name"
    ]


# Derived numbers.


def test_alpha_is_rank_unless_given():
    assert TrainConfig(rank=16).alpha() == 16.0
    assert TrainConfig(rank=16, lora_alpha=8).alpha() == 8.0


def test_columns_are_given_or_mapped_or_built_in():
    mapping = {"my/set": {"image": "photo", "caption": "words"}}
    assert TrainConfig(dataset_name="my/set", dataset_name_mapping=mapping).columns() == ("photo", "words")
    chosen = TrainConfig(dataset_name="my/set", dataset_name_mapping=mapping, caption_column="alt")
    assert chosen.columns() == ("photo", "alt")
    assert TrainConfig(dataset_name="other/set", dataset_name_mapping=mapping).columns() == ("image", "text")


def test_the_mapping_may_be_json_text_or_a_file(tmp_path):
    (tmp_path / "columns.json").write_text('{"my/set": ["photo", "words"]}')
    stored = {"my/set": {"image": "photo", "caption": "words"}}
    assert TrainConfig(dataset_name_mapping=str(tmp_path / "columns.json")).dataset_name_mapping == stored
    assert TrainConfig(dataset_name_mapping='{"my/set": ["photo", "words"]}').dataset_name_mapping == stored


def test_target_modules_are_a_word_a_pattern_or_names():
    for given_value, stored in [
        ("attention+ff", "attention+ff"),
        (["all"], "all"),
        ("to_q", ["to_q"]),
        (["to_q", "to_out.0"], ["to_q", "to_out.0"]),
        ([r"mid_block.*attn1\.to_q"], r"mid_block.*attn1\.to_q"),
    ]:
        assert TrainConfig(target_modules=given_value).target_modules == stored


def test_other_derived_values():
    config = TrainConfig(train_batch_size=4, gradient_accumulation_steps=2, learning_rate=1e-4)
    assert config.scaled_learning_rate(8) == 1e-4
    assert config.replace(scale_lr=True).scaled_learning_rate(8) == pytest.approx(64e-4)
    assert (config.optimizer_name(), config.replace(use_8bit_adam=True).optimizer_name()) == ("adamw", "adamw8bit")
    assert config.caches_text_embeddings() and not config.replace(train_text_encoder=True).caches_text_embeddings()
    pictures = TrainConfig(seed=2**32 - 1, validation_prompt="a", num_validation_images=2)
    assert pictures.validation_seeds() == [2**32 - 1, 0]
    assert pictures.replace(validation_seed=5).validation_seeds() == [5, 6]


def test_the_lora_is_named_after_the_run_folder():
    assert TrainConfig(output_dir="runs/fish/").lora_name() == "fish"
    assert TrainConfig(output_dir="runs/fish", output_name="carp").lora_name() == "carp"
    assert TrainConfig(output_dir="/").lora_name() == "lora"


def test_a_config_error_names_every_wrong_field():
    with pytest.raises(ConfigError) as refused:
        TrainConfig(rank=0, learning_rate=True, resolution=10**9)
    assert refused.value.problems == {
        "resolution": "resolution must be at most 4096, not 1000000000",
        "rank": "rank must be at least 1, not 0",
        "learning_rate": "learning_rate must be a number, not true",
    }


def test_resuming_takes_the_seed_that_the_run_drew(tmp_path):
    first = TrainConfig(output_dir=str(tmp_path))
    first.save(tmp_path / "config.json")
    again = TrainConfig(output_dir=str(tmp_path), resume_from_checkpoint="latest")
    assert again.seed == first.seed
    assert TrainConfig(output_dir=str(tmp_path), resume_from_checkpoint="latest", seed=5).seed == 5


def test_resuming_where_no_run_is_draws_a_seed(tmp_path):
    assert TrainConfig(output_dir=str(tmp_path), resume_from_checkpoint="latest").seed is not None
