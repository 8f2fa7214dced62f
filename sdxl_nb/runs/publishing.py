"""Publish the LoRA of a run on the hub.

    python -m sdxl_nb.hub OUTPUT_DIR [REPOSITORY]

In: a finished run folder. Out: a model repository with the two LoRA files, the model card and the pictures that the
card shows; never logs, checkpoints, events or the configuration. The token comes from HF_TOKEN or `hf auth login`.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ..config.layout import LORA
from ..config.train_config import TrainConfig
from ..models.sources import first_line
from ..system.errors import ConfigError, SdxlNbError
from ..system.hub import endpoint
from .events import EventLog

SHOWN = re.compile(r"\]\((validation/step-\d+/[\w-]+\.png)\)")  # a picture in the card


def push(config: TrainConfig, folder: Path) -> str:
    """Upload what a run made to `hub_model_id`, by default the run folder's name; returns the repository's address.

    Raises SdxlNbError that says that the LoRA is safe and how to upload it later.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    name = config.hub_model_id or repository_name(folder.resolve().name)
    try:
        api = HfApi()
        repository = api.create_repo(name, exist_ok=True)
        files = [CommitOperationAdd(file, folder / file) for file in published(config, folder)]
        api.create_commit(repository.repo_id, files, commit_message="Upload a LoRA trained with sdxl_nb")
    except Exception as error:  # httpx's, huggingface_hub's, OSError, ValueError: never worth the loss of a run
        raise SdxlNbError(
            f"The upload to {name} failed ({_reason(error)}), the LoRA is safe in {folder}: upload it later with "
            f"python -m sdxl_nb.hub {folder} {name}"
        ) from error
    return f"{endpoint()}/{repository.repo_id}"


def publish(config: TrainConfig, folder: Path, log: EventLog) -> None:
    """Push, and say to a run's EventLog how it went: a failed upload is a warning, the run itself is complete."""
    try:
        log.say(f"Uploaded to {push(config, folder)}.")
    except SdxlNbError as error:
        log.warn(str(error))


def published(config: TrainConfig, folder: Path) -> list[str]:
    """What leaves the run folder: the two LoRA files, the card, and the pictures that the card shows."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    pictures = sorted({name for name in SHOWN.findall(card) if (folder / name).is_file()})
    return [LORA, f"{config.lora_name()}.safetensors", "README.md", *pictures]


def repository_name(name: str) -> str:
    """A folder's name as the hub allows it: letters, digits, - _ . and at most 96 of them."""
    return re.sub(r"[^A-Za-z0-9_.-]+|-{2,}|\.{2,}", "-", name).strip("-.")[:96].strip("-.") or "sdxl-lora"


def _reason(error: Exception) -> str:
    """Why an upload failed, in a few words."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if status == 401:
        return "the hub does not accept the token: set HF_TOKEN to one that may write"
    if status == 403:
        return "the token may not write there"
    if kinds & {"ConnectError", "ConnectTimeout", "ConnectionError", "TransportError", "OfflineModeIsEnabled"}:
        return f"the hub at {endpoint()} cannot be reached"
    return first_line(error).rstrip(".:")


def main(argv: Sequence[str] | None = None) -> int:
    """Publish a finished run folder; an error is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sdxl_nb.hub", description="Publish the LoRA of a run on the hub.")
    parser.add_argument("folder", type=Path, help="output_dir of a finished run")
    parser.add_argument("repository", nargs="?", help="its name on the hub; the folder's name if not given")
    given = parser.parse_args(argv)
    try:
        print(f"Uploaded to {push(_config(given), given.folder)}")
    except SdxlNbError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _config(given: argparse.Namespace) -> TrainConfig:
    """The configuration of the run in the folder that is given; ConfigError where none is finished."""
    if not (given.folder / LORA).is_file() or not (given.folder / "config.json").is_file():
        raise ConfigError(f"{given.folder} holds no finished run: give the output_dir of one")
    config = TrainConfig.load(given.folder / "config.json")
    changes = {"hub_model_id": given.repository} if given.repository else {}
    return config.replace(push_to_hub=True, output_name=config.lora_name(), **changes)
