"""Data sets of the hub that are folders of picture files without any table: a name in, a local folder out.

The library `datasets` reads such a repository as pictures alone; the texts beside them are lost. Its files are fetched
as they are, into the hub's own cache, where one that is there is not fetched again.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...config.layout import CLASS_RECORD
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..decoding import SUFFIXES
from .strangers import RUN_FILES
from .suffixes import CAPTIONS, LOOKED_AT, ending
from .tables import HUB_NAME, ask, explain

# what the library reads itself, or metadata that it reads beside pictures
TABLES = {".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".zip", ".tar", ".gz", ".tgz", ".zst", ".7z", ".rar", ".h5"}
# what is fetched: pictures and texts, in any letters, and the signs of what is no training picture
PATTERNS = [
    *("*" + "".join(f"[{sign}{sign.upper()}]" for sign in suffix) for suffix in (*LOOKED_AT, *CAPTIONS)),
    *(f"*{name}" for name in (*sorted(RUN_FILES), CLASS_RECORD)),
]


def snapshot_of(name: str, config: TrainConfig) -> Path | None:
    """The folder with the files of a repository of pictures, None for any other data set. Raises DataError."""
    from huggingface_hub import constants, snapshot_download

    if not HUB_NAME.fullmatch(name) or config.dataset_config_name:
        return None
    wanted: dict[str, Any] = {"repo_type": "dataset", "cache_dir": config.cache_dir, "allow_patterns": PATTERNS}
    if constants.HF_HUB_OFFLINE:
        try:
            folder = Path(snapshot_download(name, local_files_only=True, **wanted))
        except Exception:  # nothing of it is here: the library says so
            return None
        return folder if is_folder_of_pictures(path.name for path in folder.rglob("*")) else None
    names = ask(name, config.cache_dir)
    if names is None or not is_folder_of_pictures(names):
        return None
    try:
        return Path(snapshot_download(name, **wanted))
    except Exception as error:  # httpx's and huggingface_hub's own, by version; OSError
        raise DataError(explain(name, error)) from error


def is_folder_of_pictures(names: Iterable[str]) -> bool:
    """Whether files of these names are pictures, with or without texts, and hold no table or archive."""
    endings = set(map(ending, names))
    return not endings.isdisjoint(SUFFIXES) and endings.isdisjoint(TABLES)
