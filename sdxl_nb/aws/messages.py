"""Sentences about what AWS refuses.

In: whatever boto3, botocore and SageMaker's SDK raise. Out: AwsError with one sentence: what is wrong, what to do.
Nothing here imports any of them: an error tells by its names what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..system.errors import SdxlNbError

THEIRS = ("boto3", "botocore", "s3transfer", "sagemaker", "sagemaker_core", "urllib3", "requests")
INSTALL = "This needs Amazon's libraries: pip install 'sdxl_nb[sagemaker]'."
LOG_IN = "run `aws configure` or `aws sso login`, or set AWS_PROFILE"
NO_JOB = ("ValidationException", "ResourceNotFound")  # how the service says that there is none
NO_CREDENTIALS = {
    "CredentialRetrievalError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "TokenRetrievalError",
}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "UnauthorizedSSOTokenError"}
UNKNOWN = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"403", "AccessDenied", "AccessDeniedException", "Forbidden", "NotAuthorized", "UnauthorizedOperation"}
SLOWER = {
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
UNREACHABLE = {
    "ConnectionClosedError",
    "ConnectionError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "HTTPClientError",
    "MaxRetryError",
    "ProtocolError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "SSLError",
}
ELSEWHERE = {"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
TROUBLE = {"500", "502", "503", "CapacityError", "InternalError", "InternalFailure", "ServiceUnavailable"}


class AwsError(SdxlNbError):
    """AWS cannot do what was asked; the message says what to do. `code` is AWS's own name for it, or the error's."""

    def __init__(self, message: str, code: str = ""):
        super().__init__(message)
        self.code = code


@contextmanager
def explained(doing: str = "") -> Iterator[None]:
    """Turn what AWS's libraries raise into AwsError; `doing` begins the sentence, as "The pipeline was not started".

    Other errors pass: they are faults of ours.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").split(".")[0] not in THEIRS:
            raise
        raise AwsError(INSTALL, "ImportError") from error
    except Exception as error:
        if not is_theirs(error):
            raise
        raise AwsError(explain(error, doing), code_of(error) or type(error).__name__) from error


def is_theirs(error: BaseException) -> bool:
    """Whether an error comes out of AWS's libraries."""
    return any(kind.__module__.split(".")[0] in THEIRS for kind in type(error).__mro__)


def code_of(error: BaseException) -> str:
    """AWS's code of an error: "AccessDenied"; empty where AWS never answered."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return str(answer.get("Error", {}).get("Code", ""))
    wrapped = re.search(r"An error occurred \((\w+)\)", str(error))  # boto3's own around a client's
    return wrapped[1] if wrapped else ""


def explain(error: BaseException, doing: str = "") -> str:
    """The sentence for an error of AWS's libraries."""
    names = {kind.__name__ for kind in type(error).__mro__} | {code_of(error)}
    sentence = _of_access(error, names) or _of_traffic(error, names) or _of_things(error, names) or _other(error)
    return f"{doing}: {sentence}" if doing else sentence


def _of_access(error: BaseException, names: set[str]) -> str | None:
    """Who asks, and whether they may."""
    if names & NO_CREDENTIALS:
        return f"There are no AWS credentials that work ({_text(error)}): {LOG_IN}."
    if names & EXPIRED:
        return f"The AWS credentials have expired: {LOG_IN}; what already runs on AWS goes on."
    if names & UNKNOWN:
        return f"AWS does not know these credentials ({_text(error)}): {LOG_IN}."
    if names & DENIED:
        action, resource = _denied(error)
        return f"These AWS credentials may not {action}{resource}: ask whoever manages the account to allow it."
    if "NoRegionError" in names:
        return "No AWS region is set: export AWS_REGION=us-east-1, say."
    if "InvalidRegionError" in names or "UnknownEndpointError" in names:
        return f"There is no such AWS region ({_text(error)}): correct AWS_REGION."
    return None


def _of_traffic(error: BaseException, names: set[str]) -> str | None:
    """Whether AWS can be reached and has room."""
    if names & SLOWER:
        return "AWS has too many requests of this account, after several tries too: wait a minute and try again."
    if names & {"ResourceLimitExceeded", "ServiceQuotaExceededException", "LimitExceededException"}:
        return _quota(error)
    if names & TROUBLE:
        return f"AWS has trouble of its own ({_text(error)}): try again in a few minutes."
    if names & UNREACHABLE:
        return (
            f"AWS cannot be reached ({_text(error)}): check the network, AWS_REGION and AWS_ENDPOINT_URL; "
            "what already runs on AWS goes on."
        )
    return None


