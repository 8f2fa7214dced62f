"""What the places of a job hold: pictures and models by their content, wherever they lie.

In: a file or folder here, an s3:// folder or object, a hub id. Out: a Content. What is found at a job's start goes into
it as a short text (`told`, `heard`), so that other bytes are another job for SageMaker's cache; the container looks at
what came, names its run folder by that, and compares the two. Nothing here decides what to do about a difference.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ...config.train_config import TrainConfig
from ...data.decoding import SUFFIXES
from ...data.sources.s3 import split_url
from ...system.errors import DataError
from ...system.hub import ANSWER_SECONDS, endpoint
from ..messages import explained
from ..session import Session

CHANNELS = {  # setting: its channel, and the prefix of the bucket that its files go to
    "train_data_dir": ("train", "data"),
    "class_data_dir": ("class", "data"),
    "validation_data_dir": ("validation", "data"),
    "slider_negative_dir": ("opposites", "data"),
    "dataset_name": ("dataset", "data"),
    "pretrained_model_name_or_path": ("model", "models"),
    "pretrained_vae_model_name_or_path": ("vae", "models"),
    "lora_weights": ("lora", "models"),
}
CLASS = "/opt/ml/checkpoints/class"  # where a job draws class pictures
VARIABLE, PLACE = "SDXL_NB_CONTENT", "SDXL_NB_PLACE_"  # of the job: what was found at its start; where, by channel
SHORT = 10  # hexadecimal digits of each hash in a text: seven of them fit into the 512 characters of a variable
SAID = ("README.md", ".gitattributes", ".gitignore")  # of a hub repository: other words about the same weights
FILE = (".safetensors",)  # how an object is called that is one model


class Content(NamedTuple):
    """How many files, of how many bytes; a hash of their names and sizes, and one of their bytes.

    `names` is the same wherever the files lie. `bytes` says by what it tells them: sha256 of the bytes themselves, etag
    of S3's marks, hub of the repository's.
    """

    files: int
    size: int
    names: str
    bytes: str

    def tells(self, other: Content) -> bool:
        """Whether the other is the same, as far as both can say."""
        ours, theirs = self.bytes.partition(":"), other.bytes.partition(":")
        return self[:3] == other[:3] and (ours[0] != theirs[0] or _alike(ours[2], theirs[2]))


def _alike(one: str, other: str) -> bool:
    """Whether two hashes are the same, one perhaps cut short."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def of_files(files: Iterable[tuple[str, Path]]) -> Content:
    """The Content of files by their names (in order) and paths; reads them all."""
    listed = list(files)
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(_sha256, (path for _, path in listed)))
    sizes = [(name, path.stat().st_size) for name, path in listed]
    return _content(sizes, "sha256", ((name, told) for (name, _), told in zip(listed, hashes, strict=True)))


def of_place(place: Path) -> Content | None:
    """The Content of a file, or of all files of a folder; None where there is nothing."""
    if place.is_file():
        return of_files([(place.name, place)])
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    return of_files((path.relative_to(place).as_posix(), path) for path in paths) if paths else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hashed(file)


def _hashed(file: BinaryIO) -> str:
    content = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := file.read(1 << 20):
        content.update(block)
    return content.hexdigest()


def _content(sizes: list[tuple[str, int]], kind: str, marks: Iterable[tuple[str, str]]) -> Content:
    """The Content of names with sizes, and with what tells their bytes."""
    names = _digest(f"{name}\0{size}\0" for name, size in sorted(sizes))
    told = _digest(f"{name}\0{mark}\0" for name, mark in marks)
    return Content(len(sizes), sum(size for _, size in sizes), names[:SHORT], f"{kind}:{told}")


