"""Jobs on the emulated SageMaker that fail or are refused: one sentence, and nothing sent that should not be."""

import json
from pathlib import Path

import pytest
from small_runs import small
from started_jobs import aws_fixture, quickly, start  # noqa: F401 - fixtures

from sdxl_nb import tune_sagemaker
from sdxl_nb.aws import costs
from sdxl_nb.aws.messages import AwsError, explain_end
from sdxl_nb.system.errors import ConfigError, SdxlNbError

PREFERRED = {"instance_type": "ml.g6.2xlarge", "fallbacks": ["ml.g5.2xlarge", "ml.g6e.2xlarge"], "spot": False}


def test_a_failed_job_says_why(aws, tmp_path, capsys, healed):
    """It ran on the second of the types that it was allowed, and costs what that one does."""
    aws.capacity["ml.g6.2xlarge"] = 0
    run = start(aws, small(tmp_path / "run", pretrained_model_name_or_path="nobody/nothing"), **PREFERRED)
    assert "1 × ml.g6e.2xlarge, the dearest of those that it may get, at $2.80 an hour" in capsys.readouterr().out
    assert run.wait(1200) == "failed"
    said = run.describe()
    assert said["ResourceConfig"]["SelectedInstanceType"] == "ml.g5.2xlarge"
    assert costs.so_far(said | {"BillableTimeInSeconds": 7200}, "us-east-1")["dollars"] == 3.03  # two hours at $1.515
    settings = next(Path(aws.folder).glob(f"jobs/{run.job}/algo-1/input/config/resourceconfig.json")).read_text()
    assert json.loads(settings)["current_instance_type"] == "ml.g5.2xlarge"
    _resumed_where_there_is_no_room(aws, run)
    assert aws.job(run.job).reason.startswith("AlgorithmError: ")
    assert run.error.startswith(f"Job {run.job} failed: ") and "nobody/nothing" in run.error
    assert "Traceback" not in run.error and "exit code" not in run.error and "Traceback" in run.log(40)


def _resumed_where_there_is_no_room(aws, run):
    """The same types are asked for again, without what the service said of the first job."""
    with pytest.raises(ConfigError, match=r"^fallbacks are not for spot instances, .* or give instance_type alone$"):
        run.resume(spot=True)
    aws.capacity |= {"ml.g5.2xlarge": 0, "ml.g6e.2xlarge": 0}
    again = run.resume(say=lambda line: None)
    assert again.wait(1200) == "failed" and "CapacityError" in again.error and "resume() tries again" in again.error
    kinds = [{"InstanceType": kind} for kind in ("ml.g6.2xlarge", "ml.g5.2xlarge", "ml.g6e.2xlarge")]
    assert again.describe()["ResourceConfig"] == {
        "InstancePreferences": kinds, "InstanceCount": 1, "VolumeSizeInGB": 100,
    }  # fmt: skip


def test_out_of_memory_on_the_gpu():
    said = {
        "TrainingJobStatus": "Failed",
        "SecondaryStatus": "Failed",
        "FailureReason": "AlgorithmError: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\n"
        "Traceback (most recent call last):, exit code: 1",
    }
    assert explain_end(said, "a-1") == (
        "Job a-1 failed: the GPU has too little memory: add --gradient_checkpointing, use --mixed_precision bf16, "
        "lower --resolution or --rank, or take a larger --instance_type."
    )


def test_without_agreement_the_price_is_said_and_nothing_is_started_or_sent(aws, tmp_path):
    said = refused(aws, tmp_path, SdxlNbError, agreed=False, instance_type="ml.g5.2xlarge", max_run=3600)
    assert said.startswith("Nothing was started. It costs at most $1.5") and "1 h (max_run) of 1 × ml.g5" in said
    assert said.endswith("With agreed=True it is started.")


def refused(aws, tmp_path, error=AwsError, **options):
    """The sentence of a launch that is refused; no job was made, and nothing lies in output_dir."""
    jobs = len(aws.jobs.known)
    with pytest.raises(error) as caught:
        start(aws, small(tmp_path / "run"), **options)
    assert len(aws.jobs.known) == jobs and not (tmp_path / "run").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def healed(aws):
    yield
    aws.heal()
    aws.quotas.clear()
    aws.capacity.clear()


def test_fallbacks_and_mlflow_are_not_for_searches(tmp_path):
    config = small(tmp_path / "run", validation_split=0.3)
    with pytest.raises(ConfigError, match=r"^fallbacks are not for a search, .*: drop them$"):
        tune_sagemaker(config, {"rank": [2, 4]}, strategy="Grid", **PREFERRED)
    arn = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/a"
    with pytest.raises(ConfigError, match=r"^mlflow is not for a search, "):
        tune_sagemaker(config, {"rank": [2, 4]}, strategy="Grid", mlflow=arn)


def test_refusals_are_sentences(aws, tmp_path, healed, monkeypatch):
    assert "There is no bucket nowhere" in refused(aws, tmp_path, bucket="nowhere")
    missing = aws.image.replace(":1", ":2")
    assert f"There is no image {missing}" in refused(aws, tmp_path, image_uri=missing)
    aws.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    assert "'ml.g5.2xlarge for spot training job usage' of this account is 0" in refused(aws, tmp_path)
    aws.quotas.clear()
    aws.fail(
        "CreateTrainingJob", "AccessDeniedException", "User is not authorized to perform: sagemaker:CreateTrainingJob"
    )
    assert "may not sagemaker:CreateTrainingJob" in refused(aws, tmp_path)
    aws.heal()
    aws.fail("CreateTrainingJob", "ThrottlingException", "Rate exceeded")
    assert "too many requests" in refused(aws, tmp_path)
    aws.heal()
    with aws.offline():
        assert "AWS cannot be reached" in refused(aws, tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "There are no AWS credentials" in refused(aws, tmp_path)


def test_settings_that_cannot_work(aws, tmp_path):
    said = refused(aws, tmp_path, ConfigError, instance_type="g5.2xlarge")
    assert said.startswith("instance_type must be an instance type such as ml.g5.2xlarge")
    said = refused(aws, tmp_path, role_arn="arn:aws:iam::999900000000:role/a")
    assert "is of account 999900000000, and these credentials are of 123456789012, whose roles alone can be" in said
    said = refused(aws, tmp_path, ConfigError, hub_token_secret="hf_abcdefghijklmnopqrstu")
    assert said == "hub_token_secret must be the name of a secret under sdxl-nb/, not a token"


def test_another_run_is_not_replaced(aws, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"already holds a run: choose another folder"):
        start(aws, small(tmp_path / "run"))


def test_a_prompt_that_is_too_long_is_refused_before_anything_is_sent(aws, tmp_path):
    before = len(aws.calls)
    with pytest.raises(ConfigError, match=r"^validation_prompt takes 2501 characters .* more than 2500: shorten it$"):
        start(aws, small(tmp_path / "run", validation_prompt="x" * 2501))
    assert {call for call in aws.calls[before:] if "PUT" in call or "Create" in call} == set()
