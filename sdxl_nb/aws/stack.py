"""What `npx cdk deploy` left: the stack's outputs, so that after a deploy nobody types an ARN.

In: a stack's name, and boto3's usual credentials and region. Out: StackOutputs, under the names that
infrastructure/lib/infrastructure-stack.ts writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

from ..system.errors import SdxlNbError

STACK_NAME = "SdxlNb"
NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError")
STALE_CREDENTIALS = ("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException")


class StackError(SdxlNbError):
    """The deployed stack cannot be read; the message says what to do."""


@dataclass(frozen=True)
class StackOutputs:
    """The stack's outputs under the names that CloudFormation shows."""

    BucketName: str
    RepositoryUri: str
    TrainingRoleArn: str
    ClusterName: str
    TaskDefinitionArn: str
    ContainerName: str
    SubnetIds: tuple[str, ...]
    SecurityGroupId: str
    PipelineName: str
    ImageBuildProject: str


def stack_outputs(stack_name: str = STACK_NAME, session: Any = None) -> StackOutputs:
    """The outputs of a deployed stack, in the region of a boto3 session (None: AWS_REGION's, or else boto3's).

    Raises StackError where boto3, credentials, a region or the stack is missing, or the stack is not ours or not whole.
    """
    stack = _describe(stack_name, session)
    values = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    wanted = [field.name for field in fields(StackOutputs)]
    if missing := [name for name in wanted if name not in values]:
        raise StackError(
            f"Stack {stack_name} ({stack['StackStatus']}) has no output {', '.join(missing)}: "
            "deploy this version with `cd infrastructure && npx cdk deploy`."
        )
    subnets = tuple(filter(None, values["SubnetIds"].split(",")))
    return StackOutputs(**{**{name: values[name] for name in wanted}, "SubnetIds": subnets})


def _describe(stack_name: str, session: Any) -> dict[str, Any]:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise StackError("Reading the stack needs boto3: pip install 'sdxl_nb[sagemaker]'.") from error
    region = None
    try:
        session = session or boto3.Session(
            region_name=os.environ.get("AWS_REGION")
        )  # boto3 reads AWS_DEFAULT_REGION only
        client = session.client("cloudformation")
        region = client.meta.region_name
        return client.describe_stacks(StackName=stack_name)["Stacks"][0]
    except (BotoCoreError, ClientError) as error:
        raise StackError(_explain(stack_name, region, error)) from error


def _explain(stack_name: str, region: str | None, error: Exception) -> str:
    """The sentence for a stack that cannot be described."""
    kind, text = type(error).__name__, str(error).strip().rstrip(".").replace("\n", " ")
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    if code == "ValidationError":  # what CloudFormation answers for a name that it does not know
        return (
            f"There is no stack {stack_name} in {region}: deploy it with `cd infrastructure && npx cdk deploy`, "
            "or set AWS_REGION to where it is."
        )
    if code in ("AccessDenied", "AccessDeniedException"):
        return f"These AWS credentials may not read stack {stack_name}: it takes cloudformation:DescribeStacks."
    if kind in NO_CREDENTIALS or code in STALE_CREDENTIALS:
        return f"Stack {stack_name} cannot be read ({text}): run `aws configure`, `aws sso login` or set AWS_PROFILE."
    if kind == "NoRegionError":
        return f"Stack {stack_name} is in no region yet: set AWS_REGION to where it was deployed."
    return f"Stack {stack_name} cannot be read ({text}): check the network, AWS_REGION and AWS_ENDPOINT_URL."
