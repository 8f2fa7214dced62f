"""Data sets that are tables: from the hub, saved by save_to_disk, or parquet files. A name or folder in, a Listing out.

The image column stays encoded (decode=False): its bytes are read row by row, by pictures.decode and nothing else.
No data set's code is ever run.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ...system.hub import ANSWER_SECONDS
from ..decoding import first_line
from .archives.archives import list_archives
from .folders.tree import inside
from .listing import Listing
from .rows import list_table, packed

if TYPE_CHECKING:
    from datasets import Dataset

UNREACHABLE = {"ConnectionError", "ConnectTimeout", "TransportError", "TimeoutException"}
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
OTHER_SPLITS = re.compile(r"(^|[^a-z])(test|validation|valid|val|dev|eval)([^a-z]|$)")


def list_hub(name: str, config: TrainConfig) -> Listing:
    """The Listing of the training split of a data set on the hub (or in its cache, with HF_HUB_OFFLINE=1)."""
    if not HUB_NAME.fullmatch(name):
        raise DataError(f"'{name}' is not the name of a data set on the hub (owner/name): check --dataset_name.")
    import datasets

    ask(name, config.cache_dir)
    try:
        table = load(name, config.dataset_config_name, split="train", cache_dir=config.cache_dir)
    except DataError as error:
        if "WebDataset format" not in str(error):
            raise
        return list_archives(fetch_tars(name, config.cache_dir), config)  # which need not have the same files for each
    settings = datasets.config
    caches = [config.cache_dir, settings.HF_CACHE_HOME, settings.HF_DATASETS_CACHE, hub_cache()]
    roots = [cache for cache in caches if cache]
    if archives := packed(table, roots, config):
        return list_archives(archives, config)
    return list_table(table, f"the data set {name}", roots, config)


def ask(name: str, cache_dir: str | None) -> list[str] | None:
    """The names of the files of a data set, None where the hub does not tell.

    Raises DataError when it does not answer at once and nothing of the data set is here: its own client would ask again
    and again, with a warning each time, for half a minute.
    """
    from datasets import config
    from huggingface_hub import HfApi, constants

    kept = Path(cache_dir or config.HF_DATASETS_CACHE) / name.replace("/", "___")  # as datasets names its folders
    if constants.HF_HUB_OFFLINE:
        return None
    try:
        told = HfApi().dataset_info(name, timeout=ANSWER_SECONDS)
        return [file.rfilename for file in told.siblings or ()]
    except Exception as error:  # httpx's and huggingface_hub's own, by version
        if {kind.__name__ for kind in type(error).__mro__} & UNREACHABLE and not kept.is_dir():
            raise DataError(explain(name, error)) from error  # of all else `load` knows more
        return None


def fetch_tars(name: str, cache_dir: str | None) -> list[str]:
    """The tar files of a data set on the hub that are for training, in its client's cache."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.tar", cache_dir=cache_dir))
    except Exception as error:  # httpx's and huggingface_hub's own, by version
        raise DataError(explain(name, error)) from error
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tar"))
    return [str(folder / each) for each in for_training(names, folder)]


def hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def load(name: str, *arguments: Any, **options: Any) -> "Dataset":
    """datasets.load_dataset, whatever it raises told as one sentence."""
    import datasets

    try:
        return datasets.load_dataset(name, *arguments, **options)
    except Exception as error:  # every layer below has its own: httpx, huggingface_hub, datasets, pyarrow, OSError
        raise DataError(explain(name, error)) from error


def explain(name: str, error: Exception) -> str:
    """The sentence for a data set that cannot be loaded: what is wrong, and what to do."""
    kinds, text = {kind.__name__ for kind in type(error).__mro__}, first_line(error)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if "OfflineModeIsEnabled" in f"{kinds}{text}":
        return f"The data set {name} is not in the cache, and HF_HUB_OFFLINE=1 forbids to fetch it: unset it once."
    if kinds & UNREACHABLE:
        return (
            f"The data set {name} cannot be fetched, because the hub at {endpoint} cannot be reached: check "
            "the network or HF_ENDPOINT, set HF_HUB_OFFLINE=1 to use the cache, or give a folder with --train_data_dir."
        )
    if "gated" in text:
        return f"The data set {name} is gated: ask for access on its page at {endpoint}, then set HF_TOKEN."
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return f"There is no data set {name} at {endpoint}: check --dataset_name, or set HF_TOKEN if it is private."
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return f"The data set {name} needs code of its own to load, which is never run: use a version saved as parquet."
    if "Unknown split" in text:
        return f"The data set {name} has no split 'train' ({text})."
    if "onfig name is missing" in text or "BuilderConfig" in text:
        return f"The data set {name} has several configurations; name one with --dataset_config_name ({known(error)})."
    return f"The data set {name} cannot be loaded ({type(error).__name__}: {text}): check --dataset_name."


def known(error: Exception) -> str:
    """The configurations that an error of datasets lists in brackets, as text."""
    listed = re.search(r"\[(.*?)\]", str(error), re.DOTALL)
    return listed[1].replace("'", "") if listed else first_line(error)


def is_saved(folder: Path) -> bool:
    """Whether the folder was written by datasets' save_to_disk."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def list_saved(folder: Path, config: TrainConfig) -> Listing:
    """The Listing of a folder written by save_to_disk: a data set, or several splits of which "train" is used."""
    import datasets

    try:
        table = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise DataError(f"{folder} cannot be read as a saved data set ({first_line(error)}): save it again.") from error
    if isinstance(table, dict):
        if "train" not in table:
            raise DataError(f"{folder} has no split 'train' (it has: {', '.join(table)}): point to one of its folders.")
        table = table["train"]
    return list_table(table, str(folder), [folder], config)


def list_parquet(folder: Path, names: Sequence[str], config: TrainConfig) -> Listing:
    """The Listing of the parquet files of these names in a folder: those of `for_training`."""
    chosen = for_training(names, folder)
    files = [str(folder / name) for name in chosen if inside(folder, name, "the folder")]
    roots = dict.fromkeys([folder, *(Path(file).parent for file in files)])
    return list_table(load_parquet(folder, files, config), str(folder), list(roots), config)


def for_training(names: Sequence[str], folder: Path) -> list[str]:
    """The files named train, else all. Raises DataError when they are named for other splits."""
    chosen = [name for name in names if "train" in name.lower()]
    if not chosen and any(OTHER_SPLITS.search(name.lower()) for name in names):
        kind = os.path.splitext(names[0])[1].removeprefix(".")
        raise DataError(f"{folder} has no split 'train' (it has: {', '.join(names)}): add its {kind} files.")
    return chosen or list(names)


def load_parquet(folder: Path, files: list[str], config: TrainConfig) -> "Dataset":
    import datasets

    try:
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=config.cache_dir)
    except Exception as error:
        cause = first_line(error.__cause__ or error)
        raise DataError(f"The parquet files in {folder} cannot be read ({cause}): save them again.") from error
