# ruff: noqa: E501  (a request and its sentence stand on one line)
"""What SageMaker is asked to search: requests as the service takes them; what is refused before anybody is asked."""

import copy
import random

import pytest
from botocore.validate import ParamValidator
from sagemaker_emulator.limits import ServiceError, shape
from sagemaker_emulator.tuning import check_tuning, drawn

from sdxl_nb import tune_sagemaker
from sdxl_nb.aws import costs, staging, tuning_step
from sdxl_nb.aws.search import request as searching
from sdxl_nb.aws.search.request import Plan
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.preflight.prices import Price
from sdxl_nb.sweeps.space import Range, Space
from sdxl_nb.system.errors import ConfigError

ROLE = "arn:aws:iam::123456789012:role/sdxl-nb"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sdxl-nb/training:1"
CONFIG = TrainConfig(seed=1, validation_split=0.1)
LISTS = {"rank": [4, 8, 16], "lr_scheduler": ["cosine", "constant"], "use_dora": [True, False]}
RANGES = {"learning_rate": Range(1e-5, 1e-3, log=True), "rank": Range(2, 64, log=True), "lora_dropout": Range(0, 0.3)}


def asked(space=RANGES, config=CONFIG, plan=None, **job):
    plan, job = plan or Plan(), Job(**{"role_arn": ROLE, "image_uri": IMAGE} | job)
    space = Space.of(config, space)
    searching.refuse_config(config, plan, space)
    staged = staging.Staged({"train": "s3://b/data/1/"}, {"train_data_dir": "/opt/ml/input/data/train"})
    training = tuning_step.request(config, job, staged, output="s3://b/runs", checkpoints="s3://b/checkpoints")
    made = searching.request(training, config, space, plan)
    return {"HyperParameterTuningJobName": "sdxl-nb-1", **made}


@pytest.mark.parametrize(
    ("space", "plan", "job"),
    [
        (RANGES, Plan(), {}),
        (RANGES, Plan("Random", 40, 10, search_seed=7), {"spot": False}),
        (RANGES, Plan("Bayesian", 500, 10, early_stopping=True), {"instance_type": "ml.p4d.24xlarge"}),
        (RANGES, Plan("Hyperband", 20), {"tags": {"team": "a b"}}),
        (LISTS, Plan("Grid"), {"kms_key": "alias/mine", "subnets": ("subnet-1",), "security_group_ids": ("sg-1",)}),
        (RANGES | {"lr_scheduler": ["cosine", "constant"]}, Plan("Bayesian"), {"hub_token_secret": "sdxl-nb/hf"}),
    ],
)
def test_the_service_takes_the_request(space, plan, job):
    made = asked(space, plan=plan, **job)
    searching.refuse(made)
    assert not ParamValidator().validate(made, shape("CreateHyperParameterTuningJob")).has_errors()
    check_tuning(made)
    static = made["TrainingJobDefinition"]["StaticHyperParameters"]
    assert not set(static) & set(space) and static["train_data_dir"] == "/opt/ml/input/data/train"


def test_ranges_have_the_scale_and_kind_of_their_field():
    config = asked()["HyperParameterTuningJobConfig"]
    assert config["ParameterRanges"] == {
        "IntegerParameterRanges": [
            {"Name": "rank", "MinValue": "2", "MaxValue": "64", "ScalingType": "Logarithmic"},
        ],
        "ContinuousParameterRanges": [
            {"Name": "learning_rate", "MinValue": "1e-05", "MaxValue": "0.001", "ScalingType": "Logarithmic"},
            {"Name": "lora_dropout", "MinValue": "0", "MaxValue": "0.3", "ScalingType": "Linear"},
        ],
    }
    assert config["HyperParameterTuningJobObjective"] == {"Type": "Minimize", "MetricName": "heldout_loss"}
    assert config["ResourceLimits"] == {"MaxParallelTrainingJobs": 2, "MaxNumberOfTrainingJobs": 10}


def test_a_grid_is_as_many_trainings_as_combinations():
    made = asked(LISTS, plan=Plan("Grid", max_parallel_jobs=4))["HyperParameterTuningJobConfig"]
    assert made["ResourceLimits"] == {"MaxParallelTrainingJobs": 4}
    assert made["ParameterRanges"]["CategoricalParameterRanges"][2] == {"Name": "use_dora", "Values": ["true", "false"]}
    space = Space.of(CONFIG, LISTS)
    assert searching.trainings(Plan("Grid"), space) == searching.trainings(Plan("Grid", 12), space) == 12
    with pytest.raises(ConfigError, match=r"^this grid has 12 combinations, each trained once: leave max_jobs out"):
        searching.trainings(Plan("Grid", 10), space)


