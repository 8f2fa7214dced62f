"""A run folder in S3, kept alike on this machine while SageMaker writes it there.

In: an s3:// prefix and a local folder. Out: the same files, each whole or absent; only what changed is fetched, by
ETag, also from a fresh kernel (`.mirror.json` remembers). What only the run's own machine needs stays in S3.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ..config.layout import DRAW, SAVE, whole
from ..data.sources.s3 import split_url, write_whole
from ..system.errors import DataError
from .messages import explained
from .session import Session

KNOWN = ".mirror.json"
LEFT = ("lock", "stop", DRAW, SAVE, "wandb")
LAST = ("events.jsonl", "run.json")  # they tell of the other files, so they come when those are there


class Mirror:
    """`fetch` brings what is new; `whole` are the steps of the checkpoints in S3. `url` is the run folder's prefix."""

    def __init__(self, session: Session, url: str, folder: Path):
        self.session, self.folder = session, folder
        self.bucket, self.prefix = split_url(url)
        known: object = None
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((folder / KNOWN).read_text(encoding="utf-8"))
        self.known: dict[str, str] = known if isinstance(known, dict) else {}
        self.whole: list[int] = []

    def fetch(self, lora_of: str | None = None) -> set[str]:
        """Bring what is new, of checkpoints only the named one's LoRA files; returns the names. Raises AwsError."""
        found = self.list()
        self.whole = whole(found)
        wanted = [name for name in found if self._wanted(name, lora_of)]
        new = [name for name in wanted if not self._has(name, found[name])]
        with explained(f"The run's files were not fetched from s3://{self.bucket}/{self.prefix}"):
            first = [name for name in new if name not in LAST]
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self._get, first))
            for name in (name for name in LAST if name in new):
                self._get(name)
        if new:
            self.known |= {name: found[name] for name in new}
            write_whole(self.folder / KNOWN, lambda file: file.write(json.dumps(self.known).encode()))
        return set(new)

    def list(self) -> dict[str, str]:
        """Names below the prefix and their ETags. Raises AwsError, DataError for a name that leads out."""
        client = self.session.client("s3")
        with explained(f"The run's files were not listed in s3://{self.bucket}/{self.prefix}"):
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            items = [item for page in pages for item in page.get("Contents", [])]
        found = {item["Key"][len(self.prefix) :]: item["ETag"] for item in items}
        for name in found:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise DataError(f"s3://{self.bucket}/{self.prefix}{name} would be saved outside its folder.")
        return {name: etag for name, etag in found.items() if name and not name.endswith("/")}

    def newest(self, start: str) -> Sequence[str]:
        """The JSON files of the prefix whose names begin so, the newest first. Raises AwsError."""
        client = self.session.client("s3")
        with explained(f"s3://{self.bucket}/{self.prefix} was not listed"):
            asked = {"Bucket": self.bucket, "Prefix": self.prefix + start, "Delimiter": "/"}
            pages = client.get_paginator("list_objects_v2").paginate(**asked)
            items = [item for page in pages for item in page.get("Contents", []) if item["Key"].endswith(".json")]
        return [item["Key"][len(self.prefix) :] for item in sorted(items, key=_age, reverse=True)]

    def read(self, name: str) -> dict[str, Any] | None:
        """The JSON object in a small file of the prefix; None where there is none. Raises AwsError."""
        client = self.session.client("s3")
        with explained(f"s3://{self.bucket}/{self.prefix}{name} was not read"):
            try:
                found = json.loads(client.get_object(Bucket=self.bucket, Key=self.prefix + name)["Body"].read())
            except client.exceptions.NoSuchKey:
                return None
            except ValueError:
                return None
        return found if isinstance(found, dict) else None

    def _wanted(self, name: str, lora_of: str | None) -> bool:
        first, last = name.split("/")[0], name.split("/")[-1]
        if first.startswith(".") or first in LEFT:
            return False
        if not first.startswith("checkpoint-"):
            return True
        return first == lora_of and last.endswith(".safetensors") and last != "state.safetensors"

    def _has(self, name: str, etag: str) -> bool:
        return self.known.get(name) == etag and (self.folder / name).is_file()

    def _get(self, name: str) -> None:
        client = self.session.client("s3")
        write_whole(self.folder / name, partial(client.download_fileobj, self.bucket, self.prefix + name))


def _age(item: dict[str, Any]) -> Any:
    return item["LastModified"]
