"""What a job needs and this machine has: pictures and models, put in S3 under the hash of what they hold.

In: a TrainConfig and a bucket. Out: channels {name: s3:// prefix}, which SageMaker puts at /opt/ml/input/data/<name>,
the settings with the job's paths in place of this machine's, and what each place holds (`look` asks S3 and the hub).
The same files are uploaded once, whoever asks again. A prefix is a folder and ends with a slash: SageMaker would bring
every key that begins like it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from ..config.checks import DATA_FILES, is_data_file
from ..config.train_config import TrainConfig
from ..data.decoding import SUFFIXES
from ..data.sources.s3 import split_url
from ..system.errors import DataError
from .identity import content
from .identity.content import CHANNELS, CLASS, Content
from .messages import AwsError, explained
from .session import Session

INPUT = "/opt/ml/input/data"
PATHS = ("/", "./", "../", "~", ".")
ELSEWHERE = (
    r"[sS]3[an]?://([\w.-]+)/?(.*)$",
    r"arn:aws[a-z-]*:s3:::([\w.-]+)/?(.*?)\*?$",
    r"https://s3[.-][\w.-]*amazonaws\.com(?:\.cn)?/([\w.-]+)/?([^?]*)",
    r"https://([\w.-]+)\.s3[.-][\w.-]*amazonaws\.com(?:\.cn)?/?([^?]*)",
)
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")


@dataclass(frozen=True)
class Staged:
    """`channels`: name to s3:// prefix; `paths`: setting to its path in the job; `uploads`: prefix to local folder.

    `contents`: what is known to lie there, by channel, and by the setting's channel name what a hub id holds; `hub`:
    these ids by the same names; `pictures`: how many there are in S3, by channel.
    """

    channels: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, Path] = field(default_factory=dict)
    contents: dict[str, Content] = field(default_factory=dict)
    hub: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)

    def moved(self, bucket: str, to: str) -> Staged:
        """The same with the uploads in another bucket."""

        def name(url: str) -> str:
            return url.replace(f"s3://{bucket}/", f"s3://{to}/", 1) if url in self.uploads else url

        channels = {channel: name(url) for channel, url in self.channels.items()}
        return replace(self, channels=channels, uploads={name(url): place for url, place in self.uploads.items()})

    def told(self) -> str:
        """The text about what lies where, which goes into the job; empty where nothing is known."""
        places = self.hub | self.channels
        return content.told({name: (places[name], found) for name, found in sorted(self.contents.items())})


def plan(config: TrainConfig, bucket: str) -> Staged:
    """The channels of a configuration; reads files to hash them, sends nothing. Raises DataError."""
    staged = Staged()
    if config.base_lora:
        raise DataError(
            "base_lora names files of this machine, which a job does not have: put them into the base (python -m "
            "sdxl_nb.lora fuse), and give that as pretrained_model_name_or_path."
        )
    for name, (channel, top) in CHANNELS.items():
        value = getattr(config, name)
        if value is None:
            continue
        if value.startswith("s3://"):
            place_in_s3(staged, name, value)
        elif is_data_file(value) and Path(value).expanduser().is_file():
            raise DataError(
                f"{name} {value} lists folders of this machine, which a job does not have: put what is to be trained "
                "on into one folder, and give that."
            )
        elif (here := Path(value).expanduser()).exists():  # as the trainer does, which asks the hub for the rest
            staged.contents[channel] = content.of_files(files(here))
            target = f"s3://{bucket}/{top}/{_named(staged.contents[channel])}/"
            staged.channels[channel], staged.uploads[target] = target, here
            staged.paths[name] = f"{INPUT}/{channel}" + (f"/{here.name}" if here.is_file() else "")
        elif name == "class_data_dir":  # none yet: the job draws the class pictures, beside its checkpoints
            staged.paths[name] = CLASS
        elif name == "lora_weights":
            raise DataError(f"{name} {value} is not there: give a LoRA file, a run folder or an s3:// place.")
        elif place := in_s3(value):
            raise DataError(f"{name} {value} is a place in S3: write it as {place}.")
        elif name.endswith("_dir") or value.startswith(PATHS):
            raise DataError(f"{name} {value} is not there: give a folder, an s3:// prefix or a hub id.")
    return staged


def in_s3(text: str) -> str | None:
    """The s3:// address of a place in S3 that is written in another way, as consoles and other programs do; else None.

    s3a://BUCKET/KEY, S3://BUCKET/KEY, arn:aws:s3:::BUCKET/KEY, https://BUCKET.s3.REGION.amazonaws.com/KEY, and the
    console's own page of a bucket.
    """
    page = re.match(r"https://[\w.-]*console\.aws\.amazon\.com/s3/(?:buckets|object)/([\w.-]+)(?:\?(.*))?$", text)
    if page:
        prefix = parse_qs(page[2] or "").get("prefix", [""])[0]
        return f"s3://{page[1]}/{prefix}"
    for pattern in ELSEWHERE:
        if found := re.match(pattern, text):
            return f"s3://{found[1]}/{unquote(found[2]) if text.startswith('http') else found[2]}"
    return None


def place_in_s3(staged: Staged, name: str, url: str, single: bool | None = None) -> None:
    """Make an s3:// place the channel of a setting: one object as a file, anything else as a folder.

    `single` says which of them it is; unknown, its name tells. Raises DataError for what no job can train on.
    """
    channel, _ = CHANNELS[name]
    bucket, prefix = split_url(url)
    key = prefix.rstrip("/")
    last = key.rpartition("/")[2]
    if key.endswith(PICKLES) and not url.endswith("/"):
        raise DataError(f"{name} {url} is a pickle, which can run code and is never read: give a .safetensors file.")
    if key.lower().endswith(SUFFIXES) and not url.endswith("/") and CHANNELS[name][1] == "data":
        raise DataError(f"{name} {url} is one picture: give the prefix of its folder, which ends with a slash.")
    if key.lower().endswith(DATA_FILES) and not url.endswith("/") and CHANNELS[name][1] == "data":
        raise DataError(f"{name} {url} is a list, and a job gets that file alone: give the prefix of its folder.")
    if key.endswith(content.FILE) and not url.endswith("/") if single is None else single:
        staged.channels[channel], staged.paths[name] = f"s3://{bucket}/{key}", f"{INPUT}/{channel}/{last}"
    else:
        staged.channels[channel], staged.paths[name] = f"s3://{bucket}/{prefix}", f"{INPUT}/{channel}"


def look(session: Session, config: TrainConfig, staged: Staged, *, hub: bool = False) -> tuple[Staged, list[str]]:
    """What the s3:// places hold, and with `hub` the repositories; and a sentence for each that did not say.

    Raises DataError for a place with nothing in it, and AwsError for a bucket that does not exist.
    """
    staged = replace(
        staged,
        channels={**staged.channels},
        paths={**staged.paths},
        contents={**staged.contents},
        hub={**staged.hub},
        pictures={**staged.pictures},
    )
    notes: list[str] = []
    for name, (channel, _) in CHANNELS.items():
        url = staged.channels.get(channel)
        if name in staged.paths and url is not None and url not in staged.uploads:
            notes += _look_in_s3(session, staged, name, url)
        elif hub and (repository := content.hub_id(config, name)):
            found = content.of_hub(config, name)
            if found is None:
                notes.append(f"What {repository} holds is not known here, the hub does not say: only its name counts.")
            else:
                staged.contents[channel], staged.hub[channel] = found, repository
    return staged, notes


def _look_in_s3(session: Session, staged: Staged, name: str, url: str) -> list[str]:
    """Put what lies at a place into `staged`; what is to be said of it."""
    channel = CHANNELS[name][0]
    try:
        listed = content.of_url(session, url)
    except AwsError as error:
        if error.code == "NoSuchBucket":
            raise
        return [f"What {url} holds is not known here: {error}"]
    place_in_s3(staged, name, listed.url, listed.single)
    staged.contents[channel], staged.pictures[channel] = listed.content, listed.pictures
    beside = f"{listed.beside} other objects whose keys begin like that of {listed.url} come along, and are not used."
    return [beside] if listed.beside else []


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
    return content.of_files(files(place)).bytes.removeprefix("sha256:")


def _named(found: Content) -> str:
    return found.bytes.removeprefix("sha256:")[:16]


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
