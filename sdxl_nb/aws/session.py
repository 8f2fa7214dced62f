"""Who we are on AWS: region, caller, bucket, role, image, each found where a user would expect it.

In: the environment (AWS_REGION, BUCKET_NAME, SDXL_NB_ROLE_ARN), the deployed stack, Studio's own file. Out: a Session,
or AwsError with one sentence that says what to do (`explained` makes it of whatever boto3 and SageMaker's SDK raise).
Clients try a few times, slow down when asked to, and never hang.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..system.errors import ConfigError, SdxlNbError
from .messages import DENIED, AwsError, code_of, explained
from .stack import StackOutputs, stack_outputs

METADATA = Path("/opt/ml/metadata/resource-metadata.json")  # Studio and notebook instances have it
TRIES, CONNECT_SECONDS, READ_SECONDS = 5, 10, 60
QUIET_SDK = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}
NO_ROLE = (
    "There is no role for the training jobs: deploy the stack (`cd infrastructure && npx cdk deploy`), set "
    "SDXL_NB_ROLE_ARN, or give --role_arn."
)
NO_IMAGE = "build one as infrastructure/README.md says, or name one with --image_uri."

REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")


class Session:
    """One region of one AWS account. `boto` is the boto3 session, `region` its region.

    Nothing is asked of AWS before it is needed; `stack` is None where the stack cannot be read.
    """

    def __init__(self, region: str | None = None):
        """Raises AwsError where boto3 or a region is missing, or AWS_PROFILE names no profile."""
        with explained():
            import boto3
            from botocore.config import Config
            from botocore.session import get_session

            core = get_session()
            retries = {"mode": "adaptive", "total_max_attempts": TRIES}
            for variable, name in (("AWS_RETRY_MODE", "mode"), ("AWS_MAX_ATTEMPTS", "total_max_attempts")):
                if variable in os.environ:  # a client's own setting would win over the environment
                    del retries[name]
            core.set_default_client_config(
                Config(retries=retries, connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS)
            )
            # boto3 itself reads AWS_DEFAULT_REGION only
            wanted = region or os.environ.get("AWS_REGION") or core.get_config_variable("region")
            if not wanted:
                raise AwsError("No AWS region is set: export AWS_REGION=us-east-1, say.")
            if not REGION.fullmatch(wanted):
                close = re.match(REGION, wanted)
                advice = f"did you mean {close[0]}?" if close else "us-east-1, say"
                raise AwsError(f"AWS_REGION must be a region of AWS, not {wanted!r}: {advice}", "InvalidRegionError")
            self.region: str = wanted
            self.boto = boto3.Session(region_name=wanted, botocore_session=core)

    @functools.cache  # noqa: B019 - lives as long as the session
    def client(self, service: str) -> Any:
        """boto3's client of a service."""
        with explained():
            return self.boto.client(service)

    @functools.cached_property
    def caller(self) -> dict[str, str]:
        """Account, Arn and UserId of these credentials."""
        with explained():
            return self.client("sts").get_caller_identity()

    @property
    def account(self) -> str:
        return self.caller["Account"]

    @functools.cached_property
    def stack(self) -> StackOutputs | None:
        """The outputs of the deployed stack; None where there is none, or it may not be read."""
        try:
            return stack_outputs(session=self.boto)
        except SdxlNbError:
            return None

    def bucket(self, given: str | None = None, *, make: bool = True) -> str:
        """The bucket: given, BUCKET_NAME, the stack's, or SageMaker's own of this account (made if need be)."""
        found = given or os.environ.get("BUCKET_NAME") or (self.stack and self.stack.BucketName)
        if found:
            name = found.removeprefix("s3://").strip("/")
            if "/" in name and not name.startswith("arn:"):
                raise ConfigError(f"bucket {name} names a place in a bucket: give {name.partition('/')[0]} alone")
            return name
        name = f"sagemaker-{self.region}-{self.account}"
        if make:
            with explained(f"Bucket {name}"):
                self._make_bucket(name)
        return name

    def _make_bucket(self, name: str) -> None:
        """SageMaker's own bucket, unless this account has it; the SDK would ask the real AWS for the account."""
        client = self.client("s3")
        try:
            client.head_bucket(Bucket=name, ExpectedBucketOwner=self.account)
        except client.exceptions.ClientError as error:
            if code_of(error) != "404":
                raise
            place = {"CreateBucketConfiguration": {"LocationConstraint": self.region}}
            client.create_bucket(Bucket=name, **(place if self.region != "us-east-1" else {}))

    def role(self, given: str | None = None) -> str:
        """The ARN of the role for jobs: given or SDXL_NB_ROLE_ARN, Studio's, the stack's, or the assumed role.

        Raises AwsError where there is none: an IAM user is no role.
        """
        given = given or os.environ.get("SDXL_NB_ROLE_ARN")
        return given or self._studio_role() or (self.stack and self.stack.TrainingRoleArn) or self._assumed_role()

    def _studio_role(self) -> str | None:
        """The execution role of the Studio space or notebook instance that this runs in."""
        try:
            here = json.loads(METADATA.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if here.get("ExecutionRoleArn") or not here.get("DomainId"):
            return here.get("ExecutionRoleArn")
        try:
            sagemaker, domain = self.client("sagemaker"), here["DomainId"]
            user = sagemaker.describe_user_profile(DomainId=domain, UserProfileName=here["UserProfileName"])
            role = user.get("UserSettings", {}).get("ExecutionRole")
            return role or sagemaker.describe_domain(DomainId=domain)["DefaultUserSettings"]["ExecutionRole"]
        except Exception:  # the role may not look: there are other places to ask
            return None

    def _assumed_role(self) -> str:
        """The role that these credentials belong to; its ARN, with its path, is IAM's to say."""
        arn = self.caller["Arn"]
        if ":assumed-role/" not in arn:
            raise AwsError(NO_ROLE)
        with explained():
            return self.client("iam").get_role(RoleName=arn.split("/")[1])["Role"]["Arn"]

    def image(self, given: str | None = None) -> str:
        """The training image: given, else SDXL_NB_IMAGE_URI, else the stack's newest by a tag that does not move.

        Raises AwsError where there is no repository or nothing in it.
        """
        if given := given or os.environ.get("SDXL_NB_IMAGE_URI"):
            return given
        if self.stack is None:
            raise AwsError(f"There is no training image: deploy the stack and {NO_IMAGE}")
        tag = self.newest_tag(self.stack.RepositoryUri)
        if tag is None:
            raise AwsError(f"{self.stack.RepositoryUri} holds no image with a tag of its own: {NO_IMAGE}")
        return f"{self.stack.RepositoryUri}:{tag}"

    def newest_tag(self, repository_uri: str) -> str | None:
        """The tag of the image pushed last; never `latest`, which would change under a cached pipeline step."""
        host, _, name = repository_uri.partition("/")
        with explained():
            pages = self.client("ecr").get_paginator("describe_images")
            asked = pages.paginate(repositoryName=name, registryId=host.split(".")[0], filter={"tagStatus": "TAGGED"})
            images = [image for page in asked for image in page["imageDetails"]]
        named = [(image["imagePushedAt"], tag) for image in images for tag in image["imageTags"] if tag != "latest"]
        return max(named)[1] if named else None

    def check_bucket(self, bucket: str) -> None:
        """Raise AwsError for a bucket that does not exist or is in another region; one that we may not see passes."""
        with explained(f"Bucket {bucket}"):
            try:
                self.client("s3").head_bucket(Bucket=bucket)
            except self.client("s3").exceptions.ClientError as error:
                code = code_of(error)
                if code in ("404", "NoSuchBucket"):
                    raise AwsError(
                        f"There is no bucket {bucket}: set BUCKET_NAME to one of yours, or deploy the stack.",
                        "NoSuchBucket",
                    ) from error
                if code != "403":  # a launcher in AWS need not read what its jobs read
                    raise

    def check_role(self, role: str) -> None:
        """Raise AwsError for a role of another account, which nobody can pass to SageMaker."""
        found = re.match(r"arn:[^:]+:iam::(\d{12}):", role)
        if found and found[1] != self.account:
            raise AwsError(
                f"The role {role} is of account {found[1]}, and these credentials are of {self.account}, whose roles "
                "alone can be given to SageMaker: name one of them, or take credentials of the other account."
            )

    def check_image(self, image_uri: str) -> None:
        """Raise AwsError for an image of another region, or that does not exist; one that we may not see passes."""
        found = re.fullmatch(
            r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com[.cn]*/([^:@]+)(?::([^@]+))?.*", image_uri
        )
        if not found:
            return
        if found[2] != self.region:
            raise AwsError(
                f"The image {image_uri} lies in {found[2]}, and jobs in {self.region} take images of their own region: "
                f"name one of {self.region}, or set AWS_REGION={found[2]}."
            )
        client = self.client("ecr")
        with explained():
            try:
                client.describe_images(
                    registryId=found[1], repositoryName=found[3], imageIds=[{"imageTag": found[4] or "latest"}]
                )
            except client.exceptions.ClientError as error:
                if code_of(error) in ("RepositoryNotFoundException", "ImageNotFoundException"):
                    raise AwsError(f"There is no image {image_uri}: {NO_IMAGE}", code_of(error)) from error
                if code_of(error) not in DENIED:
                    raise

    @contextmanager
    def sdk(self, doing: str = "") -> Iterator[None]:
        """Use SageMaker's SDK inside: its errors explained (see `explained`), its faults kept off.

        Importing it calls logging.basicConfig(INFO) for the whole process and makes a client in boto3's default
        region, which is not AWS_REGION. Its check of the role asks for wildcard permissions, which a least-privilege
        role refuses by design; `doctor` checks what is really needed.
        """
        import boto3

        root = logging.getLogger()
        handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
        default, boto3.DEFAULT_SESSION = boto3.DEFAULT_SESSION, None
        ours = {"AWS_DEFAULT_REGION": self.region, "SAGEMAKER_VALIDATE_ROLE": "false"}
        before = {name: os.environ.get(name) for name in ours}
        os.environ.update(ours)
        logging.disable(logging.WARNING)  # what it really cannot do, it raises
        try:
            with explained(doing), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            boto3.DEFAULT_SESSION = default
            root.handlers[:], root.level = handlers, level
            logging.disable(disabled)
            for name in ours:
                os.environ.pop(name)
            os.environ.update({name: value for name, value in before.items() if value is not None})

    def sagemaker(self, bucket: str | None = None) -> Any:
        """SageMaker's SDK session for pipelines: a job's request is collected, not sent. The SDK's telemetry is off."""
        with self.sdk():
            from sagemaker.core.workflow.pipeline_context import PipelineSession

            return PipelineSession(
                boto_session=self.boto,
                sagemaker_client=self.client("sagemaker"),
                default_bucket=bucket,
                sagemaker_config=QUIET_SDK,
            )
