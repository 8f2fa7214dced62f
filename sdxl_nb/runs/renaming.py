"""A run that goes on under another name: what becomes of the LoRA file that has the old one.

In: a run folder as the last run of it left it, and the configuration that goes on. Out: the file under the name that
the run has now, and what is said of it. Nothing is deleted, and no file that was named by a person is moved.
"""

import json
from pathlib import Path
from typing import Any

from ..config.header import CONFIG_KEY, opened
from ..config.train_config import TrainConfig
from ..system.errors import ModelError

TAIL = len("-01234567")  # after the name in a run's id


def follow(folder: Path, config: TrainConfig) -> list[str]:
    """Move this run's kohya file to the name that its renamed folder gives it; returns what there is to say."""
    name = str(_stored(folder / "run.json").get("id", ""))[:-TAIL]
    old, new = folder / f"{name}.safetensors", folder / f"{config.lora_name()}.safetensors"
    if not name or Path(name).name != name or old.name == new.name or old.is_symlink() or not old.is_file():
        return []
    if config.output_name is not None or _stored(folder / "config.json").get("output_name") is not None:
        return [f"{old.name} stays as it is: this run's LoRA file is {new.name} now."]
    if new.exists() or not _is_ours(old, name):
        return [f"{old.name}, called as the folder was, stays as it is: this run's LoRA file is {new.name} now."]
    old.rename(new)
    return [f"The LoRA file {old.name} is called {new.name} now, as its folder is."]


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _is_ours(path: Path, name: str) -> bool:
    """Whether a run wrote the file under this name, by its header."""
    try:
        with opened(path, path.name) as file:
            header = file.metadata() or {}
    except ModelError:
        return False
    return CONFIG_KEY in header and header.get("ss_output_name") == name