def test_what_a_trial_is_told_is_a_configuration():
    made = asked(RANGES | LISTS | {"rank": Range(2, 64)})
    draw = random.Random(3)
    for _ in range(50):
        values = drawn(draw, made["HyperParameterTuningJobConfig"]["ParameterRanges"])
        texts = made["TrainingJobDefinition"]["StaticHyperParameters"] | values
        config = TrainConfig.from_hyperparameters(texts)
        assert 1e-5 <= config.learning_rate <= 1e-3 and 2 <= config.rank <= 64
        assert config.use_dora == (values["use_dora"] == "true") and config.validation_split == 0.1


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"heldout_steps": 10, "max_train_steps": 95}, 13),
        ({"num_train_epochs": 9, "validation_epochs": 2}, 8),
        ({"validation_epochs": None, "checkpointing_steps": 50, "max_train_steps": 100}, 5),
        ({"validation_steps": 30, "max_train_steps": 100}, 7),
        ({"validation_share": 0.3}, 7),
        ({"validation_share": 0.1, "max_train_steps": 100}, 13),
        ({"validation_share": 0.1, "heldout_steps": 50, "max_train_steps": 100}, 5),
    ],
)
def test_hyperband_counts_measurements(config, count):
    made = asked(config=CONFIG.replace(**config), plan=Plan("Hyperband"))
    strategy = made["HyperParameterTuningJobConfig"]["StrategyConfig"]["HyperbandStrategyConfig"]
    assert strategy == {"MinResource": 1, "MaxResource": count}


BIG = {f"k{number}": "v" for number in range(50)}


@pytest.mark.parametrize(
    ("config", "space", "options", "sentence"),
    [
        ({"validation_split": 0}, RANGES, {}, "a search judges by the loss on pictures that are held out"),
        ({}, {"rnk": [4]}, {}, "unknown setting rnk in the search space: did you mean rank?"),
        ({}, {"pretrained_vae_model_name_or_path": ["a/b", "c/d"]}, {}, "pretrained_vae_model_name_or_path is a place"),
        ({}, {"cache_dir": ["a", "b"]}, {}, "the search space holds cache_dir, which changes nothing that is learnt"),
        ({}, RANGES, {"strategy": "bayesian"}, "strategy must be one of Bayesian, Hyperband, Random, Grid, not 'bayesian': did you mean Bayesian?"),
        ({}, RANGES, {"strategy": "Grid"}, "a Grid takes lists of values and no ranges"),
        ({}, {"min_timestep": [0, 500], "max_timestep": [400]}, {"strategy": "Grid"}, "a trial of this grid would fail: max_timestep 400"),
        ({}, RANGES, {"max_jobs": 0}, "max_jobs must be a whole number from 1 on, not 0"),
        ({}, RANGES, {"max_parallel_jobs": True}, "max_parallel_jobs must be a whole number from 1 on, not True"),
        ({}, RANGES, {"search_seed": -1}, "search_seed must be a whole number from 0 on, not -1"),
        ({}, RANGES, {"strategy": "Hyperband", "early_stopping": True}, "early_stopping is not for Hyperband"),
        ({}, RANGES, {"strategy": "Hyperband", "warm_start": "a"}, "warm_start is for Bayesian and Random, not for Hyperband"),
        ({"max_train_steps": 9}, RANGES, {"strategy": "Hyperband"}, "Hyperband counts how often the held-out loss is measured"),
        ({"validation_steps": 9}, RANGES, {"strategy": "Hyperband"}, "Hyperband counts how often the held-out loss is measured"),
        ({"heldout_steps": 1, "max_train_steps": 20_001}, RANGES, {"strategy": "Hyperband"}, "Hyperband counts to 20000"),
        ({}, {"num_train_epochs": Range(1, 9)}, {"strategy": "Hyperband"}, "Hyperband itself says how long a trial trains"),
        ({}, RANGES, {"job_name": "my-long-search"}, "job_name takes 5 characters at most in a search"),
        ({}, {"rank": list(range(1, 32))}, {}, "rank takes 30 at most, not 31"),
        ({}, RANGES, {"warm_start": [f"a{n}" for n in range(6)]}, "warm_start takes 5 at most, not 6"),
        ({}, RANGES, {"tags": BIG}, "tags takes 50 at most, not 51"),
        ({}, RANGES, {"instance_type": "ml.g5.3xlarge"}, "instance_type must be one that SageMaker knows"),
        ({}, RANGES, {"ceiling": 0}, "ceiling must be dollars, a number above 0, not 0"),
        ({}, RANGES, {"ceiling": "20"}, "ceiling must be dollars, a number above 0, not '20'"),
        ({}, RANGES, {"ceiling": float("nan")}, "ceiling must be dollars, a number above 0, not nan"),
    ],
)  # fmt: skip
def test_refused_before_anybody_is_asked(nobody, config, space, options, sentence):
    with pytest.raises(ConfigError) as refused:  # not: there is no region
        tune_sagemaker(CONFIG.replace(**config), space, **options)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)


