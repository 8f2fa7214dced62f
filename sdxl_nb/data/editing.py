"""Changes to a folder of captioned pictures: a caption corrected, pictures added. Each is whole or not done at all.

In: a TrainConfig whose pictures lie in a local folder. Out: changed files there: the picture's row of the nearest
metadata.jsonl, .csv or .parquet that names it, or a text beside it. Data sets of the hub, S3 and the embedded ones are
not changed; DataError says what to do instead.
"""

import contextlib
import csv
import io
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from ..config.train_config import TrainConfig
from ..system.errors import DataError
from .decoding import SUFFIXES, decode, is_text
from .manifests.formats import is_there
from .sources import metadata
from .sources.folders.caption_files import by_owner, captions_of, read_text
from .sources.folders.layouts import training_folder
from .sources.folders.lines import judged, lined, plain
from .sources.folders.suffixes import CAPTIONS, USUAL, ending
from .sources.folders.tree import inside

LONGEST = 240  # bytes of a picture's name: file systems take 255, a number or a caption's ending may come behind it


def editable_folder(config: TrainConfig) -> Path:
    """The local folder that holds the pictures of a configuration. Raises DataError where there is none to change."""
    place = config.train_data_dir or config.dataset_name or ""
    folder = os.path.expanduser(place)
    if is_there(place):
        raise DataError(f"The pictures of {place} lie in several folders: open the one to be changed by itself.")
    if config.train_data_dir and "://" not in place and not os.path.exists(folder):
        return Path(folder)  # a new one
    if place.startswith("s3://") or not os.path.isdir(folder):
        raise DataError(f"The pictures of {place} are in no local folder and cannot be changed here: copy them.")
    return training_folder(folder)


def save_caption(config: TrainConfig, name: str, caption: str) -> Path:
    """Store the caption of the picture `name` (relative to the folder); returns the file that was written."""
    folder = editable_folder(config)
    caption = " ".join(caption.split())
    if not is_text(caption):
        raise DataError(f"The caption of {name} holds half a character: type it again.")
    if not caption and not config.trigger_word:  # it would be trained on all the same, and teach no word
        raise DataError(
            f"The empty caption of {name} is not saved: training would learn the picture without any words. "
            "Say what is seen, give a trigger word to train on alone, or remove the picture."
        )
    if not inside(folder, name, "the form").is_file():
        raise DataError(f"There is no picture {name} in {folder} any more: open the data set again.")
    tables, text = tables_above(folder, name), caption_file(folder, name)
    for table in tables:
        rows = list(metadata.rows(table))
        if any(is_about(config, table, row, folder / name) for row in rows):
            column, own = config.columns()[1], [is_about(config, table, row, folder / name) for row in rows]
            each = zip(rows, own, strict=True)
            return _rewrite(table, [with_caption(row, column, caption) if its else row for row, its in each])
    if tables and not text.is_file():
        raise DataError(f"{tables[0].name} does not name {name}: add its row by hand.")
    return _write(text, "".join(f"{line}\n" for line in (caption, *others_in(text, config))).encode())


def others_in(text: Path, config: TrainConfig) -> list[str]:
    """The captions of a text after its first, which stay when that is changed; none where its lines are one caption."""
    if not text.is_file():
        return []
    lines = plain(lined(read_text(text.parent, text.name)))
    kind = config.caption_lines
    if kind == "auto" and len(lines) > 1:
        kind = judged(["\n".join(lines)], config.caption_separator)[0]
    return lines[1:] if kind in ("captions", "first") else []


def add_picture(config: TrainConfig, name: str, data: bytes, caption: str = "") -> str:
    """Put an encoded picture into the folder, under a free name, with its caption; returns the name it got.

    Raises DataError (PictureError) when it is no picture that training can read.
    """
    folder = editable_folder(config)
    decode(data, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error.strerror}): name another folder.") from error
    name = free_name(folder, Path(name.replace("\\", "/")).name)
    tables = tables_above(folder, name)
    _write(folder / name, data)
    if tables:
        new = {file_column(config, tables[0]): name, config.columns()[1]: " ".join(caption.split()) or None}
        _rewrite(tables[0], [*metadata.rows(tables[0]), new])
    elif caption.strip():
        save_caption(config, name, caption)
    return name


def tables_above(folder: Path, name: str) -> list[Path]:
    """The metadata files that may name a picture, the nearest first: beside it, or above it within `folder`."""
    places = [place for place in (folder / name).parents if place.is_relative_to(folder)]
    return [path for place in places for path in sorted(place.iterdir()) if path.name.lower() in metadata.NAMES]


def caption_file(folder: Path, name: str) -> Path:
    """The text beside a picture: the one that is read, else a .txt."""
    place, own = (folder / name).parent, Path(name).name
    texts = by_owner(path.name for path in place.iterdir() if ending(path.name) in CAPTIONS)
    stem = os.path.splitext(own)[0]
    return place / next(iter(captions_of(own, stem.lower(), texts)), f"{stem}.txt")


def shortened(name: str) -> str:
    """The name, its stem cut where a file system has no room for the whole."""
    stem, suffix = os.path.splitext(name)
    return stem.encode()[: max(1, LONGEST - len(suffix.encode()))].decode(errors="ignore") + suffix


def free_name(folder: Path, name: str) -> str:
    """The name, numbered where it is taken, also as the stem of another picture, which would share the caption."""
    if not name.isprintable():
        raise DataError(f"{name!r} holds a character that names of files cannot have: rename it.")
    stem, suffix = os.path.splitext(shortened(name))
    if suffix.lower() not in SUFFIXES or not stem or stem.startswith("."):
        raise DataError(f"{name} does not end like a picture ({', '.join(USUAL)}): rename it.")
    taken = {os.path.splitext(path.name)[0].lower() for path in folder.iterdir()}
    numbered = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return next(one for one in numbered if one.lower() not in taken) + suffix


def file_column(config: TrainConfig, table: Path) -> str:
    """The column of a metadata file that names the pictures."""
    first: metadata.Row = next(iter(metadata.rows(table)), {})
    return config.image_column if config.image_column and config.image_column in first else "file_name"


def is_about(config: TrainConfig, table: Path, row: metadata.Row, picture: Path) -> bool:
    """Whether a row of a metadata file names this picture."""
    told = row.get(config.image_column if config.image_column in row else "file_name")
    return isinstance(told, str) and os.path.normpath(table.parent / told) == os.path.normpath(picture)


def with_caption(row: metadata.Row, column: str, caption: str) -> metadata.Row:
    """The row with another first caption."""
    former = row.get(column)
    further = former[1:] if isinstance(former, list) else []
    return row | {column: [caption, *further] if further else caption}


def _rewrite(table: Path, rows: list[metadata.Row]) -> Path:
    """Write a metadata file again with these rows, in its own format."""
    if ending(table.name) == ".parquet":
        return _write(table, parquet_bytes(rows))
    if ending(table.name) == ".csv":
        return _write(table, csv_bytes(rows))
    return _write(table, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def csv_bytes(rows: Iterable[metadata.Row]) -> bytes:
    """Rows as CSV, every column that any of them has."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet_bytes(rows: list[metadata.Row]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({key: [row.get(key) for row in rows] for key in columns}), buffer)
    return buffer.getvalue()


def _write(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all. Raises DataError when the folder cannot be written."""
    draft = path.with_name(f".{secrets.token_hex(8)}.draft")  # the name itself may be as long as names can be
    try:
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise DataError(f"{path} cannot be written ({error.strerror}): check the folder.") from error
    return path
