"""A local folder of pictures and captions: a path in, a Listing out, nothing decoded.

Captions come from metadata.jsonl, .csv or .parquet (columns file_name and text) or from a .txt or .caption file
beside each picture. Of a folder that holds only splits (train, test, ...), "train" is used. Everything that is read
lies inside the folder: names and links that lead out of it are refused.
"""

import csv
import io
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

from .captions import require_column
from .complaints import shown
from .errors import DataError
from .pictures import SUFFIXES, UNREADABLE_SUFFIXES, Entry, Fault, Listing, first_line, is_text, printable

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
CAPTION_SUFFIXES = (".txt", ".caption")


def list_folder(folder, config):
    """The Listing of a folder of picture files. Raises DataError when it cannot be used as a data set."""
    root = training_folder(folder)
    found = walk(root)
    files = [name for name in found if is_text(name)]
    pictures = [name for name in files if name.lower().endswith(SUFFIXES)]
    metadata = [name for name in METADATA if name in files]
    if len(metadata) > 1:
        raise DataError(f"{root} has both {' and '.join(metadata)}: keep the one that is right.")
    unnamable = [unreadable_name(name) for name in found if not is_text(name) and name.lower().endswith(SUFFIXES)]
    if not pictures and not metadata and unnamable:
        raise DataError(f"None of the pictures in {root} can be used; the first: {unnamable[0].sentence}")
    if not pictures and not metadata:
        raise DataError(f"{root} holds no pictures ({', '.join(SUFFIXES)}): check --train_data_dir.")
    if metadata:
        listing = with_metadata(root, metadata[0], pictures, config)
    else:
        listing = with_caption_files(root, files, pictures)
    listing.faults += unnamable + [
        Fault(name, f"{name} is in a format that cannot be read: save it as JPEG, PNG or WebP.")
        for name in files
        if name.lower().endswith(UNREADABLE_SUFFIXES)
    ]
    return listing


def unreadable_name(name):
    """The Fault of a picture whose name no log, file or page could hold."""
    return Fault(printable(name), f"{printable(name)} has a name that is not UTF-8: rename it.")


def training_folder(folder):
    """The folder that holds the training pictures: itself, or "train" in it when the rest are other splits."""
    root = real(folder)
    visible = [path for path in root.iterdir() if not path.name.startswith(".")]
    own = any(path.name in METADATA or path.name.lower().endswith(SUFFIXES) for path in visible)
    folders = {path.name for path in visible if path.is_dir()}
    if own or "train" not in folders or not folders <= SPLITS:
        return root
    return inside(root, "train", "the folder")


def walk(root):
    """Names relative to `root` of all files below it, sorted; hidden ones are skipped. Links must stay inside."""
    found = []
    for folder, folders, files in os.walk(root, onerror=refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        here = Path(folder).relative_to(root)
        names = [(here / name).as_posix() for name in files if not name.startswith(".")]
        for name in names + [(here / name).as_posix() for name in folders]:
            inside(root, name, "the folder")
        found += names
    return sorted(found)


def refuse_unreadable(error):
    raise DataError(f"{error.filename} cannot be listed ({error.strerror}): check its permissions.") from error


def real(path):
    """The path without links; one that leads to itself stays, and reading it fails (Path.resolve would raise here)."""
    return Path(os.path.realpath(path))


def inside(root, name, told_by):
    """The real path of `name` in `root`. Raises DataError when it leads elsewhere, by "..", a root or a link."""
    path = real(root / name)
    if not path.is_relative_to(root):
        raise DataError(
            f"{told_by} names '{printable(name)}', which leads out of {root}: copy the file into the folder."
        )
    return path


def with_metadata(root, metadata, pictures, config):
    """Captions from a metadata file. Pictures it does not name are faults, names without a file are errors."""
    rows = read_metadata(root / metadata)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not rows:
        raise DataError(f"{root / metadata} is empty: it needs one line per picture with file_name and text.")
    file_column = config.image_column if config.image_column in columns else "file_name"
    if file_column not in columns:
        raise DataError(f"{metadata} has no column 'file_name' (its columns: {', '.join(columns)}): add it.")
    caption_column = require_column(config.columns()[1], columns, "--caption_column", metadata)
    listing = Listing([])
    for number, row in enumerate(rows, start=1):
        name = checked_name(root, metadata, number, row.get(file_column))
        listing.entries.append(Entry(name, row.get(caption_column), (root / name).read_bytes))
    named = Counter(entry.name for entry in listing.entries)
    if repeated := [name for name, times in named.items() if times > 1]:
        raise DataError(f"{metadata} names '{repeated[0]}' more than once: keep one line per picture.")
    listing.faults = [Fault(name, f"{name} is not named in {metadata}.") for name in sorted(set(pictures) - set(named))]
    return listing


def checked_name(root, metadata, number, name):
    """The file_name of row `number` if it is an existing file inside `root`, written the short way."""
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"row {number} of {metadata} has no file_name: add it or remove the row.")
    nameable = is_text(name) and "\0" not in name
    if not nameable or not os.path.isfile(inside(root, name, metadata)):  # os.path takes a name of any length
        raise DataError(f"{metadata} names {shown(name)}, but there is no such file in {root}: correct the name.")
    return Path(os.path.normpath(name)).as_posix()


def read_metadata(path):
    """The rows of a metadata file as dictionaries."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        try:
            return parquet.read_table(path).to_pylist()
        except Exception as error:  # pyarrow's own, OSError, UnicodeDecodeError
            raise DataError(f"{path.name} cannot be read ({first_line(error)}): save it again.") from error
    text = read_text(path)
    if path.suffix == ".csv":
        return csv_rows(path, text)
    return [json_row(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def csv_rows(path, text):
    """The rows of CSV text. Strict, because an unclosed quote would otherwise swallow the rows that follow it."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        return [{key: value for key, value in row.items() if key} for row in reader]
    except csv.Error as error:
        row = f"the row that starts at line {reader.line_num + 1} of {path.name}"
        raise DataError(f"{row} is not CSV ({error}): close each quote and double those inside.") from error


def json_row(path, number, line):
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise DataError(f"line {number} of {path.name} is not JSON (nested too deeply): correct it.") from error
    except ValueError as error:
        raise DataError(f"line {number} of {path.name} is not JSON ({error}): correct it.") from error
    if not isinstance(row, dict):
        raise DataError(f'line {number} of {path.name} is not an object like {{"file_name": ..., "text": ...}}.')
    return row


def read_text(path):
    """UTF-8 text, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:  # a link that leads nowhere, a file of somebody else
        raise DataError(f"{path.name} cannot be read ({error.strerror}): correct or remove it.") from error


def with_caption_files(root, files, pictures):
    """Captions from a .txt or .caption file beside each picture; a picture without one keeps the caption None."""
    present, listing = set(files), Listing([])
    for name in pictures:
        stem = os.path.splitext(name)[0]
        beside = [stem + suffix for suffix in CAPTION_SUFFIXES if stem + suffix in present]
        if len(beside) > 1:
            listing.notes.append(f"{name} has two caption files; {beside[0]} is used.")
        try:
            caption = " ".join(read_text(root / beside[0]).split()) if beside else None
        except DataError as error:
            listing.faults.append(Fault(name, f"{name}: its caption file {error}"))
            continue
        listing.entries.append(Entry(name, caption, partial(Path.read_bytes, root / name)))
    if listing.entries and all(entry.caption is None for entry in listing.entries):
        listing.notes.append("no metadata.jsonl, no metadata.csv and no .txt beside the pictures")
    return listing
