"""Data sets that are tables: from the hub, saved by save_to_disk, or parquet files. A name or folder in, a Listing out.

The image column stays encoded (decode=False): its bytes are read row by row, by pictures.decode and nothing else.
No data set's code is ever run.
"""

import os
import re
from functools import partial
from pathlib import Path

from .captions import require_column
from .complaints import shown
from .errors import DataError
from .pictures import SUFFIXES, Entry, Listing, PictureError, first_line

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
OTHER_SPLITS = re.compile(r"(^|[^a-z])(test|validation|valid|val|dev|eval)([^a-z]|$)")


def list_hub(name, config):
    """The Listing of the training split of a data set on the hub (or in its cache, with HF_HUB_OFFLINE=1)."""
    if not HUB_NAME.fullmatch(name):
        raise DataError(f"'{name}' is not the name of a data set on the hub (owner/name): check --dataset_name.")
    import datasets

    table = load(name, config.dataset_config_name, split="train", cache_dir=config.cache_dir)
    settings = datasets.config
    caches = [config.cache_dir, settings.HF_CACHE_HOME, settings.HF_DATASETS_CACHE, hub_cache()]
    return list_table(table, f"the data set {name}", [cache for cache in caches if cache], config)


def hub_cache():
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def load(name, *arguments, **options):
    """datasets.load_dataset, whatever it raises told as one sentence."""
    import datasets

    try:
        return datasets.load_dataset(name, *arguments, **options)
    except Exception as error:  # every layer below has its own: httpx, huggingface_hub, datasets, pyarrow, OSError
        raise DataError(explain(name, error)) from error


def explain(name, error):
    """The sentence for a data set that cannot be loaded: what is wrong, and what to do."""
    kinds, text = {kind.__name__ for kind in type(error).__mro__}, first_line(error)
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    if "OfflineModeIsEnabled" in f"{kinds}{text}":
        return f"The data set {name} is not in the cache, and HF_HUB_OFFLINE=1 forbids to fetch it: unset it once."
    if kinds & {"ConnectionError", "ConnectTimeout", "TransportError", "TimeoutException"}:
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


def known(error):
    """The configurations that an error of datasets lists in brackets, as text."""
    listed = re.search(r"\[(.*?)\]", str(error), re.DOTALL)
    return listed[1].replace("'", "") if listed else first_line(error)


def is_saved(folder):
    """Whether the folder was written by datasets' save_to_disk."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def list_saved(folder, config):
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


def has_only_parquet(folder):
    """Whether the folder holds parquet files and no pictures beside them."""
    names = [path.name.lower() for path in folder.rglob("*") if not path.name.startswith((".", "metadata."))]
    return any(name.endswith(".parquet") for name in names) and not any(name.endswith(SUFFIXES) for name in names)


def list_parquet(folder, config):
    """The Listing of a folder of parquet files: those named train, else all, unless they are named for other splits."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.parquet"))]
    chosen = [name for name in names if "train" in name.lower()]
    if not chosen and any(OTHER_SPLITS.search(name.lower()) for name in names):
        raise DataError(f"{folder} has no split 'train' (it has: {', '.join(names)}): add its parquet files.")
    files = []
    for path in (folder / name for name in chosen or names):
        if not Path(os.path.realpath(path)).is_relative_to(folder):
            raise DataError(f"{path} leads out of {folder}: copy the file into the folder.")
        files.append(str(path))
    return list_table(load_parquet(folder, files, config), str(folder), [folder], config)


def load_parquet(folder, files, config):
    import datasets

    try:
        return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=config.cache_dir)
    except Exception as error:
        cause = first_line(error.__cause__ or error)
        raise DataError(f"The parquet files in {folder} cannot be read ({cause}): save them again.") from error


def list_table(table, source, roots, config):
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
    pixels = table.select_columns([image_column])
    roots = tuple(Path(root).resolve() for root in roots)
    read = [partial(encoded, pixels, image_column, roots, row) for row in range(len(captions))]
    entries = [Entry(f"row {row}", caption, read[row]) for row, caption in enumerate(captions)]
    return Listing(entries, notes=notes)


def holds_pictures(feature):
    """Whether a column that is not declared as pictures may hold them: bytes, paths, or {"bytes", "path"}."""
    if isinstance(feature, dict):
        return "bytes" in feature or "path" in feature
    return getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")


def describe(feature):
    return getattr(feature, "dtype", None) or type(feature).__name__


def read_captions(table, column, source):
    """(captions, notes): the text column; of lists of captions the first is used, and a note says so."""
    try:
        values = list(table[column])
    except Exception as error:  # pyarrow's own, UnicodeDecodeError
        raise DataError(
            f"column '{column}' of {source} cannot be read ({first_line(error)}): save it again."
        ) from error
    if any(isinstance(value, list) for value in values):
        values = [value[0] if isinstance(value, list) and value else value for value in values]
        notes = [f"column '{column}' holds lists of captions; the first of each is used"]
    else:
        notes = []
    if any(not isinstance(value, str) for value in values if value is not None and value != []):
        kind = describe(table.features[column])
        raise DataError(f"column '{column}' of {source} holds {kind}, not text: name another with --caption_column.")
    return [value or None if value == [] else value for value in values], notes


def encoded(table, column, roots, row):
    """The encoded bytes of one row, from the table or from the file that it names inside one of `roots`."""
    value = table[row][column]
    value, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(value, str):
        value, path = None, value
    if value is not None:
        return value
    if not path:
        raise PictureError(f"row {row} has no picture in column '{column}': remove the row.")
    if "\0" in path:
        raise PictureError(f"row {row} names {shown(path)}, which no file can be called: correct it.")
    found = next((root / path for root in roots if Path(os.path.realpath(root / path)).is_relative_to(root)), None)
    if found is None:
        raise PictureError(
            f"row {row} names '{path}', which leads out of the data set's folder: copy the file into it."
        )
    return found.read_bytes()
