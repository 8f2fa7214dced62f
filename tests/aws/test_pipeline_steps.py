"""A pipeline that looks at the pictures first and searches: what its steps ask for, and executions that really run."""

import json

import pytest
from sagemaker_emulator.limits import ServiceError, check_job
from sagemaker_emulator.processing import check_processing
from sagemaker_emulator.tuning import check_tuning
from small_runs import assert_same, small, train
from started_jobs import aws_fixture, quickly  # noqa: F401 - fixtures

from sdxl_nb import build_pipeline, registered_lora, start_pipeline
from sdxl_nb.aws.audit_job import main, paired
from sdxl_nb.aws.container import config_of
from sdxl_nb.aws.pipeline import audited, prepare, searched
from sdxl_nb.aws.pipelines.audit import arguments
from sdxl_nb.aws.pipelines.gate import Gate
from sdxl_nb.aws.tuning_step import Job
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import ConfigError, SdxlNbError

HELD_OUT = {"validation_split": 0.3, "heldout_steps": 2, "max_train_steps": 2}
IMAGE = "111122223333.dkr.ecr.us-east-1.amazonaws.com/a:1"
ROLE = "arn:aws:iam::111122223333:role/a"
SPACE = {"learning_rate": {"min": 1e-5, "max": 1e-3, "log": True}, "rank": [4, 8]}


def options(aws, **more):
    return {"image_uri": aws.image, "role_arn": aws.role, "bucket": aws.bucket} | more


def definition(config=None, audit=False, space=None, plan=None, after=None, **job):
    config = config or TrainConfig(seed=1, validation_split=0.1, train_data_dir="s3://pictures/here/")
    search = searched(config, space, dict(plan or {}), None)
    where = {"bucket": "my-bucket", "region": "us-east-1", "dry": True}
    job = Job(image_uri=IMAGE, role_arn=ROLE, **job)
    prepared = prepare(config, job, **where, after=after, audit=audited(audit), search=search)
    return json.loads(prepared.definition), prepared


def filled(value, prepared):
    """A step's arguments with the parameters' defaults put in."""
    if isinstance(value, list):
        return [filled(item, prepared) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"Get"}:
        found = prepared.parameters[value["Get"].removeprefix("Parameters.")]
        return int(found) if value["Get"].endswith("InstanceCount") else found
    return {name: filled(item, prepared) for name, item in value.items()}


def test_pictures_that_training_would_refuse_end_the_execution_before_a_gpu_is_paid_for(aws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).write_bytes(b"no picture")
    before = len(aws.jobs.known)
    config = small(tmp_path / "run", train_data_dir=str(tmp_path / "pictures"))
    execution = start_pipeline(config, audit=True, register="sdxl-nb-refused", **options(aws))
    lines = []
    assert execution.wait(interval=0.2, say=lines.append) == "Failed"
    assert execution.failure.startswith("The audit refuses these pictures: Training would refuse these data. ")
    assert lines[-1].startswith("Failed. Audit: Failed pipelines-") and "FineTune" not in lines[-1]
    aws.fail("DescribeProcessingJob", "AccessDeniedException", "User is not authorized", times=1)
    assert execution.failure.startswith(
        "ClientError: AlgorithmError: See job logs for more information, exit code: 1 What the audit found was not "
        "read (it is in the log of pipelines-"
    )
    assert len(aws.jobs.known) == before and execution.job_name is None and execution.registered is None
    found = aws.client("s3").get_object(Bucket=aws.bucket, Key="runs/sdxl-nb/audit/audit.json")["Body"].read()
    assert {finding["severity"] for finding in json.loads(found)} >= {"error"}