def _of_things(error: BaseException, names: set[str]) -> str | None:
    """Buckets, images and roles that are not what the request takes them for."""
    text = _text(error)
    if "NoSuchBucket" in names:
        return "There is no such bucket: set BUCKET_NAME to one of yours, or deploy the stack and unset it."
    if names & ELSEWHERE:
        return f"The bucket is in another region ({text}): set AWS_REGION to the bucket's."
    if names & {"RepositoryNotFoundException", "ImageNotFoundException"} or _missing_image(text):
        return f"The training image is not there ({text}): build it as infrastructure/README.md says, or --image_uri."
    if "role" in text.lower() and ("assume" in text.lower() or "not valid" in text.lower()):
        return f"SageMaker cannot take the role ({text}): give --role_arn one that trusts sagemaker.amazonaws.com."
    return None


def _missing_image(text: str) -> bool:
    thing, gone = "(image|repository)", "(cannot (be )?find|cannot be found|not exist|not found|no such)"
    return bool(re.search(f"{thing}.*{gone}|{gone}.*{thing}", text, re.IGNORECASE))


def _denied(error: BaseException) -> tuple[str, str]:
    """What is not allowed, and on what: AWS says both in some sentences, the action's name in all."""
    said = re.search(r"not authorized to perform:? ([\w:-]+)(?:.*?on resource:? (\S+))?", str(error))
    if said:
        return said[1], f" on {said[2].rstrip('.,')}" if said[2] else ""
    operation: Any = getattr(error, "operation_name", None) or re.search(r"calling the (\w+)", str(error))
    return (operation if isinstance(operation, str) else operation[1] if operation else "do this"), ""


def _quota(error: BaseException) -> str:
    """The sentence for a quota, with its name and value where AWS says them."""
    said = re.search(r"service limit '([^']+)' is (\d+)", str(error))
    which = f"The quota '{said[1]}' of this account is {said[2]}" if said else f"A quota is used up ({_text(error)})"
    return f"{which}: ask for more in the Service Quotas console (SageMaker), or take another --instance_type."


def _other(error: BaseException) -> str:
    return f"AWS refused it ({code_of(error) or type(error).__name__}: {_text(error)})."


def _text(error: BaseException) -> str:
    """What AWS says, on one line and without a full stop, shortened."""
    answer = getattr(error, "response", None)
    said = answer.get("Error", {}).get("Message") if isinstance(answer, dict) else None
    line = " ".join(str(said or error).split()).rstrip(".")
    return line if len(line) <= 300 else line[:297] + "..."


def not_there(error: AwsError, job: str, region: str) -> AwsError:
    """The sentence for a job that does not exist in this region."""
    if error.code in NO_JOB:
        return AwsError(
            f"There is no job {job} in {region}: check its name, and set AWS_REGION to its region.", error.code
        )
    return error


def explain_end(said: Mapping[str, Any], job: str) -> str | None:
    """The sentence about a job that failed, or that a limit ended; None for others."""
    last, status = said.get("SecondaryStatus"), said.get("TrainingJobStatus")
    if last in ("MaxRuntimeExceeded", "MaxWaitTimeExceeded"):
        limit = "max_run" if last == "MaxRuntimeExceeded" else "max_wait, waiting for spot instances"
        return f"Job {job} reached {limit}: resume() goes on from its newest checkpoint."
    if status != "Failed":
        return None
    text = said.get("FailureReason", "").removeprefix("AlgorithmError: ").strip()
    text = re.sub(r",? exit code: -?\d+$", "", text).strip() or "it gave no reason: see its log()"
    text = text.splitlines()[0].rstrip(".")
    if "OutOfMemoryError" in text or "CUDA out of memory" in text:
        text = "the GPU has too little memory: add --gradient_checkpointing, use --mixed_precision bf16, lower "
        text += "--resolution or --rank, or take a larger --instance_type"
    if text.startswith(("CapacityError", "InternalServerError")):
        text += ": that is AWS's own trouble, resume() tries again"
    return f"Job {job} failed: {text}."
