"""Every shipped preset is valid, described, and what its name says."""

import re
from importlib import resources
from pathlib import Path

import pytest

from sdxl_nb import estimate
from sdxl_nb.config import presets
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError

REAL = ["sdxl-6gb", "sdxl-8gb", "sdxl-12gb", "sdxl-16gb", "sdxl-24gb", "sdxl-80gb"]


def stated(name):
    """The peak of GPU memory in GB that a preset's file tells of."""
    text = resources.files(presets).joinpath(f"{name}.yaml").read_text("utf-8")
    return re.match(r"# Estimated peak ([\d.]+) GB at 1024 px", text)[1]


def row(config):
    """The line of the estimate for a GPU with 80 GB, which every preset fits."""
    return estimate(config, "ml.p5.4xlarge", pictures=100, here=False).rows[0]


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
def test_real_presets_fit_their_memory(name):
    config = TrainConfig.preset(name)
    assert (config.resolution, config.mixed_precision) == (1024, "bf16")
    assert config.cache_latents and config.caches_text_embeddings() and config.target_modules == "attention"
    assert float(stated(name)) <= 0.9 * memory(name)


def memory(name):
    return int(name.removeprefix("sdxl-").removesuffix("gb"))


@pytest.mark.soak
@pytest.mark.parametrize("name", REAL[:-1])
def test_what_readme_says_of_time_and_price_is_the_estimate(name):
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    (told,) = re.findall(rf"^\| `{name}` \|.*GB \| (.*?) \| (.*?) \|$", readme, re.M)
    rows = estimate(TrainConfig.preset(name), ["ml.g6.2xlarge", "ml.g6e.2xlarge"], pictures=25, here=False).rows
    assert list(told) == [f"{row.hours * 60:.0f} min, ${row.cost(row.machine.hourly):.2f}" for row in rows]


@pytest.mark.soak
@pytest.mark.parametrize("name", REAL)
def test_what_a_preset_says_of_its_memory_is_the_estimate_and_twice_as_many_pictures_would_not_fit(name):
    config = TrainConfig.preset(name)
    found = row(config)
    assert stated(name) == f"{found.peak / 1e9:.1f}" and found.micro_batch == config.train_batch_size
    twice = row(config.replace(train_batch_size=2 * config.train_batch_size))
    assert twice.peak / 1e9 > 0.9 * memory(name) or twice.micro_batch == config.train_batch_size


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"unknown preset sdxl-8: did you mean sdxl-8gb\?"):
        presets.read("sdxl-8")
    with pytest.raises(ConfigError, match="unknown preset zzz: choose from tiny, sdxl-6gb, sdxl-8gb"):
        TrainConfig.preset("zzz")
