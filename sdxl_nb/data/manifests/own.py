"""Our own data file, YAML, TOML or JSON: a list of folders, and what is said of each.

    folders:
      - path: style            # relative to this file
        repeats: 2
        loss_weight: 0.5
        resolution: 768
      - path: portraits
        caption_prefix: a portrait of
        random_flip: yes
      - path: unseen
        held_out: yes

What stands beside `folders` holds for all of them that say nothing else. An unknown key is an error: it is a slip.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..folder_settings import SETTINGS, FolderSettings, Words
from .manifest import Manifest, amount, check_keys, folder_path, value, with_names

ALSO = {"flip": "random_flip"}  # other names
SHARED = ("repeats", "loss_weight", "held_out", "caption", "subfolders", *SETTINGS, *ALSO)
KEYS = ("path", "name", *SHARED)


def is_its_own(said: Any) -> bool:
    """Whether this is a data file of ours."""
    return isinstance(said, Mapping) and "folders" in said


def read(said: Any, file: Path, config: TrainConfig) -> Manifest:
    """The folders of our own data file. Raises DataError."""
    check_keys(said, ("folders", *SHARED), file.name)
    listed, shared = said["folders"], {key: said[key] for key in said if key != "folders"}
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{file.name} lists no folders: give each with its path under folders.")
    return Manifest(with_names([_folder(each, number, shared, file) for number, each in enumerate(listed, 1)]), [])


def _folder(said: Any, number: int, shared: Mapping[str, Any], file: Path) -> FolderSettings:
    place = f"folder {number} of {file.name}"
    said = {"path": said} if isinstance(said, str) else said
    if not isinstance(said, Mapping):
        raise DataError(f"{place} is {shown(said)}: give its path, or a group with a path in it.")
    check_keys(said, KEYS, place)
    path = value(said, "path", str, place)
    if not path:
        raise DataError(f"{place} has no path: add it, relative to the file.")
    said = {ALSO.get(key, key): each for key, each in {**shared, **said}.items()}
    place = f"folder {path} of {file.name}"
    return FolderSettings(
        folder_path(path, file, beside=True),
        value(said, "name", str, place, ""),
        {key: value(said, key, type(said[key]), place) for key in SETTINGS if key in said},
        repeats=amount(said, "repeats", int, place, 1, least=1),
        loss_weight=float(amount(said, "loss_weight", float, place, 1.0)),
        held_out=value(said, "held_out", bool, place, False),
        words=Words(missing=value(said, "caption", str, place)),
        subfolders=value(said, "subfolders", bool, place, True),
    )
