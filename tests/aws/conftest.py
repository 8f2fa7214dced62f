"""What tests of AWS run under: what never changes is read once, not by each session and each call anew."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from jsonschema import Draft202012Validator

NOBODY = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "AWS_SHARED_CREDENTIALS_FILE": "none"}
NAMES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "BUCKET_NAME", "SDXL_NB_ROLE_ARN", "HF_ENDPOINT")


@pytest.fixture(autouse=True, scope="session")
def _constants_are_read_once() -> Iterator[None]:
    """boto3's descriptions of services, 30 MB a session, and SageMaker's check of its schema, 3 s a pipeline."""
    read, check = JSONFileLoader.load_file, Draft202012Validator.check_schema
    loader, checked = JSONFileLoader(), {}

    def check_once(schema: Any, *rest: Any, **named: Any) -> None:
        if id(schema) not in checked:
            check(schema, *rest, **named)
            checked[id(schema)] = schema  # kept, so that no other gets its id

    once = functools.cache(lambda path: read(loader, path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: once(path))
        patch.setattr(Draft202012Validator, "check_schema", check_once)
        yield


@pytest.fixture
def nobody(monkeypatch):
    """No region, no credentials, no bucket."""
    for name in (*NAMES, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in NOBODY.items():
        monkeypatch.setenv(name, value)
