"""What SageMaker is asked to run: the request as the service takes it, its metrics, its channels and uploads."""

import re

import pytest
from sagemaker_emulator.limits import check_job

from sdxl_nb.aws import staging
from sdxl_nb.aws.container import as_line
from sdxl_nb.aws.tuning_step import METRICS, Job, as_text, request
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, DataError

ROLE = "arn:aws:iam::123456789012:role/sdxl-nb"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sdxl-nb/training:1"


def asked(config=None, staged=None, **job):
    job = Job(**{"role_arn": ROLE, "image_uri": IMAGE} | job)
    staged = staged or staging.Staged()
    return request(config or TrainConfig(seed=1), job, staged, output="s3://b/runs", checkpoints="s3://b/checkpoints")


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"spot": False},
        {"max_run": 3600, "max_wait": 3600, "instance_count": 2, "instance_type": "ml.p4d.24xlarge"},
        {"kms_key": "alias/mine", "subnets": ("subnet-1",), "security_group_ids": ("sg-1",), "tags": {"team": "a b"}},
        {"hub_token_secret": "sdxl-nb/hf-token", "wandb_secret": "sdxl-nb/wandb"},
        {"retries": 3, "max_pending": 7200},
        {"spot": False, "keep_alive": 900},
        {"spot": False, "fallbacks": ("ml.g6.2xlarge", "ml.g6e.2xlarge"), "kms_key": "alias/mine"},
        {"spot": False, "instance_type": "ml.p3.2xlarge", "fallbacks": ("ml.p2.xlarge",), "kms_key": "alias/mine"},
        {"spot": False, "fallbacks": [f"ml.g6.{size}xlarge" for size in (2, 4, 8, 16)], "instance_count": 2},
    ],
)
def test_the_service_takes_the_request(job):
    channels = staging.Staged({"train": "s3://b/data/1/"}, {"train_data_dir": "/opt/ml/input/data/train"})
    check_job(asked(staged=channels, **job) | {"TrainingJobName": "sdxl-nb-1"})


def test_retries_waiting_and_warm_instances_are_fields_of_the_request():
    found = asked(spot=False, retries=3, max_pending=7200, keep_alive=900)
    assert found["RetryStrategy"] == {"MaximumRetryAttempts": 3}
    assert found["StoppingCondition"]["MaxPendingTimeInSeconds"] == 7200
    assert found["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 900
    plain = asked()
    assert "RetryStrategy" not in plain and "KeepAlivePeriodInSeconds" not in plain["ResourceConfig"]


def test_the_types_that_a_job_may_get_stand_in_their_order():
    found = asked(instance_type="ml.g6.2xlarge", fallbacks=("ml.g5.2xlarge", "ml.g6e.2xlarge"), spot=False)
    assert found["ResourceConfig"] == {
        "InstancePreferences": [{"InstanceType": f"ml.{kind}.2xlarge"} for kind in ("g6", "g5", "g6e")],
        "InstanceCount": 1,
        "VolumeSizeInGB": 100,
    }
    assert "EnableManagedSpotTraining" not in found and "MaxWaitTimeInSeconds" not in found["StoppingCondition"]
    key = {"kms_key": "alias/mine", "spot": False, "instance_type": "ml.p3.2xlarge"}
    for other, given in (("ml.p2.xlarge", True), ("ml.g5.xlarge", False)):  # the second has disks of its own
        assert ("VolumeKmsKeyId" in asked(fallbacks=(other,), **key)["ResourceConfig"]) == given


ARN = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-ABC123"


def test_mlflow_is_named_to_the_service_and_to_the_container(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example")  # this machine's own
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    found = asked(mlflow=ARN, job_name="sdxl-nb-a")
    named = {"MlflowResourceArn": ARN, "MlflowExperimentName": "sdxl_nb", "MlflowRunName": "sdxl-nb-a"}
    assert found["MlflowConfig"] == named and found["Environment"]["MLFLOW_TRACKING_URI"] == ARN
    assert "secret" not in str(found) and "MlflowConfig" not in asked() and "MLFLOW_TRACKING_URI" not in str(asked())
    check_job(found | {"TrainingJobName": "sdxl-nb-1"})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "cats")
    found = asked(mlflow=ARN.replace("mlflow-app", "mlflow-tracking-server"))
    assert found["MlflowConfig"]["MlflowExperimentName"] == found["Environment"]["MLFLOW_EXPERIMENT_NAME"] == "cats"


def test_spot_has_a_limit_and_a_day_to_wait():
    found = asked(max_run=3600)
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600 + 86400}
    assert found["EnableManagedSpotTraining"] is True
    assert asked(max_run=3600, max_wait=7200)["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7200


def test_tokens_go_by_name(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    found = asked(hub_token_secret="sdxl-nb/hf-token")
    assert found["Environment"] == {"SDXL_NB_HUB_TOKEN_SECRET": "sdxl-nb/hf-token"}
    assert "verysecret" not in str(found)


def test_another_hub_is_passed_on_unless_its_address_is_secret(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    assert asked()["Environment"] == {"HF_ENDPOINT": "https://hub.example"}
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hub.example")
    with pytest.raises(ConfigError, match="HF_ENDPOINT holds a password") as refused:
        asked()
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"instance_count": 0}, "instance_count must be 1 to 64, not 0"),
        ({"retries": 0}, "retries must be 1 to 30, not 0"),
        ({"retries": True}, "retries must be a whole number, not True"),
        ({"max_pending": 60}, "max_pending must be 1800 to 2419200, not 60"),
        ({"keep_alive": 900}, "keep_alive is not for spot instances, which nobody can keep: add --no_spot, or drop it"),
        ({"spot": False, "keep_alive": 21601}, "keep_alive must be 1 to 21600, not 21601"),
        ({"max_run": 10}, "max_run must be 60 to 2419200, not 10"),
        ({"role_arn": "me"}, "role_arn must be the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME, not 'me'"),
        ({"job_name": "a--b"}, "job_name must be at most 32 letters, digits and single hyphens, not 'a--b'"),
        ({"wandb_secret": "0123abcdef"}, "wandb_secret must be the name of a secret under sdxl-nb/, not a key"),
    ],
)
def test_wrong_jobs(job, sentence):
    with pytest.raises(ConfigError) as refused:
        Job(**job)
    assert str(refused.value) == sentence