@pytest.mark.soak  # some 30 s: make test has the search, the gate and the audit each by itself
def test_the_best_of_a_search_passes_the_gate_and_is_registered(aws, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = small(tmp_path / "run", **HELD_OUT)
    plan = {"strategy": "Grid", "ceiling": 100, "max_run": 3600}
    execution = start_pipeline(
        config, audit=True, space={"rank": [2]}, gate=9, register="sdxl-nb-best", **plan, **options(aws)
    )
    said = capsys.readouterr().out
    assert (
        "The audit runs on one ml.m5.xlarge first" in said and "within the ceiling of $100.00: 1 trainings of" in said
    )
    lines = []
    assert execution.wait(interval=0.2, say=lines.append) == "Succeeded", execution.failure
    assert [step["StepName"] for step in execution.steps()] == ["Audit", "Tune", "Gate", "Register"]
    here = train(small(tmp_path / "here", load_best_model_at_end=True, **HELD_OUT))
    (trial,) = execution.search.trials()
    assert execution.job_name == trial.name and trial.loss == pytest.approx(here.heldout()[1][-1], rel=1e-5)
    card = aws.pipelines.executions[execution.arn].cards["sdxl-nb-best"]
    assert card["evaluation_details"][0]["metric_groups"][0]["metric_data"][0]["value"] == trial.loss
    registered_lora("sdxl-nb-best")
    assert_same(tmp_path / "loras" / "sdxl-nb-best-1", here.folder)


def test_the_requests_of_all_steps_are_valid_by_the_service(nobody):
    made, prepared = definition(audit=True, space=SPACE, after=Gate(0.2, "sdxl-nb"), kms_key="alias/mine")
    audit, tune, gate = made["Steps"]
    assert [audit["Type"], tune["Type"], gate["Type"]] == ["Processing", "Tuning", "Condition"]
    assert tune["DependsOn"] == ["Audit"] and "CacheConfig" in tune and "CacheConfig" not in audit
    check_processing({"ProcessingJobName": "pipelines-0", **filled(audit["Arguments"], prepared)})
    check_tuning({"HyperParameterTuningJobName": "pipelines-0", **filled(tune["Arguments"], prepared)})
    best = "Steps.Tune.BestTrainingJob"
    assert gate["Arguments"]["Conditions"][0]["LeftValue"] == {
        "Get": f"{best}.FinalHyperParameterTuningJobObjectiveMetric.Value"
    }
    (container,) = gate["Arguments"]["IfSteps"][0]["Arguments"]["InferenceSpecification"]["Containers"]
    parts = container["ModelDataUrl"]["Std:Join"]["Values"]
    assert parts == [{"Get": "Parameters.OutputPath"}, {"Get": f"{best}.TrainingJobName"}, "output/model.tar.gz"]
    assert {"Rank", "LearningRate"}.isdisjoint(prepared.parameters) and "Seed" in prepared.parameters
    other, _ = definition(space=SPACE | {"rank": [4, 16]})
    places = [
        next(one["DefaultValue"] for one in each["Parameters"] if one["Name"] == "CheckpointS3Uri")
        for each in (made, other)
    ]
    assert places[0] != places[1]


def test_the_audit_reads_what_training_would(nobody):
    made, prepared = definition(audit="ml.c5.xlarge", subnets=("subnet-1",), security_group_ids=("sg-1",))
    audit, training = made["Steps"]
    assert training["DependsOn"] == ["Audit"]
    asked = filled(audit["Arguments"], prepared)
    check_processing({"ProcessingJobName": "pipelines-0", **asked})
    (pictures,) = asked["ProcessingInputs"]
    assert pictures["S3Input"]["S3Uri"] == "s3://pictures/here/" and asked["NetworkConfig"]["VpcConfig"]
    settings = paired(asked["AppSpecification"]["ContainerArguments"])
    assert config_of(settings).train_data_dir == pictures["S3Input"]["LocalPath"] == "/opt/ml/processing/train"
    written = {"Get": "Parameters.Resolution"}
    assert written in audit["Arguments"]["AppSpecification"]["ContainerArguments"]  # what a start changes is told too


def test_long_values_and_models_on_the_way_to_the_audit():
    told = arguments(
        {"rank": "8", "tags": "x" * 600, "pretrained_model_name_or_path": "/opt/ml/input/data/model/a.safetensors"}
    )
    assert max(map(len, told)) == 256 and paired(told) == {"rank": "8", "tags": "x" * 600}
    with pytest.raises(SdxlNbError, match=r"^audit takes names and values in turn, and rank has no value: add it$"):
        paired(["rank"])


def test_settings_that_cannot_be_read_are_the_jobs_exit_message(tmp_path):
    assert main(tmp_path, ["rank", "0"]) == 1
    assert (tmp_path / "output" / "message").read_text().startswith("The pictures could not be looked at: rank must be")


@pytest.mark.parametrize(
    "job",
    [
        {"spot": False, "fallbacks": ("ml.g6.2xlarge",)},
        {"retries": 3},
        {"mlflow": "arn:aws:sagemaker:us-east-1:111122223333:mlflow-app/mine"},
        {"spot": False, "fallbacks": ("ml.g6.2xlarge",), "retries": 3, "kms_key": "alias/mine"},
    ],
)
def test_what_the_sdks_own_step_leaves_out(nobody, job):
    config = TrainConfig(seed=1, report_to="mlflow" if "mlflow" in job else "none")
    made, prepared = definition(config, **job)
    (step,) = made["Steps"]
    asked = filled(step["Arguments"], prepared)
    check_job({"TrainingJobName": "pipelines-0", **asked})
    assert step["Name"] == "FineTune" and step["CacheConfig"]["ExpireAfter"] == "P30D"
    assert ("InstancePreferences" in asked["ResourceConfig"]) == ("fallbacks" in job)
    assert ("TrainingInstanceType" in prepared.parameters) == ("fallbacks" not in job)
    assert asked.get("RetryStrategy") == ({"MaximumRetryAttempts": 3} if "retries" in job else None)
    assert asked.get("MlflowConfig", {}).get("MlflowResourceArn") == job.get("mlflow")


def test_the_step_made_here_asks_for_what_the_sdks_asks_for(nobody):
    """Where both can be made they are the same, but for the retries and what the SDK writes out that holds anyway."""
    ours, theirs = definition(retries=1)[0]["Steps"][0], definition()[0]["Steps"][0]
    assert ours["Arguments"].pop("RetryStrategy") == {"MaximumRetryAttempts": 1}
    assert theirs["Arguments"]["CheckpointConfig"].pop("LocalPath") == "/opt/ml/checkpoints"
    assert theirs["Arguments"]["OutputDataConfig"].pop("CompressionType") == "GZIP"
    assert [channel.pop("InputMode") for channel in theirs["Arguments"]["InputDataConfig"]] == ["File"]
    assert ours == theirs


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"audit": 1}, "audit must be True, False or a type of instance, not 1"),
        (
            {"audit": "ml.m5.xlage"},
            "audit's instance type must be one that SageMaker knows, not 'ml.m5.xlage': did you",
        ),
        ({"max_jobs": 3}, "max_jobs is for a search: give a space too, or leave it out"),
        ({"ceiling": 3}, "ceiling is for a search: give a space too, or leave it out"),
        ({"space": SPACE, "ceiling": -1}, "ceiling must be dollars, a number above 0, not -1"),
        ({"space": SPACE, "warm_start": ("a",)}, "warm_start is not for a pipeline, whose definition is the same"),
        (
            {"space": SPACE, "strategy": "Bayes"},
            "strategy must be one of Bayesian, Hyperband, Random, Grid, not 'Bayes'",
        ),
        (
            {"space": SPACE, "keep_alive": 60, "spot": False},
            "keep_alive is not for a search, whose ceiling knows nothing",
        ),
        ({"space": SPACE, "spot": False, "fallbacks": ("ml.g6.2xlarge",)}, "fallbacks is not for a search, whose"),
        ({"space": {"rnk": [1]}}, "unknown"),
        ({"space": SPACE, "ceiling": 1}, "10 trainings of 48 h (max_run) on 1"),
    ],
)
def test_what_no_pipeline_takes(nobody, given, sentence):
    options = {"image_uri": IMAGE, "role_arn": ROLE, "bucket": "b", "region": "us-east-1"}
    with pytest.raises(ConfigError) as refused:
        start_pipeline(TrainConfig(seed=1, validation_split=0.1), **given, **options)
    assert str(refused.value).startswith(sentence)


