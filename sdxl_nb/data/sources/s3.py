"""Pictures in Amazon S3: "s3://bucket/prefix" in, a local folder with the same files out.

Objects are kept by key and ETag, so a second call downloads nothing and a changed object is fetched again; each
file appears whole or not at all. Credentials, region and AWS_ENDPOINT_URL are boto3's usual ones.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from ...system.errors import DataError
from ..decoding import SUFFIXES, UNREADABLE_SUFFIXES, first_line
from .suffixes import CAPTIONS

WANTED = (*SUFFIXES, *UNREADABLE_SUFFIXES, *CAPTIONS, ".jsonl", ".csv", ".parquet", ".arrow", ".json")


class Object(NamedTuple):
    """One object: its key, its path below the prefix, its ETag and size in bytes."""

    key: str
    name: str
    etag: str
    size: int


def download(url: str, cache_dir: str | None = None) -> Path:
    """The folder with the data files under an s3:// prefix; DataError says what to do when they cannot be had."""
    bucket, prefix = split_url(url)
    client = connect()
    cache = Path(cache_dir or Path.home() / ".cache" / "sdxl_nb").expanduser() / "s3"
    try:
        objects = list_objects(client, bucket, prefix)
        if not objects:
            raise DataError(f"There are no pictures or captions under {url}: check --train_data_dir.")
        folder = cache / digest(bucket, prefix, *(part for item in objects for part in (item.key, item.etag)))[:16]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(partial(place, client, bucket, cache / "objects", folder), objects))
    except (DataError, KeyboardInterrupt):
        raise
    except Exception as error:  # botocore's ClientError, NoCredentialsError, EndpointConnectionError, ...; OSError
        raise DataError(explain(url, error)) from error
    return folder


def split_url(url: str) -> tuple[str, str]:
    """("bucket", "prefix/") of s3://bucket/prefix; the prefix of a whole bucket is ""."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"'{url}' names no bucket: write it as s3://bucket/prefix.")
    return bucket, prefix.rstrip("/") + "/" if prefix.strip("/") else ""


def connect() -> Any:  # boto3 makes its clients' classes when it runs
    try:
        import boto3
    except ImportError as error:
        raise DataError("Reading s3:// needs boto3: pip install 'sdxl_nb[sagemaker]'.") from error
    return boto3.client("s3")


def list_objects(client: Any, bucket: str, prefix: str) -> list[Object]:
    """The data files under the prefix, sorted by key. Raises DataError for a key that would leave the folder."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = []
    for item in (item for page in pages for item in page.get("Contents", [])):
        name = item["Key"][len(prefix) :]
        if not name.lower().endswith(WANTED):
            continue
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
            raise DataError(f"s3://{bucket}/{item['Key']} would be saved outside its folder: rename the object.")
        found.append(Object(item["Key"], name, item["ETag"], item["Size"]))
    return sorted(found)


def place(client: Any, bucket: str, store: Path, folder: Path, item: Object) -> None:
    """Makes one object a file of the folder, fetching it unless it is there or in the store."""
    target = folder / item.name
    if target.is_file() and target.stat().st_size == item.size:
        return
    kept = store / digest(bucket, item.key, item.etag)
    if not kept.is_file():
        write_whole(kept, partial(client.download_fileobj, bucket, item.key))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(kept, target)
    except OSError:  # a file system without hard links
        write_whole(target, lambda file: shutil.copyfileobj(kept.open("rb"), file))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """A file that is complete or absent: written beside its place, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def digest(*parts: str) -> str:
    """A name for a sequence of texts; the separator cannot occur in keys, so no two sequences share one."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def explain(url: str, error: Exception) -> str:
    """The sentence for an S3 prefix that cannot be read."""
    kind, text = type(error).__name__, first_line(error)
    code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return f"There is no bucket for {url}: check --train_data_dir."
    if code in ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return f"These AWS credentials may not read {url} ({code}): it takes s3:ListBucket and s3:GetObject."
    if kind in ("NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound"):
        return f"There are no AWS credentials to read {url} ({text}): run `aws configure` or set AWS_PROFILE."
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ConnectionError"):
        return f"S3 cannot be reached for {url} ({text}): check the network or AWS_ENDPOINT_URL."
    return f"{url} cannot be downloaded ({kind}: {text})."
