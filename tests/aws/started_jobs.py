"""For tests of jobs: an emulated SageMaker for a module's tests, and how they start a job there."""

import pytest
from sagemaker_emulator import SageMakerEmulator

from sdxl_nb import launch_sagemaker
from sdxl_nb.aws.job_run import JobRun


@pytest.fixture(scope="module", name="aws")
def aws_fixture(tmp_path_factory):
    with SageMakerEmulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    monkeypatch.setattr(JobRun, "interval", 0.2)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.chdir(tmp_path)


def start(aws, config, **options):
    here = {"role_arn": aws.role, "image_uri": aws.image, "bucket": aws.bucket, "max_run": 6000}
    return launch_sagemaker(config, **here | options)
