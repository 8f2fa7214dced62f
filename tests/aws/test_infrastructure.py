"""The AWS side: the reviewed template and the real `cdk` CLI, both deployed to moto's server, and the outputs read.

The template's own tests are infrastructure/test (TypeScript); template.snapshot.json ties the two together.
"""

import json
import os
import re
import subprocess
import sys
import urllib.request
from dataclasses import asdict, fields
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sdxl_nb import build_pipeline
from sdxl_nb.aws.stack import StackError, StackOutputs, stack_outputs

ROOT = Path(__file__).parents[2]
INFRASTRUCTURE = ROOT / "infrastructure"
SNAPSHOT = INFRASTRUCTURE / "test" / "template.snapshot.json"
CDK = INFRASTRUCTURE / "node_modules" / ".bin" / "cdk"
CFN_LINT = Path(sys.executable).parent / "cfn-lint"
ACCOUNT = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@pytest.fixture
def aws(monkeypatch):
    """A fresh AWS on this machine, with credentials and a region in the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").read()  # what other tests left
    settings = {**ACCOUNT, "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
    for name, value in {**settings, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def create_stack(template, name="SdxlNb"):
    boto3.client("cloudformation").create_stack(
        StackName=name, TemplateBody=template, Capabilities=["CAPABILITY_NAMED_IAM"]
    )


def launcher(outputs):
    """The container that the deployed task runs."""
    described = boto3.client("ecs").describe_task_definition(taskDefinition=outputs.TaskDefinitionArn)
    (container,) = described["taskDefinition"]["containerDefinitions"]
    return container


def check_launcher(outputs):
    container = launcher(outputs)
    assert container["name"] == outputs.ContainerName == "build-pipeline"
    assert container["entryPoint"] == ["python", "-m", "sdxl_nb.build_pipeline"]
    assert container["image"] == f"{outputs.RepositoryUri}:latest"
    assert {pair["name"]: pair["value"] for pair in container["environment"]} == {
        "AWS_REGION": "us-east-1",
        "BUCKET_NAME": outputs.BucketName,
        "SDXL_NB_ROLE_ARN": outputs.TrainingRoleArn,
    }


# The reviewed template, without Node


@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")  # what moto leaves out: see infrastructure/README.md
def test_the_reviewed_template_deploys_and_is_read(aws):
    vpc = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    create_stack(SNAPSHOT.read_text(encoding="utf-8").replace("vpc-0a1b2c3d4e5f60718", vpc))
    outputs = stack_outputs()
    assert outputs.BucketName in [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert outputs.SubnetIds == ("subnet-0a1b2c3d4e5f60a01", "subnet-0a1b2c3d4e5f60b02")
    assert (outputs.PipelineName, outputs.ImageBuildProject) == ("sdxl-nb", "sdxl-nb-image")
    assert outputs.TrainingRoleArn.startswith("arn:aws:iam::123456789012:role/SdxlNb-Training")
    check_launcher(outputs)


@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
def test_the_launcher_builds_the_pipeline_with_the_outputs_alone(aws, monkeypatch, capsys):
    vpc = boto3.client("ec2").describe_vpcs()["Vpcs"][0]["VpcId"]
    create_stack(SNAPSHOT.read_text(encoding="utf-8").replace("vpc-0a1b2c3d4e5f60718", vpc))
    outputs = stack_outputs()
    for tag in ("first", "latest"):
        push_image(outputs, tag)
    launch_pipeline(outputs, monkeypatch)
    assert "Pipeline sdxl-nb in us-east-1 has started" in capsys.readouterr().out


def push_image(outputs, tag):
    media = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = {"schemaVersion": 2, "mediaType": media, "config": {"digest": f"sha256:{tag}"}, "layers": []}
    repository = outputs.RepositoryUri.partition("/")[2]
    boto3.client("ecr").put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)


def launch_pipeline(outputs, monkeypatch):
    """What the task's container does: build_pipeline with the environment of the task definition, and nothing else."""
    container = launcher(outputs)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    for pair in container["environment"]:
        monkeypatch.setenv(pair["name"], pair["value"])
    assert build_pipeline.main(["--validation_prompt", "cute dragon creature"]) == 0
    for pair in container["environment"][1:]:
        monkeypatch.delenv(pair["name"])  # a notebook has the region alone
    assert build_pipeline.main(["--validation_prompt", "cute dragon creature"]) == 0
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("sagemaker")
    described = client.describe_pipeline(PipelineName=outputs.PipelineName)
    assert described["RoleArn"] == outputs.TrainingRoleArn
    definition = json.loads(described["PipelineDefinition"])
    asked = definition["Steps"][0]["Arguments"]
    assert asked["AlgorithmSpecification"]["TrainingImage"] == f"{outputs.RepositoryUri}:first"
    places = {
        p["Name"]: p["DefaultValue"] for p in definition["Parameters"] if "S3" in p["Name"] or "Path" in p["Name"]
    }
    assert places["OutputPath"] == f"s3://{outputs.BucketName}/runs/sdxl-nb"
    assert places["CheckpointS3Uri"].startswith(f"s3://{outputs.BucketName}/checkpoints/sdxl-nb/")
    executions = client.list_pipeline_executions(PipelineName=outputs.PipelineName)
    assert len(executions["PipelineExecutionSummaries"]) == 2


