"""Who we are on AWS: region, bucket, role and image by the documented order; sentences for errors; the doctor."""

import json
import subprocess
import sys
import urllib.request

import boto3
import pytest
from botocore import exceptions
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from sagemaker_emulator import SageMakerEmulator

from sdxl_nb.aws import session as sessions
from sdxl_nb.aws.diagnosis import doctor
from sdxl_nb.aws.messages import AwsError, explain, explained
from sdxl_nb.aws.session import Session
from sdxl_nb.aws.stack import StackOutputs
from sdxl_nb.system.report import Check, Report

GIVEN, STACK = "arn:aws:iam::123456789012:role/given", "arn:aws:iam::123456789012:role/stack"
NAMES = (
    "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_PROFILE", "BUCKET_NAME", "SDXL_NB_ROLE_ARN",
)  # fmt: skip


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """No region, no credentials, no bucket, no role, no Studio."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(sessions, "METADATA", tmp_path / "metadata.json")


@pytest.fixture
def aws(nobody, monkeypatch):
    """A fresh moto server, credentials and a region."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").read()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


def deploy():
    values = {name: {"Value": name.lower()} for name in StackOutputs.__dataclass_fields__}
    values |= {"BucketName": {"Value": "stack-bucket"}, "TrainingRoleArn": {"Value": STACK}}
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": values}
    boto3.client("cloudformation", "us-east-1").create_stack(StackName="SdxlNb", TemplateBody=json.dumps(template))


# Region


def test_the_region_is_given_or_the_seeds_or_boto3s_or_the_profiles(nobody, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[profile art]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "art")
    assert Session().region == "eu-north-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert Session().region == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert Session().region == "us-east-1"
    assert Session("us-west-2").region == "us-west-2"


def test_a_profile_that_is_not_there(nobody, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AwsError, match=r"There are no AWS credentials that work \(The config profile \(nobody\)"):
        Session("us-east-1")


def test_clients_give_up_after_a_while(nobody, monkeypatch):
    config = Session("us-east-1").client("s3").meta.config
    assert (config.connect_timeout, config.read_timeout) == (10, 60)
    assert config.retries == {"mode": "adaptive", "total_max_attempts": 5}
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    assert Session("us-east-1").client("s3").meta.config.retries["total_max_attempts"] == 2


# Bucket and role


def test_the_bucket_is_given_or_in_the_environment_or_the_stacks_or_sagemakers(aws, monkeypatch):
    assert Session().bucket() == "sagemaker-us-east-1-123456789012"
    deploy()
    assert Session().bucket() == "stack-bucket"
    monkeypatch.setenv("BUCKET_NAME", "mine")
    assert Session().bucket() == "mine"
    assert Session().bucket("s3://given/") == "given"


