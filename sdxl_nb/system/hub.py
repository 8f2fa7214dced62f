"""The hub of models and data sets that this machine asks: where it is, and how long it is waited for."""

import os

ANSWER_SECONDS = 10  # a hub that has not answered by then is down


def endpoint() -> str:
    """Its address, without a final slash; HF_ENDPOINT names another."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
