"""Configurations as a SageMaker job's hyperparameters; and life without Amazon's libraries."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from config_strategies import CONFIGS
from hypothesis import HealthCheck, given, settings
from small_runs import small

from sdxl_nb.aws.staging import Staged, plan
from sdxl_nb.aws.tuning_step import OWN, hyperparameters
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, DataError

AWKWARD = [
    'it\'s "quoted"',
    "$(rm -rf /) `ls` ${HOME} \\",
    "two\nlines\r\n\tand a tab",
    "null",
    "3",
    "ein süßer Drache 龍 🐉",
    "x" * 2500,
]


@pytest.mark.parametrize("prompt", AWKWARD)
def test_prompts_arrive_intact(prompt, tmp_path):
    texts = hyperparameters(small(tmp_path, validation_prompt=[prompt, "b"][: 1 if len(prompt) > 99 else 2]), Staged())
    assert not any("\n" in text or len(text) > 2500 for text in texts.values())
    assert TrainConfig.from_hyperparameters(texts).validation_prompt[0] == prompt


def thorough(examples):
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@thorough(50)
@given(CONFIGS)
def test_configurations_survive_hyperparameters(config):
    survives(config)


@pytest.mark.soak
@thorough(500)
@given(CONFIGS)
def test_many_configurations_survive_hyperparameters(config):
    survives(config)


def survives(config):
    try:
        texts = hyperparameters(config, Staged())
    except ConfigError as error:
        assert "SageMaker" in str(error)
        return
    assert len(texts) <= 100 and not any("\n" in text for text in texts.values())
    left = {*OWN, "output_name", "dataset_name_mapping"}
    again = TrainConfig.from_hyperparameters(texts)
    assert again.model_dump(exclude=left) == config.model_dump(exclude=left)
    assert again.columns() == config.columns()


def test_what_must_stay_here_stays_here(tmp_path):
    pictures = Path(small(tmp_path).train_data_dir)
    mapping = {str(pictures): ["file", "label"], "/home/me/other": ["a", "b"]}
    config = small(tmp_path, train_data_dir=None, dataset_name=str(pictures), dataset_name_mapping=mapping)
    texts = hyperparameters(config, plan(config, "bucket"))
    again = TrainConfig.from_hyperparameters(texts)
    assert again.dataset_name == "/opt/ml/input/data/dataset" and again.columns() == ("file", "label")
    assert not any(path in json.dumps(texts) for path in (str(tmp_path), str(pictures), "/home/me"))
    with pytest.raises(ConfigError, match=r"^validation_prompt holds what looks like a token"):
        hyperparameters(small(tmp_path, validation_prompt="use hf_abcdefghijklmnopqrst"), Staged())


def test_relative_paths_are_paths(tmp_path, monkeypatch):
    """What is here by a name like a hub's is what the trainer would take, here or there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small(tmp_path).pretrained_model_name_or_path, "models/base")
    staged = plan(small(tmp_path, pretrained_model_name_or_path="models/base"), "bucket")
    assert staged.paths["pretrained_model_name_or_path"] == "/opt/ml/input/data/model"
    with pytest.raises(DataError, match=r"^validation_data_dir held is not there"):
        plan(small(tmp_path, validation_data_dir="held"), "bucket")


# Without AWS's libraries

BLOCKED = """
import sys
from importlib.machinery import PathFinder
GONE = ("boto3", "botocore", "s3transfer", "sagemaker", "sagemaker_core")
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name.split(".")[0] in GONE else find(name, *rest))
import sdxl_nb
from sdxl_nb.system.errors import SdxlNbError
config = sdxl_nb.TrainConfig.load(sys.argv[1])
print(sdxl_nb.fine_tune(config, progress=False).status)
try:
    sdxl_nb.launch_sagemaker(config.replace(output_dir="elsewhere"))
except SdxlNbError as error:
    print(error)
"""


@pytest.mark.soak
def test_training_here_needs_none_of_amazons_libraries(tmp_path):
    small(tmp_path / "run").save(tmp_path / "config.json")
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, tmp_path / "config.json"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == [
        "completed",
        "This needs Amazon's libraries: pip install 'sdxl_nb[sagemaker]'.",
    ], done.stderr