def test_a_wrong_option_names_the_right_one():
    with pytest.raises(TypeError, match=r"^tune_sagemaker\(\) takes no instance_typ: did you mean instance_type\?"):
        tune_sagemaker(CONFIG, RANGES, instance_typ="ml.g5.xlarge")


def test_the_ceiling_is_a_number(monkeypatch):
    job = Job(max_run=7200, spot=False)
    monkeypatch.setattr(costs, "hourly", lambda instance_type, region: Price(1.515, "list price of 2026-01-01"))
    assert costs.ceiling_of_search(job, 6, "us-east-1", 20) == (
        "The search costs at most $18.18, within the ceiling of $20.00: 6 trainings of 2 h (max_run) on 1 × "
        "ml.g5.2xlarge at $1.515 an hour (list price of 2026-01-01)."
    )
    with pytest.raises(ConfigError) as refused:
        costs.ceiling_of_search(job, 6, "us-east-1", 10)
    assert str(refused.value) == (
        "6 trainings of 2 h (max_run) on 1 × ml.g5.2xlarge at $1.515 an hour cost up to $18.18, more than the ceiling "
        "of $10.00: raise it, lower max_jobs, or set max_run to 3960"
    )
    fitting = costs.ceiling_of_search(Job(max_run=3960, spot=False), 6, "us-east-1", 10)
    assert fitting.startswith("The search costs at most $10.00, within the ceiling of $10.00")
    monkeypatch.setattr(costs, "hourly", lambda instance_type, region: None)
    with pytest.raises(
        ConfigError,
        match=r"^ceiling cannot be kept, for no price is known here for ml\.g5\.2xlarge in mars-1: look at ",
    ):
        costs.ceiling_of_search(job, 6, "mars-1", 10)
    assert "no price is known here for ml.g5.2xlarge in mars-1" in costs.ceiling_of_search(job, 6, "mars-1", None)


FORBIDDEN = [  # a place of a right request, what is put there, how the sentence begins
    ("HyperParameterTuningJobName", "x" * 33, "job_name takes 32 characters at most"),
    ("HyperParameterTuningJobName", "a_b", "job_name must be made as SageMaker asks"),
    ("HyperParameterTuningJobConfig.Strategy", "Baysian", "strategy must be one that SageMaker knows, not 'Baysian': did you mean Bayesian?"),
    ("HyperParameterTuningJobConfig.ResourceLimits.MaxParallelTrainingJobs", 0, "max_parallel_jobs must be at least 1, not 0"),
    ("HyperParameterTuningJobConfig.ResourceLimits.MaxNumberOfTrainingJobs", 0, "max_jobs must be at least 1, not 0"),
    ("HyperParameterTuningJobConfig.RandomSeed", -1, "search_seed must be at least 0, not -1"),
    ("HyperParameterTuningJobConfig.ParameterRanges.ContinuousParameterRanges.0.ScalingType", "Log", "learning_rate must be one that SageMaker knows, not 'Log'"),
    ("HyperParameterTuningJobConfig.ParameterRanges.IntegerParameterRanges.0.MinValue", 2, "rank must be a text, not 2"),
    ("TrainingJobDefinition.Environment", {str(n): "" for n in range(49)}, "the environment of each job takes 48 at most"),
    ("TrainingJobDefinition.StaticHyperParameters", {str(n): "" for n in range(101)}, "the settings of each job takes 100 at most"),
    ("TrainingJobDefinition.ResourceConfig.InstanceType", "ml.g5.3xlarge", "instance_type must be one that SageMaker knows"),
    ("TrainingJobDefinition.StoppingCondition.MaxRuntimeInSeconds", 0, "max_run must be at least 1, not 0"),
    ("TrainingJobDefinition.RoleArn", "me", "role_arn takes 20 characters at least"),
    ("WarmStartConfig", {"ParentHyperParameterTuningJobs": [], "WarmStartType": "TransferLearning"}, "warm_start takes 1 at least"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "sentence"), FORBIDDEN, ids=range(len(FORBIDDEN)))
def test_a_request_that_the_service_refuses(place, value, sentence):
    made = copy.deepcopy(asked())
    *parents, last = place.split(".")
    inside = made
    for name in parents:
        inside = inside[int(name)] if isinstance(inside, list) else inside[name]
    inside[last] = value
    with pytest.raises(ConfigError) as refused:
        searching.refuse(made)
    assert str(refused.value).startswith(sentence) and "\n" not in str(refused.value)
    with pytest.raises(ServiceError):
        check_tuning(made)