def _digest(parts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(part.encode(errors="surrogateescape"))
    return total.hexdigest()


# In S3


class Listed(NamedTuple):
    """What lies at an s3:// place: its URL as a job takes it, whether that is one object, the Content, how many
    objects come along because their keys begin with its key, and how many are pictures."""

    url: str
    single: bool
    content: Content
    beside: int
    pictures: int = 0


def of_url(session: Session, url: str) -> Listed:
    """What lies at an s3:// place, listed and not read. Raises DataError where that is nothing, AwsError."""
    bucket, folder = split_url(url)
    key = folder.rstrip("/")
    with explained(f"{url} was not listed"):
        pages = session.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key or folder)
        found = {item["Key"]: item for page in pages for item in page.get("Contents", [])}
    inside = sorted(name for name in found if name.startswith(folder) and not name.endswith("/"))
    if key in found and (key.endswith(FILE) or not inside):
        return Listed(f"s3://{bucket}/{key}", True, _marked([key], key.rpartition("/")[0], found), len(found) - 1)
    if not inside:
        raise DataError(f"There is nothing at {url}: give the prefix of a folder in S3, or the key of a file.")
    pictures = sum(name.lower().endswith(SUFFIXES) for name in inside)
    return Listed(f"s3://{bucket}/{folder}", False, _marked(inside, folder.rstrip("/"), found), 0, pictures)


def _marked(keys: list[str], parent: str, found: Mapping[str, Any]) -> Content:
    """The Content of listed objects, named from a folder's key on."""
    start = len(parent) + 1 if parent else 0
    named = sorted((key[start:], found[key]) for key in keys)
    sizes = [(name, item["Size"]) for name, item in named]
    return _content(sizes, "etag", ((name, f"{item['ETag']} {item['Size']}") for name, item in named))


def unlisted() -> Content:
    """The Content of a place that may not be looked at: like no other, and nothing that could be compared."""
    return Content(0, 0, "-", f"unlisted:{secrets.token_hex(6)}")


# On the hub


HUB = {  # setting: the kind of repository that it may name
    "dataset_name": "dataset",
    "pretrained_model_name_or_path": "model",
    "pretrained_vae_model_name_or_path": "model",
}


def hub_id(config: TrainConfig, setting: str) -> str | None:
    """The hub id in a setting, with its revision; None where it has none, or a place."""
    value = getattr(config, setting) if setting in HUB else None
    if value is None or "://" in value or value.startswith(("embedded:", "/", ".", "~")) or Path(value).exists():
        return None
    if setting == "dataset_name" and config.train_data_dir:
        return None
    return f"{value}@{revision}" if (revision := _revision(config, setting)) else value


def _revision(config: TrainConfig, setting: str) -> str | None:
    return config.revision if setting == "pretrained_model_name_or_path" else None


def of_hub(config: TrainConfig, setting: str) -> Content | None:
    """What the repository in a setting holds, but for words about it; None where the hub does not answer."""
    with contextlib.suppress(Exception):  # offline, private, gated, gone: whoever needs it says so
        from huggingface_hub import HfApi

        said: Any = HfApi(endpoint=endpoint()).repo_info(
            getattr(config, setting),
            repo_type=HUB[setting],
            revision=_revision(config, setting),
            timeout=ANSWER_SECONDS,
            files_metadata=True,
        )
        files = sorted((f for f in said.siblings or [] if f.rfilename not in SAID), key=lambda f: f.rfilename)
        marks = [(file.rfilename, file.lfs.sha256 if file.lfs else file.blob_id) for file in files]
        if not files or not all(mark for _, mark in marks):  # a hub that does not say: the commit tells it too
            marks = [("commit", said.sha)]
        return _content([(file.rfilename, file.size or 0) for file in files], "hub", marks)
    return None


# As a text in a job


def told(found: Mapping[str, tuple[str, Content]]) -> str:
    """The text for a job: for each channel or hub setting where it is and what was found there."""
    values = {name: _said(place, content) for name, (place, content) in found.items()}
    return json.dumps(values, separators=(",", ":"), sort_keys=True) if values else ""


def _said(place: str, content: Content) -> str:
    kind, _, mark = content.bytes.partition(":")
    return f"{short(place)} {content.files} {content.size} {content.names} {kind}:{mark[:SHORT]}"


def heard(text: str) -> dict[str, tuple[str, Content]]:
    """The inverse of `told`, places as `short`; what is no such text is left out."""
    found = {}
    with contextlib.suppress(ValueError, AttributeError):
        for name, value in json.loads(text or "{}").items():
            with contextlib.suppress(ValueError, AttributeError):
                place, files, size, names, mark = value.split(" ")
                found[name] = place, Content(int(files), int(size), names, mark)
    return found


def short(place: str) -> str:
    """A place in a few digits."""
    return hashlib.sha256(place.encode()).hexdigest()[:SHORT]