def test_the_same_from_the_command_line(nobody, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE))
    flags = ["--image_uri", IMAGE, "--role_arn", ROLE, "--bucket", "my-bucket", "--seed", "1", "--dry_run"]
    search = ["--space", str(space), "--strategy", "Random", "--max_jobs", "4", "--validation_split", "0.1"]
    assert build_pipeline.main([*flags, *search, "--audit", "--ceiling", "400"]) == 0
    said = capsys.readouterr()
    audit, tune = json.loads(said.out)["Steps"]
    assert audit["Arguments"]["ProcessingResources"]["ClusterConfig"]["InstanceType"] == "ml.m5.xlarge"
    assert tune["Arguments"]["HyperParameterTuningJobConfig"]["Strategy"] == "Random"
    assert "The search costs at most $290.88, within the ceiling of $400.00: 4 trainings of 48 h" in said.err
    assert build_pipeline.main([*flags, "--no_spot", "--fallbacks", "ml.g6.2xlarge", "--retries", "2"]) == 0
    (step,) = json.loads(capsys.readouterr().out)["Steps"]
    assert step["Arguments"]["ResourceConfig"]["InstancePreferences"][1] == {"InstanceType": "ml.g6.2xlarge"}
    space.write_text("[1]")
    assert build_pipeline.main([*flags, *search]) == 2
    assert "must map settings to values, such as" in capsys.readouterr().err
    assert build_pipeline.main([*flags, "--space", str(tmp_path / "none.json")]) == 2
    assert "none.json cannot be read as JSON: " in capsys.readouterr().err


def test_the_emulator_refuses_inputs_at_other_places():
    made, prepared = definition(audit=True)
    asked = {"ProcessingJobName": "pipelines-0", **filled(made["Steps"][0]["Arguments"], prepared)}
    asked["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/opt/ml/input/data/train"
    with pytest.raises(ServiceError, match=r"must begin with /opt/ml/processing/"):
        check_processing(asked)
