"""Option 1 of the seed: its command line word for word, the pipeline's definition, and training on the emulator."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from test_option2 import write_base

from sdxl_nb.aws import staging
from sdxl_nb.aws.execution import Execution
from sdxl_nb.aws.pipeline import start_pipeline
from sdxl_nb.aws.pipelines.parameters import SETTINGS, parameter_name, with_parameters
from sdxl_nb.aws.stack import StackOutputs
from sdxl_nb.aws.tuning_step import Job, request
from sdxl_nb.build_pipeline import main, read
from sdxl_nb.config.train_config import TrainConfig
from sdxl_nb.system.errors import DataError

OPTION_1 = """python -m sdxl_nb.build_pipeline \\
    --pretrained_model_name_or_path stabilityai/stable-diffusion-xl-base-1.0 \\
    --pretrained_vae_model_name_or_path madebyollin/sdxl-vae-fp16-fix \\
    --dataset_name lambdalabs/naruto-blip-captions \\
    --validation_prompt "cute dragon creature"
"""
ROLE = "arn:aws:iam::123456789012:role/SdxlNb-Training"
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sdxl-nb/training"


def shell(line, folder, **environment):
    """Run a line in a shell whose `python` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, **environment, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(["sh", "-c", line], cwd=folder, env=settings, capture_output=True, text=True, timeout=1200)


