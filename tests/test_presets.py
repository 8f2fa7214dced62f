"""Every shipped preset is valid, described, and what its name says."""

import pytest

from sdxl_nb import presets
from sdxl_nb.config import TrainConfig
from sdxl_nb.errors import ConfigError

# GB at 1024 px under autocast with fp32 LoRA weights, counted from the model's parts and not measured.
FIXED = 6.2  # the U-Net's 2.567 G weights in bf16, 5.13, and the CUDA context and workspace; everything else is cached
KEPT = {False: 7.75, True: 0.57}  # activations of a picture until its backward pass; True: gradient checkpointing
LORA = 5_806_080 / 4 * 16 / 1e9  # of one rank: attention's parameters, each with gradient and two moments in fp32
REAL = ["sdxl-8gb", "sdxl-12gb", "sdxl-16gb", "sdxl-24gb", "sdxl-80gb"]


def peak(config):
    """The estimated peak of GPU memory in GB."""
    return FIXED + config.train_batch_size * KEPT[config.gradient_checkpointing] + config.rank * LORA


def test_names_are_tiny_and_then_by_memory():
    assert presets.names() == ["tiny", *REAL]


@pytest.mark.parametrize("name", ["tiny", *REAL])
def test_preset_is_valid_and_said_in_one_sentence(name):
    config = TrainConfig.preset(name)
    settings = presets.read(name)
    assert {field: getattr(config, field) for field in settings} == settings
    assert presets.describe(name).endswith(".") and presets.describe(name).count(". ") == 0


@pytest.mark.parametrize("name", ["tiny", *REAL])
def test_preset_states_only_what_differs_from_the_defaults(name):
    fields = TrainConfig.model_fields
    assert [field for field, value in presets.read(name).items() if value == fields[field].default] == []


def test_tiny_is_embedded_and_fixed():
    config = TrainConfig.preset("tiny", rank=16)
    assert (config.pretrained_model_name_or_path, config.dataset_name) == ("embedded:tiny-sdxl", "embedded:blueprint")
    assert (config.pretrained_vae_model_name_or_path, config.resolution, config.seed) == (None, 64, 0)
    assert (config.rank, len(config.validation_prompt), config.mixed_precision) == (16, 2, None)


@pytest.mark.parametrize("name", REAL)
def test_real_presets_fit_their_memory_by_the_counted_parts(name):
    config = TrainConfig.preset(name)
    assert (config.resolution, config.mixed_precision) == (1024, "bf16")
    assert config.cache_latents and config.caches_text_embeddings() and config.target_modules == "attention"
    assert peak(config) <= 0.9 * int(name.removeprefix("sdxl-").removesuffix("gb"))


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown preset sdxl-8: did you mean sdxl-8gb\?"):
        presets.read("sdxl-8")
    with pytest.raises(ConfigError, match="unknown preset zzz: choose from tiny, sdxl-8gb"):
        TrainConfig.preset("zzz")