def test_the_role_is_given_or_studios_or_the_stacks_or_the_assumed_one(aws, monkeypatch):
    with pytest.raises(AwsError, match="There is no role for the training jobs: deploy the stack"):
        Session().role()

    iam = boto3.client("iam", "us-east-1")
    arn = iam.create_role(RoleName="me", Path="/deep/", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    assumed = Session()
    assumed.caller = {"Arn": "arn:aws:sts::123456789012:assumed-role/me/session", "Account": "123456789012"}
    assert assumed.role() == arn == "arn:aws:iam::123456789012:role/deep/me"

    deploy()
    assert Session().role() == STACK
    sessions.METADATA.write_text(json.dumps({"ExecutionRoleArn": "arn:aws:iam::123456789012:role/studio"}))
    assert Session().role() == "arn:aws:iam::123456789012:role/studio"
    monkeypatch.setenv("SDXL_NB_ROLE_ARN", GIVEN)
    assert Session().role() == GIVEN
    assert Session().role("arn:aws:iam::123456789012:role/argument") == "arn:aws:iam::123456789012:role/argument"


class Studio:
    """What SageMaker says of a user and of the domain, where only the domain has a role."""

    role = "arn:aws:iam::123456789012:role/domain"

    def describe_user_profile(self, DomainId, UserProfileName):
        assert (DomainId, UserProfileName) == ("d-1", "me")
        return {"UserSettings": {}}

    def describe_domain(self, DomainId):
        return {"DefaultUserSettings": {"ExecutionRole": self.role}}


def test_studios_role_may_be_asked_of_the_domain(nobody):
    sessions.METADATA.write_text(json.dumps({"DomainId": "d-1", "UserProfileName": "me"}))
    session = Session("us-east-1")
    session.client = {"sagemaker": Studio()}.__getitem__
    assert session.role() == Studio.role


@pytest.mark.soak
def test_importing_sagemakers_sdk_leaves_the_process_as_it_was(nobody):
    done = subprocess.run(
        [sys.executable, "-c", SDK], capture_output=True, text=True, check=True, env={"PATH": "", "HOME": "/nowhere"}
    )
    assert done.stdout.split() == ["[]", "30", "None", "None"]


SDK = """
import logging, os
from sdxl_nb.aws.session import Session
session = Session("eu-west-1")
with session.sdk():
    from sagemaker.mlops.workflow.steps import TrainingStep
import boto3
root = logging.getLogger()
print(root.handlers, root.level, os.environ.get("AWS_DEFAULT_REGION"), boto3.DEFAULT_SESSION)
"""


# Sentences


def client_error(code, message="", operation="CreateTrainingJob"):
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


QUOTA = (
    "The account-level service limit 'ml.g5.2xlarge for spot training job usage' is 0 Instances, with current "
    "utilization of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request more."
)
DENIED = (
    "User: arn:aws:sts::1:assumed-role/me/x is not authorized to perform: iam:PassRole on resource: "
    "arn:aws:iam::1:role/train because no identity-based policy allows the iam:PassRole action"
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            exceptions.NoCredentialsError(),
            "There are no AWS credentials that work (Unable to locate credentials): run ",
        ),
        (exceptions.NoRegionError(), "No AWS region is set: export AWS_REGION=us-east-1, say."),
        (client_error("ExpiredToken"), "The AWS credentials have expired: run `aws configure` or `aws sso login`"),
        (client_error("InvalidClientTokenId", "bad"), "AWS does not know these credentials (bad): run `aws configure`"),
        (
            client_error("AccessDeniedException", DENIED),
            "These AWS credentials may not iam:PassRole on arn:aws:iam::1:role/train: ask whoever manages",
        ),
        (client_error("AccessDenied", "Access Denied", "PutObject"), "These AWS credentials may not PutObject: ask "),
        (
            client_error("ResourceLimitExceeded", QUOTA),
            "The quota 'ml.g5.2xlarge for spot training job usage' of this account is 0: ask for more in the Service "
            "Quotas console (SageMaker), or take another --instance_type.",
        ),
        (client_error("ThrottlingException", "Rate exceeded"), "AWS has too many requests of this account, after "),
        (client_error("NoSuchBucket", "", "PutObject"), "There is no such bucket: set BUCKET_NAME to one of yours"),
        (client_error("PermanentRedirect", "use another"), "The bucket is in another region (use another): set AWS_"),
        (
            client_error("ValidationException", "Requested image 1.dkr.ecr/x:1 not found."),
            "The training image is not there (Requested image 1.dkr.ecr/x:1 not found): build it as",
        ),
        (
            client_error("ValidationException", "Could not assume role arn:aws:iam::1:role/x."),
            "SageMaker cannot take the role (Could not assume role arn:aws:iam::1:role/x): give --role_arn one that ",
        ),
        (client_error("InternalFailure", "oops"), "AWS has trouble of its own (oops): try again in a few minutes."),
        (
            exceptions.EndpointConnectionError(endpoint_url="https://x"),
            'AWS cannot be reached (Could not connect to the endpoint URL: "https://x"): check the network, AWS_REGION',
        ),
        (exceptions.ReadTimeoutError(endpoint_url="https://x"), "AWS cannot be reached (Read timeout on endpoint URL"),
        (
            client_error("ValidationException", "strange\nthing."),
            "AWS refused it (ValidationException: strange thing).",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_is_one_sentence(error, sentence):
    said = explain(error)
    assert said.startswith(sentence)
    assert said.endswith(".") and "\n" not in said


def test_what_boto3_wraps_is_understood():
    from boto3.exceptions import S3UploadFailedError

    error = S3UploadFailedError("Failed to upload a: An error occurred (NoSuchBucket) when calling the PutObject op")
    with (
        pytest.raises(AwsError, match=r"^Sending: There is no such bucket: set BUCKET_NAME") as caught,
        explained("Sending"),
    ):
        raise error
    assert caught.value.code == "NoSuchBucket" and caught.value.__cause__ is error


def test_faults_of_ours_pass():
    with pytest.raises(KeyError), explained():
        raise KeyError("x")
    with pytest.raises(ModuleNotFoundError), explained():
        import no_such_module  # noqa: F401


def test_without_amazons_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(AwsError, match=r"This needs Amazon's libraries: pip install 'sdxl_nb\[sagemaker\]'\."):
        Session("us-east-1")


def test_the_library_needs_neither_boto3_nor_sagemaker():
    code = """
import sys
for name in ("boto3", "botocore", "sagemaker"):
    sys.modules[name] = None
import sdxl_nb, sdxl_nb.training.trainer, sdxl_nb.build_pipeline, sdxl_nb.train
from sdxl_nb import Run, TrainConfig, doctor, fine_tune, start_pipeline
print(doctor())
sys.exit(sdxl_nb.build_pipeline.main(["--validation_prompt", "x"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "NO region  This needs Amazon's libraries: pip install 'sdxl_nb[sagemaker]'.\n"
    assert done.stderr == "error: This needs Amazon's libraries: pip install 'sdxl_nb[sagemaker]'.\n"


# The doctor


def verdicts(report):
    return {check.name: check.ok for check in report.checks}


def says(report, name):
    return next(check.says for check in report.checks if check.name == name)


@pytest.fixture
def account(nobody, tmp_path):
    (tmp_path / "aws").mkdir()
    with SageMakerEmulator(tmp_path / "aws") as started:
        yield started


def look(account, **changes):
    options = {"role_arn": account.role, "bucket": account.bucket, "image_uri": account.image}
    return doctor(**options | changes)


def test_a_healthy_account(account):
    report = look(account)
    assert report and verdicts(report) == {
        "region": True, "identity": True, "stack": None, "role": True, "role trusts SageMaker": True,
        "iam:PassRole": True, "bucket": True, "bucket is writable": True, "image": True,
        "quota, spot training job": True, "quota, training job": True,
    }  # fmt: skip
    assert str(report).count("\n") == 10 and str(report).startswith("ok region")


def test_in_studio_the_widgets_are_looked_at_too(nobody, monkeypatch, tmp_path):
    assert "widgets" not in verdicts(doctor())
    sessions.METADATA.write_text("{}")
    for name, value in {"JUPYTER_DATA_DIR": tmp_path / "data", "HOME": tmp_path, "JUPYTER_PATH": ""}.items():
        monkeypatch.setenv(name, str(value))
    venv = tmp_path / "venv"
    monkeypatch.setattr("jupyter_core.paths.ENV_JUPYTER_PATH", [str(venv / "share" / "jupyter")])
    monkeypatch.setattr("jupyter_core.paths.SYSTEM_JUPYTER_PATH", [])
    monkeypatch.setattr("sys.prefix", str(venv))
    (venv / "share" / "jupyter" / "labextensions" / "anywidget").mkdir(parents=True)
    report = doctor()
    assert verdicts(report)["widgets"] is None and "reload the page" in says(report, "widgets")
    (tmp_path / "data" / "labextensions" / "anywidget").mkdir(parents=True)
    assert verdicts(doctor())["widgets"] is True
    (tmp_path / "data" / "labextensions" / "anywidget").rmdir()
    monkeypatch.setattr("sys.base_prefix", str(venv))  # the kernel is JupyterLab's own Python
    assert verdicts(doctor())["widgets"] is True


def test_each_failure_says_what_to_do(account, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account.quotas["ml.g5.2xlarge for spot training job usage"] = 0
    account.denied.add("iam:PassRole")
    account.fail("s3:PUT", "AccessDenied", "Access Denied", 403)
    report = look(account, image_uri=account.image.replace(":1", ":9"))
    assert not report
    assert [name for name, ok in verdicts(report).items() if ok is False] == [
        "iam:PassRole", "bucket is writable", "image", "quota, spot training job",
    ]  # fmt: skip
    assert says(report, "iam:PassRole") == f"you may not iam:PassRole: ask for it on {account.role}"
    assert says(report, "bucket is writable").endswith("ask for s3:PutObject, which uploading pictures takes")
    assert says(report, "image").startswith(f"There is no image {account.image.replace(':1', ':9')}: build one as")
    assert says(report, "quota, spot training job").startswith("0 x ml.g5.2xlarge: ask for more in the Service Quotas")


def test_what_one_may_not_ask_is_unknown(account, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    account.fail("SimulatePrincipalPolicy", "AccessDenied", "no", 403)
    account.fail("ListServiceQuotas", "AccessDeniedException", "no")
    report = look(account)
    assert report and [name for name, ok in verdicts(report).items() if ok is None] == [
        "stack", "iam:PassRole", "quota, spot training job", "quota, training job",
    ]  # fmt: skip


def test_missing_things(account):
    report = look(account, bucket="not-there", instance_type="ml.x9.large", image_uri=None)
    assert says(report, "bucket").startswith("There is no bucket not-there: set BUCKET_NAME")
    assert says(report, "image").startswith("There is no training image: deploy the stack and build one")
    assert says(report, "quota, training job").startswith("There is no quota 'ml.x9.large for training job usage'")


def test_nobody_and_nowhere(nobody, monkeypatch):
    assert str(doctor()) == "NO region  No AWS region is set: export AWS_REGION=us-east-1, say."
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    report = doctor()
    assert verdicts(report) == {"region": True, "identity": False}
    assert says(report, "identity").startswith("There are no AWS credentials that work")


def test_aws_out_of_reach(nobody, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    report = doctor(region="us-east-1")
    assert says(report, "identity").startswith("AWS cannot be reached (")


def test_the_report_shows_as_a_table():
    shown = Report([Check("role", False, "<b>give</b> one")])._repr_html_()
    assert "&lt;b&gt;give&lt;/b&gt; one" in shown and "<b>give" not in shown and ">NO<" in shown
