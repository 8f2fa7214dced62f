"""What a job needs and this machine has: pictures and models, put in S3 under the hash of what they hold.

In: a TrainConfig and a bucket. Out: channels {name: s3:// prefix}, which SageMaker puts at /opt/ml/input/data/<name>,
and the settings with the job's paths in place of this machine's. The same files are uploaded once, whoever asks again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ..config.checks import is_data_file
from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .messages import explained
from .session import Session

INPUT = "/opt/ml/input/data"
CHANNELS = {  # setting: its channel, and the prefix of the bucket that its files go to
    "train_data_dir": ("train", "data"),
    "class_data_dir": ("class", "data"),
    "validation_data_dir": ("validation", "data"),
    "dataset_name": ("dataset", "data"),
    "pretrained_model_name_or_path": ("model", "models"),
    "pretrained_vae_model_name_or_path": ("vae", "models"),
}
PATHS = ("/", "./", "../", "~", ".")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


@dataclass(frozen=True)
class Staged:
    """`channels`: name to s3:// prefix; `paths`: setting to its path in the job; `uploads`: prefix to local folder."""

    channels: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, Path] = field(default_factory=dict)

    def moved(self, bucket: str, to: str) -> Staged:
        """The same with the uploads in another bucket."""

        def name(url: str) -> str:
            return url.replace(f"s3://{bucket}/", f"s3://{to}/", 1) if url in self.uploads else url

        channels = {channel: name(url) for channel, url in self.channels.items()}
        return Staged(channels, self.paths, {name(url): place for url, place in self.uploads.items()})


def plan(config: TrainConfig, bucket: str) -> Staged:
    """The channels of a configuration; reads files to hash them, sends nothing. Raises DataError."""
    staged = Staged()
    for name, (channel, top) in CHANNELS.items():
        value = getattr(config, name)
        if value is None:
            continue
        if value.startswith("s3://"):
            staged.channels[channel], staged.paths[name] = value, f"{INPUT}/{channel}"
        elif is_data_file(value) and Path(value).expanduser().is_file():
            raise DataError(
                f"{name} {value} lists folders of this machine, which a job does not have: put what is to be trained "
                "on into one folder, and give that."
            )
        elif (here := Path(value).expanduser()).exists():  # as the trainer does, which asks the hub for the rest
            target = f"s3://{bucket}/{top}/{digest(here)[:16]}/"
            staged.channels[channel], staged.uploads[target] = target, here
            staged.paths[name] = f"{INPUT}/{channel}" + (f"/{here.name}" if here.is_file() else "")
        elif name == "class_data_dir":  # none yet: the job draws the class pictures, beside its checkpoints
            staged.paths[name] = "/opt/ml/checkpoints/class"
        elif name.endswith("_dir") or value.startswith(PATHS):
            raise DataError(f"{name} {value} is not there: give a folder, an s3:// prefix or a hub id.")
    return staged


def files(place: Path) -> list[tuple[str, Path]]:
    """Names and paths of what is uploaded: no hidden files, no pickles. Raises DataError for a link that leads out."""
    if place.is_file():
        return [(place.name, place)]
    root, found = place.resolve(), []
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        name = path.relative_to(place).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or name.endswith(PICKLES):
            continue
        if not path.resolve().is_relative_to(root):
            raise DataError(
                f"{name} in {place.name} is a link that leads out of the folder: put the file itself there."
            )
        found.append((name, path))
    if not found:
        raise DataError(f"There are no files in {place}: check --train_data_dir.")
    return found


def digest(place: Path) -> str:
    """SHA-256 in hexadecimal over the names and contents of a file or folder, wherever it lies."""
    total = hashlib.sha256()
    for name, path in files(place):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _hashed(file)
        total.update(f"{name}\0{content.hexdigest()}\0".encode())
    return total.hexdigest()


def _hashed(file: BinaryIO) -> hashlib._Hash:
    content = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := file.read(1 << 20):
        content.update(block)
    return content


def upload(session: Session, staged: Staged, kms_key: str | None = None) -> int:
    """Send what is not there yet; returns the number of files sent. Raises AwsError."""
    return sum(_send(session.client("s3"), url, place, kms_key) for url, place in staged.uploads.items())


def _send(client: Any, url: str, place: Path, kms_key: str | None) -> int:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    secured = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    with explained(f"{place.name} was not uploaded"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        there = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
        missing = [
            (str(path), prefix + name)
            for name, path in files(place)
            if there.get(prefix + name) != os.path.getsize(path)
        ]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(partial(_put, client, bucket, secured), missing))
    return len(missing)


def _put(client: Any, bucket: str, secured: Mapping[str, str], item: tuple[str, str]) -> None:
    path, key = item
    client.upload_file(path, bucket, key, ExtraArgs=dict(secured) or None)
