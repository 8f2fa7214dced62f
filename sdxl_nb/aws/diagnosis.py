"""Whether AWS is ready for training: each thing that a job needs, looked at once, and what to do where it is not.

In: what `start_pipeline` and `launch_sagemaker` take of the account. Out: a Report, which prints as text and shows as a
table in a notebook. A failed check is a line of it, never an exception.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from ..system.errors import SdxlNbError
from ..system.report import Check, Report
from . import session as where
from .messages import DENIED, AwsError, code_of, explained
from .session import Session

Found = TypeVar("Found")


def doctor(
    instance_type: str = "ml.g5.2xlarge",
    *,
    role_arn: str | None = None,
    bucket: str | None = None,
    image_uri: str | None = None,
    region: str | None = None,
) -> Report:
    """Check identity, region, role, PassRole, bucket, image and quotas for training on SageMaker; never raises.

    In a Studio space also whether its JupyterLab can show the widgets.
    """
    report = Report()
    if where.METADATA.is_file():
        _look(report, "widgets", _widgets)
    session: Session | None = _try(report, "region", lambda: Session(region), lambda found: found.region)
    if session is None:
        return report
    caller = _try(report, "identity", lambda: session.caller, lambda found: found["Arn"])
    if caller is None:  # nothing else can be asked
        return report
    _look(report, "stack", lambda: _stack(session))
    role = _try(report, "role", lambda: session.role(role_arn), str)
    if role:
        _look(report, "role trusts SageMaker", lambda: _trust(session, role))
        _look(report, "iam:PassRole", lambda: _pass_role(session, role))
    place = _try(report, "bucket", lambda: _bucket(session, bucket), str)
    if place:
        _look(report, "bucket is writable", lambda: _writable(session, place))
    _try(report, "image", lambda: _image(session, image_uri), str)
    for kind in ("spot training job", "training job"):
        _look(report, f"quota, {kind}", partial(_quota, session, instance_type, kind))
    return report


def _try(report: Report, name: str, look: Callable[[], Found], say: Callable[[Found], str]) -> Found | None:
    """Note what was found, or the sentence of the error; returns what was found, or None."""
    try:
        with explained():
            found = look()
    except SdxlNbError as error:
        report.checks.append(Check(name, False, str(error)))
        return None
    report.checks.append(Check(name, True, say(found)))
    return found


def _look(report: Report, name: str, look: Callable[[], tuple[bool | None, str]]) -> None:
    """Note a verdict; one that these credentials may not ask for is unknown, not wrong."""
    try:
        with explained():
            verdict = look()
    except SdxlNbError as error:
        verdict = (None if getattr(error, "code", "") in DENIED else False), str(error)
    report.checks.append(Check(name, *verdict))


def _widgets() -> tuple[bool | None, str]:
    """Whether JupyterLab, which in Studio runs from another Python than a venv's kernel, has anywidget's half."""
    from jupyter_core.paths import jupyter_path

    own = Path(sys.prefix) if sys.prefix != sys.base_prefix else None  # a venv's folder, where JupyterLab never looks
    folders = [Path(folder) for folder in jupyter_path("labextensions")]
    if any((folder / "anywidget").is_dir() for folder in folders if own is None or own not in folder.parents):
        return True, "JupyterLab has what pictures and downloads need; where they do not show, reload the page"
    return None, (
        "JupyterLab may have no anywidget, which pictures and downloads need: restart the space with the lifecycle "
        "configuration of infrastructure/README.md, and reload the page"
    )


def _stack(session: Session) -> tuple[bool | None, str]:
    if session.stack is None:
        return None, "not deployed here: fine if BUCKET_NAME, a role and an image are given, else see infrastructure/"
    return True, f"SdxlNb, with repository {session.stack.RepositoryUri}"


def _trust(session: Session, role: str) -> tuple[bool | None, str]:
    found = session.client("iam").get_role(RoleName=role.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
    if "sagemaker.amazonaws.com" in str(found):
        return True, "sagemaker.amazonaws.com may assume it"
    return False, "add sagemaker.amazonaws.com to the role's trust policy, or give --role_arn another one"


def _pass_role(session: Session, role: str) -> tuple[bool | None, str]:
    """Ask IAM's simulator whether the caller may pass the role to SageMaker."""
    caller = session.caller["Arn"]
    if ":assumed-role/" in caller:
        caller = session.client("iam").get_role(RoleName=caller.split("/")[1])["Role"]["Arn"]
    context: dict[str, object] = {"ContextKeyName": "iam:PassedToService", "ContextKeyType": "string"}
    context["ContextKeyValues"] = ["sagemaker.amazonaws.com"]
    region, account = session.region, session.account
    asked = {  # one question for each, since each has its own kind of resource
        "iam:PassRole": role,
        "sagemaker:CreateTrainingJob": f"arn:aws:sagemaker:{region}:{account}:training-job/sdxl-nb-x",
        "sagemaker:CreateHyperParameterTuningJob": (
            f"arn:aws:sagemaker:{region}:{account}:hyper-parameter-tuning-job/sdxl-nb-x"
        ),
        "sagemaker:StartPipelineExecution": f"arn:aws:sagemaker:{region}:{account}:pipeline/sdxl-nb",
    }
    refused = []
    for action, resource in asked.items():
        answer = session.client("iam").simulate_principal_policy(
            PolicySourceArn=caller, ActionNames=[action], ResourceArns=[resource], ContextEntries=[context]
        )
        refused += [r["EvalActionName"] for r in answer["EvaluationResults"] if r["EvalDecision"] != "allowed"]
    if refused:
        return False, f"you may not {' or '.join(refused)}: ask for it on {role}"
    return True, "you may pass the role and start jobs"


def _bucket(session: Session, given: str | None) -> str:
    bucket = session.bucket(given, make=False)
    session.check_bucket(bucket)
    return bucket


def _writable(session: Session, bucket: str) -> tuple[bool | None, str]:
    """Write an empty object, always the same one."""
    try:
        session.client("s3").put_object(Bucket=bucket, Key="data/.doctor", Body=b"")
    except session.client("s3").exceptions.ClientError as error:
        if code_of(error) not in DENIED:
            raise
        return False, f"you may not write to {bucket}: ask for s3:PutObject, which uploading pictures takes"
    return True, "pictures can be uploaded"


def _image(session: Session, given: str | None) -> str:
    image = session.image(given)
    session.check_image(image)
    return image


def _quota(session: Session, instance_type: str, kind: str) -> tuple[bool | None, str]:
    """The applied quota by its name, which has the instance type in it; AWS's default where none was applied."""
    wanted, client = f"{instance_type} for {kind} usage", session.client("service-quotas")
    for operation in ("list_service_quotas", "list_aws_default_service_quotas"):
        pages = client.get_paginator(operation).paginate(ServiceCode="sagemaker")
        for quota in (quota for page in pages for quota in page["Quotas"]):
            if quota["QuotaName"] == wanted:
                value = int(quota["Value"])
                advice = "" if value else ": ask for more in the Service Quotas console (SageMaker), or another type"
                return value > 0, f"{value} x {instance_type}{advice}"
    raise AwsError(f"There is no quota '{wanted}': check the instance type and the region.")
