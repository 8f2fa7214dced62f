"""Data sets that are tables: from the hub, saved by save_to_disk, or parquet files. A name or folder in, a Listing out.

The image column stays encoded (decode=False): its bytes are read row by row, by pictures.decode and nothing else.
No data set's code is ever run.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ...system.hub import ANSWER_SECONDS
from ..captions import require_column
from ..decoding import SUFFIXES, PictureError, first_line
from .listing import CHUNK, Listing, TextColumn, file_stamp, text_column
from .tree import belongs, scan

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
    table = load(name, config.dataset_config_name, split="train", cache_dir=config.cache_dir)
    settings = datasets.config
    caches = [config.cache_dir, settings.HF_CACHE_HOME, settings.HF_DATASETS_CACHE, hub_cache()]
    return list_table(table, f"the data set {name}", [cache for cache in caches if cache], config)


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


def has_only_parquet(folder: Path) -> bool:
    """Whether the folder holds parquet files and no pictures beside them."""
    found = False
    for name in scan(folder):
        if name.endswith(SUFFIXES):
            return False
        found = found or (name.endswith(".parquet") and not name.startswith((".", "metadata.")))
    return found


def list_parquet(folder: Path, config: TrainConfig) -> Listing:
    """The Listing of a folder of parquet files: those named train, else all, unless they are named for other splits."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.parquet"))]
    chosen = [name for name in names if "train" in name.lower()]
    if not chosen and any(OTHER_SPLITS.search(name.lower()) for name in names):
        raise DataError(f"{folder} has no split 'train' (it has: {', '.join(names)}): add its parquet files.")
    files = []
    for path in (folder / name for name in chosen or names):
        if not belongs(Path(os.path.realpath(path)), folder):
            raise DataError(f"{path} leads out of {folder}: copy the file into the folder.")
        files.append(str(path))
    return list_table(load_parquet(folder, files, config), str(folder), [folder], config)


def load_parquet(folder: Path, files: list[str], config: TrainConfig) -> "Dataset":
    import datasets

    try:
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=config.cache_dir)
    except Exception as error:
        cause = first_line(error.__cause__ or error)
        raise DataError(f"The parquet files in {folder} cannot be read ({cause}): save them again.") from error


def list_table(table: "Dataset", source: str, roots: Sequence[str | Path], config: TrainConfig) -> Listing:
    """The Listing of a datasets.Dataset. `roots`: the folders in which paths of the image column may lie."""
    import datasets

    image_column, caption_column = config.columns()
    require_column(image_column, table.column_names, "--image_column", source)
    require_column(caption_column, table.column_names, "--caption_column", source)
    features = table.features
    if isinstance(features[image_column], datasets.Image):
        table = table.cast_column(image_column, datasets.Image(decode=False))
    elif not holds_pictures(features[image_column]):
        kind = describe(features[image_column])
        raise DataError(
            f"column '{image_column}' of {source} holds {kind}, not pictures: name another, --image_column."
        )
    captions, notes = read_captions(table, caption_column, source)
    rows = Rows(table.select_columns([image_column]), image_column, tuple(Path(root).resolve() for root in roots))
    names = text_column(f"row {row}" for row in range(len(captions)))
    return Listing(names, captions, rows.read, rows.stamp, notes=notes)


def holds_pictures(feature: Any) -> bool:
    """Whether a column that is not declared as pictures may hold them: bytes, paths, or {"bytes", "path"}."""
    if isinstance(feature, dict):
        return "bytes" in feature or "path" in feature
    return getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")


def describe(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def read_captions(table: "Dataset", column: str, source: str) -> tuple[pa.Array, list[str]]:
    """(Arrow column, notes): the texts; of lists of captions the first is used, and a note says so."""
    texts, lists = TextColumn(), False
    for value in column_values(table, column, source):
        if isinstance(value, list):
            lists, value = True, value[0] if value else None
        if value is not None and not isinstance(value, str):
            kind = describe(table.features[column])
            raise DataError(
                f"column '{column}' of {source} holds {kind}, not text: name another with --caption_column."
            )
        texts.append(value)
    return texts.finish(), [f"column '{column}' holds lists of captions; the first of each is used"] * lists


def column_values(table: "Dataset", column: str, source: str) -> Iterator[Any]:
    """The values of a column, some thousands at a time in memory. Raises DataError."""
    try:
        for chunk in table.with_format("arrow").select_columns([column])[:][column].chunks:
            for first in range(0, len(chunk), CHUNK):
                yield from chunk.slice(first, CHUNK).to_pylist()
    except Exception as error:  # pyarrow's own, UnicodeDecodeError
        raise DataError(
            f"column '{column}' of {source} cannot be read ({first_line(error)}): save it again."
        ) from error


@dataclass(frozen=True)
class Rows:
    """The pictures of a table: `read` and `stamp` of a Listing. `roots`: where files that rows name may lie."""

    table: "Dataset"
    column: str
    roots: tuple[Path, ...]

    def read(self, row: int) -> bytes:
        """The encoded bytes, from the table or from the file that it names inside one of `roots`."""
        value, path = self.value(row)
        return self.find(row, path).read_bytes() if value is None else value

    def value(self, row: int) -> tuple[bytes | None, str | None]:
        """(bytes or None, path or None) as the table holds them."""
        value = self.table[row][self.column]
        if isinstance(value, dict):
            return value.get("bytes"), value.get("path")
        return (None, value) if isinstance(value, str) else (value, None)

    def find(self, row: int, path: str | None) -> Path:
        """The file that a row names. Raises PictureError."""
        if not path:
            raise PictureError(f"row {row} has no picture in column '{self.column}': remove the row.")
        if "\0" in path:
            raise PictureError(f"row {row} names {shown(path)}, which no file can be called: correct it.")
        for root in self.roots:
            if belongs(Path(os.path.realpath(root / path)), root):
                return root / path
        raise PictureError(
            f"row {row} names '{path}', which leads out of the data set's folder: copy the file into it."
        )

    def stamp(self, row: int) -> str | None:
        """The stamp of the file that a row names, else of the table's files, with the row."""
        value, path = self.value(row)
        if value is None:
            try:
                return file_stamp(self.find(row, path))
            except PictureError:
                return None
        files = self.file_stamps
        return f"{files} {row}" if files else None

    @cached_property
    def file_stamps(self) -> str | None:
        """One text for all files of the table; None for a table in memory, or where rows are not those of files."""
        files = self.table.cache_files
        stamps = [stamp for file in files if (stamp := file_stamp(file["filename"])) is not None]
        if not files or len(stamps) < len(files) or self.table._indices is not None:
            return None
        return hashlib.sha256("\n".join(stamps).encode()).hexdigest()
