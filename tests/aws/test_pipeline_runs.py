"""Option 1 of the seed on the emulated SageMaker: the pipeline runs, its job trains, and what goes wrong is said."""

import shlex
import tarfile

import pytest
from hub import Hub
from sagemaker_emulator import SageMakerEmulator
from test_build_pipeline import OPTION_1
from test_option2 import BASE, NARUTO, SDXL, VAE, write_base, write_naruto

from sdxl_nb.aws.execution import Execution
from sdxl_nb.aws.pipeline import prepare, start_pipeline
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.build_pipeline import main
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.models.loading import load_pipeline
from sdxl_nb.system.errors import ConfigError, SdxlNbError


@pytest.fixture
def emulator(nobody, tmp_path):
    (tmp_path / "aws").mkdir()
    with SageMakerEmulator(tmp_path / "aws") as started:
        yield started


def fetch(emulator, url, folder):
    bucket, _, key = url.removeprefix("s3://").partition("/")
    emulator.client("s3").download_file(bucket, key, str(folder / "model.tar.gz"))
    with tarfile.open(folder / "model.tar.gz") as archive:
        archive.extractall(folder / "model", filter="data")
    return folder / "model"


def test_option_1_trains_on_the_emulator(emulator, tmp_path, monkeypatch, capsys):
    write_naruto(tmp_path / "naruto")
    write_base(tmp_path / "base")
    flags = shlex.split(OPTION_1.replace("\\\n", ""))[3:]  # of the line that a shell runs in test_build_pipeline.py
    flags += ["--resolution", "64", "--max_train_steps", "4", "--train_batch_size", "2"]
    flags += ["--image_uri", emulator.image, "--wait"]
    monkeypatch.setenv("SDXL_NB_ROLE_ARN", emulator.role)
    monkeypatch.setenv("BUCKET_NAME", emulator.bucket)
    monkeypatch.chdir(tmp_path)
    emulator.job_environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with Hub(models={SDXL: tmp_path / "base", VAE: BASE / "vae"}, datasets={NARUTO: tmp_path / "naruto"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(flags) == 0, "".join(job.log() for job in emulator.jobs.known.values())
        (job,) = emulator.jobs.known.values()
    said = capsys.readouterr().out
    assert "Succeeded. FineTune: Succeeded" in said
    assert "train_loss" in job.metrics and "seconds_per_step" in job.metrics
    assert hub.downloads(NARUTO) == ["data/train-00000-of-00001.parquet"]
    execution = Execution(said.split("has started: ")[1].split()[0])
    assert execution.job_name == job.name and execution.status == "Succeeded"

    assert execution.run.status == "completed" and execution.run.losses()[0] == [1, 2, 3, 4]
    model = fetch(emulator, job.describe()["ModelArtifacts"]["S3ModelArtifacts"], tmp_path)
    pipeline = load_pipeline("embedded:tiny-sdxl")
    pipeline.load_lora_weights(str(model))
    assert len(pipeline.get_active_adapters()) == 1

    assert main(flags) == 0
    assert "found: it has run before" in capsys.readouterr().out and len(emulator.jobs.known) == 1


def test_pictures_are_uploaded_once_and_a_start_may_change_parameters(emulator, tmp_path, capsys):
    from small_runs import home

    pictures = home()[0] / "pictures"
    config = TrainConfig.preset("tiny", train_data_dir=str(pictures), max_train_steps=2, seed=1)
    options = {"image_uri": emulator.image, "role_arn": emulator.role, "bucket": emulator.bucket}
    with pytest.raises(ConfigError, match=r"unknown pipeline parameter Rnk: did you mean Rank\?"):
        start_pipeline(config, parameters={"Rnk": 8}, **options)
    assert emulator.client("s3").list_objects_v2(Bucket=emulator.bucket)["KeyCount"] == 0
    emulator.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    execution = start_pipeline(config, parameters={"Rank": 8, "ValidationPrompt": "a 'b'"}, **options)
    assert "Uploaded 14 files to s3://" in capsys.readouterr().out
    assert execution.wait(interval=0.2, say=lambda line: None) == "Failed"
    assert "service limit 'ml.g5.2xlarge for spot training job usage' is 0" in execution.failure
    values = emulator.client("sagemaker").list_pipeline_parameters_for_execution(PipelineExecutionArn=execution.arn)
    changed = {p["Name"]: p["Value"] for p in values["PipelineParameters"]}
    assert (changed["Rank"], changed["ValidationPrompt"]) == ("8", "a 'b'")
    start_pipeline(config, **options)
    assert "Uploaded 0 files" in capsys.readouterr().out


def test_waiting_for_a_pipeline_that_fails_ends_with_its_reason(emulator, monkeypatch, capsys):
    monkeypatch.setenv("BUCKET_NAME", emulator.bucket)
    emulator.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    assert main(["--image_uri", emulator.image, "--role_arn", emulator.role, "--wait"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "Failed. FineTune: Failed"
    assert said.err.splitlines()[-1].startswith("error: The pipeline did not succeed: ClientError: Failed to invoke")


def test_watching_outlives_a_lost_network(emulator, monkeypatch):
    monkeypatch.setattr("sdxl_nb.aws.execution.PATIENCE", 2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    options = {"image_uri": emulator.image, "role_arn": emulator.role, "bucket": emulator.bucket}
    emulator.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    execution = start_pipeline(TrainConfig(seed=1), **options)
    with (
        emulator.offline(),
        pytest.raises(SdxlNbError, match=r"AWS cannot be reached .* what already runs on AWS goes"),
    ):
        execution.wait(interval=0.05)
    assert execution.wait(interval=0.05) == "Failed"


@pytest.mark.parametrize(
    ("action", "code", "sentence"),
    [
        ("CreatePipeline", "AccessDeniedException", "The pipeline was not made: These AWS credentials may not CreateP"),
        ("StartPipelineExecution", "AccessDeniedException", "The pipeline was not started: These AWS credentials may "),
        ("StartPipelineExecution", "ThrottlingException", "The pipeline was not started: AWS has too many requests"),
        ("CreatePipeline", "ExpiredTokenException", "The pipeline was not made: The AWS credentials have expired"),
    ],
)
def test_what_aws_refuses(emulator, monkeypatch, capsys, action, code, sentence):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("BUCKET_NAME", emulator.bucket)
    emulator.fail(action, code)
    flags = ["--image_uri", emulator.image, "--role_arn", emulator.role]
    assert main(flags) == 1
    assert f"error: {sentence}" in capsys.readouterr().err


def test_prepare_sends_nothing(emulator):
    config = TrainConfig(seed=1)
    job = Job(image_uri=emulator.image, role_arn=emulator.role)
    prepare(config, job, bucket=emulator.bucket, region="us-east-1")
    assert {"sagemaker:CreatePipeline", "s3:PUT"}.isdisjoint(emulator.calls) and emulator.calls
