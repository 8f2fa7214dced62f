"""A LoRA of SageMaker's model registry, fetched: by its group, the newest version, or by a version's ARN.

In: a name and a folder. Out: a LoraFile; beside it lie its card, its settings and the pictures that it drew. Only plain
files that a job delivers are unpacked, and never outside the folder.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...data.sources.s3 import split_url
from ...system.errors import DataError
from ..messages import AwsError, explained
from ..session import Session

if TYPE_CHECKING:
    from ...lora.files.file import LoraFile

KINDS = (".safetensors", ".json", ".md", ".png")  # what a job delivers


def registered_lora(
    name: str, folder: str | Path | None = None, *, approved: bool = False, region: str | None = None
) -> LoraFile:
    """The newest version of a model package group, or the version of an ARN, fetched to `folder`.

    approved: only versions that somebody has approved. By default it comes to loras/GROUP-VERSION.
    Raises AwsError where there is none, DataError for an archive that holds no LoRA.
    """
    from ...lora.files.file import LoraFile

    session = Session(name.split(":")[3] if name.startswith("arn:") else region)
    arn = name if ":model-package/" in name else _newest(session, name.rpartition("/")[2], approved)
    with explained(f"{arn} was not looked at"):
        said = session.client("sagemaker").describe_model_package(ModelPackageName=arn)
    url = said["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]
    group = said.get("ModelPackageGroupName", "lora")
    target = Path(folder or Path("loras") / f"{group}-{said.get('ModelPackageVersion', 1)}")
    with tempfile.TemporaryDirectory(prefix="sdxl-nb-") as scratch:
        archive = Path(scratch) / "model.tar.gz"
        bucket, key = _place(url)
        with explained(f"{url} was not fetched"):
            session.client("s3").download_file(bucket, key, str(archive))
        _unpack(archive, target)
    return LoraFile(target)


def _newest(session: Session, group: str, approved: bool) -> str:
    wanted: dict[str, Any] = {"ModelPackageGroupName": group, "SortBy": "CreationTime", "SortOrder": "Descending"}
    if approved:
        wanted["ModelApprovalStatus"] = "Approved"
    with explained(f"The versions of {group} were not listed"):
        found = session.client("sagemaker").list_model_packages(**wanted)["ModelPackageSummaryList"]
    if not found:
        kind = "approved version" if approved else "version"
        raise AwsError(f"The registry holds no {kind} of {group} in {session.region}: check its name and AWS_REGION.")
    newest = max(found, key=lambda package: package.get("ModelPackageVersion", 0))
    return str(newest["ModelPackageArn"])


def _place(url: str) -> tuple[str, str]:
    bucket, key = split_url(url)
    return bucket, key.rstrip("/")


def _unpack(archive: Path, folder: Path) -> None:
    """The plain files of a model.tar.gz. Raises DataError for a name that leads out of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as opened:
        for member in opened:
            path = PurePosixPath(member.name)
            if not member.isfile() or path.suffix not in KINDS:
                continue
            if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", member.name):
                raise DataError(
                    f"{member.name} in the registered archive would be saved outside {folder}: not unpacked."
                )
            source, target = opened.extractfile(member), folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if source is not None:
                with source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