def test_the_template_and_the_library_name_the_same_outputs():
    assert set(json.loads(SNAPSHOT.read_text(encoding="utf-8"))["Outputs"]) == {f.name for f in fields(StackOutputs)}


def test_cfn_lint_finds_nothing():
    done = subprocess.run([CFN_LINT, SNAPSHOT], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


def test_cfn_lint_would_find_something(tmp_path):
    template = SNAPSHOT.read_text(encoding="utf-8").replace("IMMUTABLE_WITH_EXCLUSION", "IMMUTABEL")
    (tmp_path / "template.json").write_text(template)
    done = subprocess.run([CFN_LINT, tmp_path / "template.json"], capture_output=True, text=True)
    assert "IMMUTABEL" in done.stdout and done.returncode != 0


def test_the_readme_lists_every_permission():
    resources = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["Resources"].values()
    policies = [r["Properties"]["PolicyDocument"] for r in resources if r["Type"] == "AWS::IAM::Policy"]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    actions = {a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    named = set(re.findall(r"`([a-z0-9-]+:[A-Za-z]+)`", (INFRASTRUCTURE / "README.md").read_text(encoding="utf-8")))
    assert len(actions) > 30
    assert actions - named == set()


def test_the_lock_names_no_registry():
    lock = json.loads((INFRASTRUCTURE / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for path, package in lock["packages"].items() if path]
    assert len(packages) > 20
    assert [package for package in packages if "resolved" in package] == []
    assert [p for p in packages if "integrity" not in p and not p.get("inBundle")] == []


def test_the_lock_has_every_platform():
    """npm silently leaves out an optional package that its registry lacks, and then `npm ci` fails."""
    packages = json.loads((INFRASTRUCTURE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    wanted = {name for package in packages.values() for name in package.get("optionalDependencies", {})}
    assert len(wanted) > 40
    assert wanted - {path.rpartition("node_modules/")[2] for path in packages} == set()


# What the library says when there is nothing to read


def said(**arguments):
    with pytest.raises(StackError) as caught:
        stack_outputs(**arguments)
    return str(caught.value)


def test_no_boto3(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert said() == "Reading the stack needs boto3: pip install 'sdxl_nb[sagemaker]'."


def test_no_credentials(aws, monkeypatch, tmp_path):
    for name in ACCOUNT:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert said() == (
        "Stack SdxlNb cannot be read (Unable to locate credentials): "
        "run `aws configure`, `aws sso login` or set AWS_PROFILE."
    )


def test_no_region(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert said() == "Stack SdxlNb is in no region yet: set AWS_REGION to where it was deployed."


def test_no_stack_here(aws, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert said() == (
        "There is no stack SdxlNb in eu-west-1: deploy it with `cd infrastructure && npx cdk deploy`, "
        "or set AWS_REGION to where it is."
    )


def test_a_stack_of_another_kind(aws):
    bucket = {"Type": "AWS::S3::Bucket"}
    outputs = {field.name: {"Value": "x"} for field in fields(StackOutputs) if field.name != "PipelineName"}
    create_stack(json.dumps({"Resources": {"Bucket": bucket}, "Outputs": outputs}), "Mine")
    assert said(stack_name="Mine") == (
        "Stack Mine (CREATE_COMPLETE) has no output PipelineName: "
        "deploy this version with `cd infrastructure && npx cdk deploy`."
    )


def test_a_hand_made_stack_in_a_session_of_ones_own(aws):
    outputs = {field.name: {"Value": field.name.lower()} for field in fields(StackOutputs)}
    session = boto3.Session(region_name="ap-south-1")
    session.client("cloudformation").create_stack(
        StackName="Mine", TemplateBody=json.dumps({"Resources": {"B": {"Type": "AWS::S3::Bucket"}}, "Outputs": outputs})
    )
    values = asdict(stack_outputs("Mine", session))
    assert values.pop("SubnetIds") == ("subnetids",)
    assert values == {name: name.lower() for name in values}


def test_nobody_answers(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert said().endswith("check the network, AWS_REGION and AWS_ENDPOINT_URL.")


# The real CLI


@pytest.fixture
def cdk(tmp_path):
    """Runs the CDK CLI on this app from a scratch folder, as `npx cdk` would in infrastructure/."""
    if not CDK.exists():
        subprocess.run(["npm", "ci"], cwd=INFRASTRUCTURE, check=True)
    settings = json.loads((INFRASTRUCTURE / "cdk.json").read_text(encoding="utf-8"))
    settings["app"] = f"{CDK.parent / 'tsx'} {INFRASTRUCTURE / 'bin' / 'infrastructure.ts'}"
    (tmp_path / "cdk.json").write_text(json.dumps(settings))

    def run(*arguments, **environment):
        kept = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        return subprocess.run(
            [CDK, *arguments], cwd=tmp_path, env=kept, stdin=subprocess.DEVNULL, text=True, timeout=900,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    return run


DEPLOY = ("deploy", "--method=direct", "--require-approval=never", "--ci")


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
def test_the_cli_deploys_changes_nothing_destroys_and_deploys_again(aws, cdk, tmp_path, monkeypatch):
    first = cdk(*DEPLOY, "--outputs-file=outputs.json")
    assert first.returncode == 0, first.stdout
    outputs = stack_outputs()
    written = json.loads((tmp_path / "outputs.json").read_text())["SdxlNb"]
    assert {**asdict(outputs), "SubnetIds": ",".join(outputs.SubnetIds)} == written
    check_launcher(outputs)
    check_task_starts(outputs)

    again = cdk(*DEPLOY)
    assert again.returncode == 0 and "no changes" in again.stdout, again.stdout
    assert stack_outputs() == outputs

    destroyed = cdk("destroy", "--force")
    assert destroyed.returncode == 0, destroyed.stdout
    assert said().startswith("There is no stack SdxlNb in us-east-1: ")

    anew = cdk(*DEPLOY)
    assert anew.returncode == 0, anew.stdout
    check_launcher(stack_outputs())
    push_image(stack_outputs(), "first")  # now only: moto does not empty a repository that is destroyed
    launch_pipeline(stack_outputs(), monkeypatch)


def check_task_starts(outputs):
    """The outputs are all that run_task needs; build_pipeline's flags are the container's command."""
    network = {"subnets": list(outputs.SubnetIds), "securityGroups": [outputs.SecurityGroupId]}
    flags = ["--validation_prompt", "cute dragon creature"]
    started = boto3.client("ecs").run_task(
        cluster=outputs.ClusterName,
        taskDefinition=outputs.TaskDefinitionArn,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {**network, "assignPublicIp": "ENABLED"}},
        overrides={"containerOverrides": [{"name": outputs.ContainerName, "command": flags}]},
    )
    assert len(started["tasks"]) == 1 and not started["failures"]
    assert started["tasks"][0]["overrides"]["containerOverrides"][0]["command"] == flags


@pytest.mark.soak
def test_the_cli_says_what_is_missing(aws, cdk):
    nobody = {**dict.fromkeys(ACCOUNT), "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}
    refused = cdk(*DEPLOY, **nobody)
    assert refused.returncode != 0
    assert "No AWS credentials were found, so this is an example that cannot be deployed: run `aws" in refused.stdout

    ec2 = boto3.client("ec2", region_name="eu-west-1")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"])
    refused = cdk(*DEPLOY, AWS_REGION="eu-west-1", AWS_DEFAULT_REGION="eu-west-1")
    assert refused.returncode != 0
    assert "There is no default VPC in eu-west-1 of account 123456789012: make one with" in refused.stdout
    assert "Could not find any VPC" not in refused.stdout