def test_metrics_are_found_in_the_lines_that_the_container_prints():
    step = {"event": "step", "step": 12, "train_loss": 0.0512, "lr": 1e-05, "seconds": 0.75}
    heldout = {"event": "heldout", "step": 12, "loss": 2.5e-07}
    found = {
        name: [float(hit[1]) for event in (step, heldout) if (hit := re.search(pattern, as_line(event)))]
        for name, pattern in METRICS.items()
    }
    assert found == {"train_loss": [0.0512], "lr": [1e-05], "seconds_per_step": [0.75], "heldout_loss": [2.5e-07]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a dragon", "a dragon"),
        (["a dragon"], "a dragon"),
        (["a", "b"], '["a", "b"]'),
        (["y= a b=c"], '["y= a b=c"]'),  # of optimizer_args two, were it one text
        ("7", '"7"'),
        (["null"], '["null"]'),
        ("two\nlines", '"two\\nlines"'),
        (1e-4, "0.0001"),
        (None, "null"),
        (True, "true"),
    ],
)
def test_values_as_texts(value, text):
    assert as_text(value) == text


# What is uploaded


def folder(path, **files):
    for name, content in files.items():
        target = path / name.replace("__", "/").replace("_dot_", ".")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return path


def test_a_folder_is_named_by_its_content_wherever_it_lies(tmp_path):
    one = folder(tmp_path / "one", a_dot_png="1", b__c_dot_txt="2", _dot_hidden="3", d_dot_bin="4")
    two = folder(tmp_path / "two", a_dot_png="1", b__c_dot_txt="2")
    assert staging.digest(one) == staging.digest(two)
    folder(two, a_dot_png="2")
    assert staging.digest(one) != staging.digest(two)
    folder(one, e_dot_txt="2").joinpath("b", "c.txt").unlink()
    assert [name for name, _ in staging.files(one)] == ["a.png", "e.txt"]


def test_each_place_becomes_a_channel(tmp_path):
    pictures = folder(tmp_path / "pictures", a_dot_png="1")
    model = folder(tmp_path / "model", x_dot_safetensors="1")
    config = TrainConfig(
        train_data_dir=str(pictures),
        pretrained_model_name_or_path=str(model / "x.safetensors"),
        pretrained_vae_model_name_or_path="s3://models/vae/",
        seed=1,
    )
    staged = staging.plan(config, "b")
    assert staged.paths == {
        "train_data_dir": "/opt/ml/input/data/train",
        "pretrained_model_name_or_path": "/opt/ml/input/data/model/x.safetensors",
        "pretrained_vae_model_name_or_path": "/opt/ml/input/data/vae",
    }
    assert staged.channels["vae"] == "s3://models/vae/" and set(staged.uploads.values()) == {
        pictures,
        model / "x.safetensors",
    }
    moved = staged.moved("b", "c")
    assert (
        moved.channels["train"] == staged.channels["train"].replace("s3://b/", "s3://c/")
        and moved.paths is staged.paths
    )
    assert moved.channels["vae"] == "s3://models/vae/"
    written = asked(config, staged)["HyperParameters"]
    assert str(tmp_path) not in str(written) and written["train_data_dir"] == "/opt/ml/input/data/train"


def test_hub_ids_and_embedded_names_are_no_places():
    config = TrainConfig(pretrained_model_name_or_path="embedded:tiny-sdxl", dataset_name="embedded:emblem", seed=1)
    assert staging.plan(config, "b") == staging.Staged()


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"There are no files in .*: check --train_data_dir"):
        staging.plan(TrainConfig(train_data_dir=str(tmp_path), seed=1), "b")