@pytest.fixture
def aws(nobody, monkeypatch):
    """A fresh moto server; only credentials, as a user has them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").read()  # what other tests left
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def client(service):
    return boto3.client(service, region_name="us-east-1")


def deploy(repository=REPOSITORY, tags=("1.0", "latest", "1.1"), bucket="stack-bucket"):
    """A stack with the outputs of ours, its bucket, and a repository with images."""
    values = {name: {"Value": name.lower()} for name in StackOutputs.__dataclass_fields__}
    values |= {
        "BucketName": {"Value": bucket},
        "RepositoryUri": {"Value": repository},
        "TrainingRoleArn": {"Value": ROLE},
    }
    template = {
        "Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": bucket}}},
        "Outputs": values,
    }
    client("cloudformation").create_stack(StackName="SdxlNb", TemplateBody=json.dumps(template))
    client("ecr").create_repository(repositoryName="sdxl-nb/training")
    for tag in tags:
        push(tag)


def push(tag):
    media = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": media, "config": {"digest": f"sha256:{tag}"}, "layers": []}
    client("ecr").put_image(repositoryName="sdxl-nb/training", imageManifest=json.dumps(manifest), imageTag=tag)


def definition_of(name="sdxl-nb"):
    return json.loads(client("sagemaker").describe_pipeline(PipelineName=name)["PipelineDefinition"])


def defaults_of(definition):
    return {parameter["Name"]: parameter["DefaultValue"] for parameter in definition["Parameters"]}


def config_of(definition):
    """The configuration that a job of this definition reads, by the defaults of the parameters."""
    defaults = defaults_of(definition)
    written = definition["Steps"][0]["Arguments"]["HyperParameters"]
    values = {n: defaults[v["Get"].split(".")[1]] if isinstance(v, dict) else v for n, v in written.items()}
    assert all(isinstance(value, str) for value in values.values())
    return TrainConfig.from_hyperparameters(values)


def dry(capsys, *flags):
    """What --dry_run prints."""
    code = main(["--dry_run", *flags])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


# The line


def test_option_1_word_for_word_builds_and_starts_the_pipeline(aws, tmp_path):
    deploy()
    client("s3").create_bucket(Bucket="your-s3-bucket")
    done = shell(OPTION_1, tmp_path, AWS_REGION="us-east-1", BUCKET_NAME="your-s3-bucket")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Pipeline sdxl-nb in us-east-1 has started: arn:aws:sagemaker:us-east-1:")
    assert "It costs at most $" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

    described = client("sagemaker").describe_pipeline(PipelineName="sdxl-nb")
    assert described["RoleArn"] == ROLE
    definition = json.loads(described["PipelineDefinition"])
    defaults = defaults_of(definition)
    assert (defaults["TrainingInstanceType"], defaults["TrainingInstanceCount"]) == ("ml.g5.2xlarge", 1)
    assert defaults["OutputPath"] == "s3://your-s3-bucket/runs/sdxl-nb"
    assert defaults["CheckpointS3Uri"].startswith("s3://your-s3-bucket/checkpoints/sdxl-nb/")
    assert config_of(definition) == TrainConfig(
        seed=0, validation_prompt="cute dragon creature", output_name="sd-model-finetuned-lora"
    )
    (step,) = definition["Steps"]
    assert step["Arguments"]["AlgorithmSpecification"]["TrainingImage"] == f"{REPOSITORY}:1.1"
    assert step["CacheConfig"] == {"Enabled": True, "ExpireAfter": "P30D"}
    executions = client("sagemaker").list_pipeline_executions(PipelineName="sdxl-nb")["PipelineExecutionSummaries"]
    assert [execution["PipelineExecutionArn"] for execution in executions] == [done.stdout.split()[-1]]


def test_the_stack_alone_is_enough(aws, monkeypatch, capsys):
    deploy()
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert main(["--validation_prompt", "cute dragon creature"]) == 0
    assert defaults_of(definition_of())["OutputPath"] == "s3://stack-bucket/runs/sdxl-nb"
    capsys.readouterr()


def test_a_second_start_updates_the_pipeline(aws, capsys):
    deploy()
    config = TrainConfig(seed=1)
    first = start_pipeline(config, region="us-east-1", pipeline_name="mine", tags={"team": "art"})
    second = start_pipeline(config.replace(rank=8), region="us-east-1", pipeline_name="mine", tags={"cost": "7"})
    assert defaults_of(definition_of("mine"))["Rank"] == "8"
    assert first.arn != second.arn and isinstance(second, Execution)
    arn = client("sagemaker").describe_pipeline(PipelineName="mine")["PipelineArn"]
    tags = {tag["Key"]: tag["Value"] for tag in client("sagemaker").list_tags(ResourceArn=arn)["Tags"]}
    assert tags == {"project": "sdxl-nb", "team": "art", "cost": "7"}
    assert "48 h (max_run) of 1 × ml.g5.2xlarge" in capsys.readouterr().out


# The definition


def test_a_dry_run_needs_no_account(nobody, capsys):
    definition = json.loads(dry(capsys, "--validation_prompt", "cute dragon creature"))
    assert config_of(definition).validation_prompt == ["cute dragon creature"]
    assert defaults_of(definition)["OutputPath"] == "s3://BUCKET_NAME/runs/sdxl-nb"


def test_the_same_line_is_the_same_definition_byte_by_byte(nobody, capsys, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"one")
    flags = ("--train_data_dir", str(tmp_path / "a"), "--rank", "8", "--tags", "team=art")
    first, second = dry(capsys, *flags), dry(capsys, *flags)
    assert first == second
    (tmp_path / "a" / "1.png").write_bytes(b"two")
    assert dry(capsys, *flags) != first


def test_every_changeable_setting_is_a_text_parameter_that_a_hyperparameter_gets(nobody, capsys):
    definition = json.loads(dry(capsys))
    kinds = {parameter["Name"]: parameter["Type"] for parameter in definition["Parameters"]}
    written = definition["Steps"][0]["Arguments"]["HyperParameters"]
    for name in SETTINGS:
        assert written[name] == {"Get": f"Parameters.{parameter_name(name)}"}
        assert kinds[parameter_name(name)] == "String"
    assert kinds["TrainingInstanceCount"] == "Integer"


def test_nothing_local_or_secret_is_in_the_definition(nobody, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("WANDB_API_KEY", "verysecret")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"x")
    printed = dry(
        capsys, "--train_data_dir", str(tmp_path / "pictures"), "--output_dir", str(tmp_path / "out"),
        "--cache_dir", str(tmp_path / "cache"), "--hub_token_secret", "sdxl-nb/hf-token",
    )  # fmt: skip
    assert str(tmp_path) not in printed and "verysecret" not in printed
    definition = json.loads(printed)
    asked = definition["Steps"][0]["Arguments"]
    assert asked["Environment"] == {
        "SDXL_NB_HUB_TOKEN_SECRET": "sdxl-nb/hf-token",
        "SDXL_NB_CONTENT": {"Get": "Parameters.Content"},
        "SDXL_NB_PLACE_TRAIN": {"Get": "Parameters.TrainS3Uri"},
    }
    assert asked["HyperParameters"]["train_data_dir"] == "/opt/ml/input/data/train"
    assert defaults_of(definition)["TrainS3Uri"].startswith("s3://BUCKET_NAME/data/")
    assert "DatasetName" not in defaults_of(definition)
    assert config_of(definition).output_name == "out"


def test_spot_network_key_and_limits_reach_the_job(nobody, capsys):
    flags = "--no_spot --max_run 3600 --kms_key alias/mine --subnets subnet-1 subnet-2 --security_group_ids sg-1"
    definition = json.loads(dry(capsys, *flags.split(), "--instance_type", "ml.p4d.24xlarge", "--instance_count", "2"))
    asked = definition["Steps"][0]["Arguments"]
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}
    assert asked.get("EnableManagedSpotTraining") is False
    assert asked["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]}
    assert asked["OutputDataConfig"]["KmsKeyId"] == "alias/mine"
    assert "VolumeKmsKeyId" not in asked["ResourceConfig"]  # of its own disks the service says no to a key
    assert defaults_of(definition)["TrainingInstanceType"] == "ml.p4d.24xlarge"
    assert defaults_of(definition)["TrainingInstanceCount"] == 2


def test_training_again_has_a_place_of_its_own(nobody, capsys):
    one, two = (json.loads(dry(capsys, "--no_cache")) for _ in range(2))
    assert "CacheConfig" not in one["Steps"][0]
    assert defaults_of(one)["CheckpointS3Uri"] != defaults_of(two)["CheckpointS3Uri"]


PROMPTS = [
    'say "hi"', "it's a dragon", "$(touch /tmp/x) `id` ; rm -rf ~", "two\nlines", "tab\there", "null", "7", '["a"]',
    " spaces ", "ein süßer Drache 龍 🐉", "{}", "-x", "--rank=3", "%s %(a)s", "\\n", "x" * 1024, "x" * 1025, "x" * 2500,
]  # fmt: skip


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_prompts_arrive_intact(prompt):
    config = read([f"--validation_prompt={prompt}"])[0]
    job = Job(role_arn=ROLE, image_uri="image")
    asked, parameters = with_parameters(config, request(config, job, staging.Staged(), output="o", checkpoints="c"))
    defaults = {parameter.expr["Get"]: parameter.default_value for parameter in parameters}
    assert all("\n" not in str(value) and len(str(value)) <= 1024 for value in defaults.values())
    values = {n: v if isinstance(v, str) else defaults[v.expr["Get"]] for n, v in asked["HyperParameters"].items()}
    assert all("\n" not in value and len(value) <= 2500 for value in values.values())
    assert TrainConfig.from_hyperparameters(values).validation_prompt == config.validation_prompt == [prompt]


def test_a_prompt_that_is_too_long_is_refused(nobody, capsys):
    assert main(["--dry_run", "--validation_prompt", "x" * 2501]) == 2
    assert capsys.readouterr().err == (
        "error: validation_prompt takes 2501 characters as a SageMaker hyperparameter, more than 2500: shorten it\n"
    )


# Refusals


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--instance_typ", "x"], "unknown flag --instance_typ: did you mean --instance_type?"),
        (["--instance_type", "g5"], "instance_type must be an instance type such as ml.g5.2xlarge, not 'g5'"),
        (["--max_run", "soon"], "argument --max_run: must be a whole number, not soon"),
        (["--max_run", "3600", "--max_wait", "60"], "max_wait 60 is less than max_run 3600: raise it, or leave it out"),
        (["--no_spot", "--max_wait", "60"], "max_wait is for spot instances: leave it out with --no_spot"),
        (["--tags", "team"], "tags are written KEY=VALUE, not 'team'"),
        (["--tags", "team=<art>"], "tags holds team=<art>, which AWS does not take: letters, digits and _.:/=+-@ only"),
        (["--subnets", "subnet-1"], "subnets and security_group_ids go together: give both or neither"),
        (["--hub_token_secret", "hf_abc"], "hub_token_secret must be the name of a secret under sdxl-nb/, not a token"),
        (
            ["--pipeline_name", "my pipeline"],
            "pipeline_name must be at most 256 letters, digits and hyphens, not 'my pipeline'",
        ),
        (["--rank", "0"], "rank must be at least 1, not 0"),
    ],
)
def test_wrong_flags(nobody, capsys, flags, sentence):
    assert main(["--dry_run", *flags]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_a_folder_that_is_not_there(nobody, capsys):
    assert main(["--dry_run", "--train_data_dir", "nowhere"]) == 1
    assert capsys.readouterr().err == (
        "error: train_data_dir nowhere is not there: give a folder, an s3:// prefix or a hub id.\n"
    )


def refused(capsys, *flags):
    assert main(list(flags)) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.out == ""
    return captured.err


def test_no_region(nobody, capsys):
    assert refused(capsys) == "error: No AWS region is set: export AWS_REGION=us-east-1, say.\n"


def test_no_credentials(nobody, capsys, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert refused(capsys) == (
        "error: There are no AWS credentials that work (Unable to locate credentials): run `aws configure` or "
        "`aws sso login`, or set AWS_PROFILE.\n"
    )


def test_no_role_no_image_no_bucket(aws, capsys, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("BUCKET_NAME", "not-mine")
    assert refused(capsys).startswith("error: There is no role for the training jobs: deploy the stack")
    monkeypatch.setenv("SDXL_NB_ROLE_ARN", ROLE)
    assert refused(capsys).startswith("error: There is no training image: deploy the stack and build one")
    image = f"{REPOSITORY}:9"
    assert refused(capsys, "--image_uri", image) == (
        "error: There is no bucket not-mine: set BUCKET_NAME to one of yours, or deploy the stack.\n"
    )
    deploy(tags=("latest",), bucket="not-mine")
    assert refused(capsys).startswith(f"error: {REPOSITORY} holds no image with a tag of its own: build one")
    assert refused(capsys, "--image_uri", image).startswith(f"error: There is no image {image}: build one")
    assert client("sagemaker").list_pipelines()["PipelineSummaries"] == []


def test_a_model_on_this_machine_is_staged_and_a_pickle_in_it_stays_here(tmp_path):
    write_base(tmp_path / "base")
    config = TrainConfig(pretrained_model_name_or_path=str(tmp_path / "base"), seed=1)
    staged = staging.plan(config, "mine")
    assert staged.paths == {"pretrained_model_name_or_path": "/opt/ml/input/data/model"}
    names = [name for name, _ in staging.files(tmp_path / "base")]
    assert "unet/config.json" in names and not [name for name in names if name.endswith(".bin")]


@pytest.mark.parametrize("name", ["train_data_dir", "validation_data_dir"])
def test_a_file_that_lists_folders_of_this_machine_is_refused(tmp_path, name):
    (tmp_path / "data.yaml").write_text("folders: [a, b]")
    settings = {name: str(tmp_path / "data.yaml")}
    with pytest.raises(DataError, match=rf"{name} .*data\.yaml lists folders of this machine"):
        staging.plan(TrainConfig(**settings, seed=1), "mine")


def test_links_that_lead_out_are_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "pictures" / "1.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match=r"1\.txt in pictures is a link that leads out of the folder"):
        staging.plan(TrainConfig(train_data_dir=str(tmp_path / "pictures"), seed=1), "mine")
