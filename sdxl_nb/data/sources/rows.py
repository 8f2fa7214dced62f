"""Data sets that are tables: a datasets.Dataset in, a Listing out; which columns hold pictures and captions.

A picture is bytes in the table (base64 text too), a file that it names, or a file in a zip archive that it names, as
datasets does (zip://a.png::train.zip). Addresses are never fetched.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..captions import alternatives, require_column
from ..decoding import PictureError, first_line
from . import listing
from .archives.archives import Contents, contents
from .archives.members import Members
from .archives.packed_captions import SAID
from .listing import CHUNK, CaptionColumn, Listing, file_stamp, text_column

if TYPE_CHECKING:
    from datasets import Dataset

# what other programs call the columns (webdataset and img2dataset by the suffix), tried where none is named
PICTURES = ("jpg", "jpeg", "png", "webp", "img", "picture", "file_name", "filename", "image_path", "img_path")
CAPTIONS = ("caption", "txt", "captions", "prompt", "json")
ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf)://", re.IGNORECASE)
IN_ZIP = re.compile(r"zip://(?P<member>.+)::(?P<archive>.+)", re.DOTALL)
DATA_URL = re.compile(r"data:[^,]{0,100};base64,")
MASK = "mask"  # the column of the masks, where none is named
MARKS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")  # how pictures begin
LOOKED_AT = 100  # rows to tell by what a column holds


class Addresses(DataError):
    """A table of addresses of pictures."""

    def __init__(self, source: str, column: str) -> None:
        super().__init__(
            f"{source} holds addresses of pictures (column '{column}'), not pictures, and nothing is fetched from "
            "addresses: download them first, for example with img2dataset, and give that folder with --train_data_dir."
        )


class Base64(DataError):
    """A table of text that holds pictures as base64 text."""

    def __init__(self, table: str, column: str) -> None:
        super().__init__(
            f"{table} holds pictures as base64 text (column '{column}'), which is read from parquet alone: save the "
            "table as parquet, or the pictures as files."
        )


class NoPictures(DataError):
    """A table in which no column holds pictures or captions: perhaps it is about something else."""


def list_table(table: "Dataset", source: str, roots: Sequence[str | Path], config: TrainConfig) -> Listing:
    """The Listing of a datasets.Dataset. `roots`: the folders in which paths of the image column may lie."""
    import datasets

    image_column, caption_column, notes = columns(table, source, config)
    features = table.features
    if isinstance(features[image_column], datasets.Image):
        table = table.cast_column(image_column, datasets.Image(decode=False))
    elif not holds_pictures(features[image_column]):
        kind = describe(features[image_column])
        raise NoPictures(
            f"column '{image_column}' of {source} holds {kind}, not pictures: name another, --image_column."
        )
    notes += about_cells(table, image_column, source)
    captions, further = read_captions(table, caption_column, source)
    rows = Rows(table.select_columns([image_column]), image_column, tuple(Path(root).resolve() for root in roots))
    names = text_column(f"row {row}" for row in range(len(captions)))
    masks = mask_rows(table, source, rows.roots, config)
    return Listing(names, captions, rows.read, rows.stamp, notes=notes, further=further, read_mask=masks)


def mask_rows(
    table: "Dataset", source: str, roots: tuple[Path, ...], config: TrainConfig
) -> Callable[[int], bytes | None] | None:
    """`read_mask` of a Listing: the mask column's cells, None where the table has none or masked_loss is off."""
    import datasets

    column = config.mask_column or MASK
    if not config.masked_loss or (column not in table.column_names and not config.mask_column):
        return None
    feature = table.features[require_column(column, table.column_names, "--mask_column", source)]
    if isinstance(feature, datasets.Image):
        table = table.cast_column(column, datasets.Image(decode=False))
    elif not holds_pictures(feature):
        raise DataError(
            f"column '{column}' of {source} holds {describe(feature)}, not masks: name another, --mask_column."
        )
    rows = Rows(table.select_columns([column]), column, roots)
    return lambda row: rows.read(row) if any(rows.value(row)) else None


def columns(table: "Dataset", source: str, config: TrainConfig) -> tuple[str, str, list[str]]:
    """The columns of pictures and captions, and a note where they are not those that are asked for."""
    image, caption = asked = config.columns()
    known, free = table.column_names, (config.dataset_name or "") not in (config.dataset_name_mapping or {})
    if image not in known and free and not config.image_column:
        image = next((name for name in PICTURES if name in known), image)
        for name in () if image in known else known:
            refuse_addresses(table, name, source)
    if caption not in known and free and not config.caption_column:
        caption = next((name for name in CAPTIONS if name in known), caption)
    require_both(image, caption, known, source)
    used = f"column '{image}' of {source} is taken for the pictures and '{caption}' for the captions"
    return image, caption, [used] if (image, caption) != asked else []


def require_both(image: str, caption: str, known: Sequence[str], source: str) -> None:
    """Raise NoPictures unless both columns are among the `known`; it names them and the flag."""
    try:
        require_column(image, known, "--image_column", source)
        require_column(caption, known, "--caption_column", source)
    except DataError as error:
        raise NoPictures(str(error)) from error


def first_cells(table: "Dataset", column: str) -> list[Any]:
    """What the first rows hold in a column, where they hold anything: a few cells."""
    some = table.select_columns([column]).select(range(min(len(table), LOOKED_AT)))
    cells = (cell.get("bytes") or cell.get("path") if isinstance(cell, dict) else cell for cell in some[column])
    return list(islice(filter(None, cells), 5))


def refuse_addresses(table: "Dataset", column: str, source: str) -> None:
    """Raise DataError where a column holds addresses."""
    if describe(table.features[column]) not in ("string", "large_string"):
        return
    if any(isinstance(cell, str) and ADDRESS.match(cell) for cell in first_cells(table, column)):
        raise Addresses(source, column)


def about_cells(table: "Dataset", column: str, source: str) -> list[str]:
    """A note where pictures are base64 text. Raises DataError where they are addresses."""
    import datasets

    if not isinstance(table.features[column], datasets.Image):
        refuse_addresses(table, column, source)
    if any(map(base64_head, first_cells(table, column))):
        return [f"column '{column}' of {source} holds pictures as base64 text, which is decoded"]
    return []


def holds_pictures(feature: Any) -> bool:
    """Whether a column that is not declared as pictures may hold them: bytes, paths, or {"bytes", "path"}."""
    if isinstance(feature, dict):
        return "bytes" in feature or "path" in feature
    return getattr(feature, "dtype", None) in ("binary", "large_binary", "string", "large_string")


def describe(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def read_captions(table: "Dataset", column: str, source: str) -> tuple[pa.Array, pa.Array | None]:
    """`captions` and `further` of a Listing."""
    texts = CaptionColumn()
    for value in column_values(table, column, source):
        if isinstance(value, dict) and not value.keys().isdisjoint(SAID):  # webdataset's json
            value = next((value[key] for key in SAID if value.get(key) is not None), None)
        try:
            texts.append(alternatives(value))
        except TypeError as error:
            kind = describe(table.features[column])
            raise NoPictures(
                f"column '{column}' of {source} holds {kind}, not text: name another with --caption_column."
            ) from error
    return texts.finish()


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


def packed(table: "Dataset", roots: Sequence[str | Path], config: TrainConfig) -> list[str]:
    """The archives that hold the pictures of a table without captions: these lie beside the pictures then."""
    image, caption = config.columns()
    if caption in table.column_names or config.caption_column or image not in table.column_names:
        return []
    import datasets

    if not isinstance(table.features[image], datasets.Image):
        return []
    rows = Rows(table.cast_column(image, datasets.Image(decode=False)), image, tuple(Path(r).resolve() for r in roots))
    paths = (value["path"] for value in column_values(rows.table, image, "the data set"))
    found = [IN_ZIP.fullmatch(path or "") for path in paths]
    if not found or None in found:
        return []
    return [rows.inside(0, name) for name in dict.fromkeys(match["archive"] for match in found if match)]


def files_of(listing: Listing) -> set[str]:
    """The files that the rows of a table name; none where pictures lie in the table."""
    rows = getattr(listing.read, "__self__", None)
    if not isinstance(rows, Rows) or describe(rows.table.features[rows.column]) not in ("string", "large_string"):
        return set()
    return {os.path.normpath(path) for path in column_values(rows.table, rows.column, "the table") if path}


def base64_head(cell: Any) -> bool:
    """Whether a cell looks like base64 text of a picture."""
    text = base64_text(cell[:200]) if isinstance(cell, str | bytes) else ""
    try:
        head = base64.b64decode(text[:32].encode()) if len(text) > 64 else b""
    except (ValueError, binascii.Error):
        return False
    return head.startswith(MARKS) or head[4:8] == b"ftyp"


def base64_text(cell: str | bytes) -> str:
    """The cell as base64 text, without what a data: address puts in front."""
    if isinstance(cell, bytes):
        cell = cell.decode("ascii", "replace")
    found = DATA_URL.match(cell)
    return cell[found.end() if found else 0 :].replace("-", "+").replace("_", "/")


def from_base64(row: int, text: str) -> bytes:
    """The picture that base64 text says. Raises PictureError."""
    if len(text) > listing.MAX_BYTES // 3 * 4:
        raise PictureError(f"row {row} is larger than {listing.MAX_BYTES >> 30} GiB: make it smaller.")
    try:
        return base64.b64decode(text.encode() + b"===")
    except (ValueError, binascii.Error) as error:
        raise PictureError(f"row {row} holds base64 text that is cut short: write it again.") from error


@dataclass(frozen=True)
class Rows:
    """The pictures of a table: `read` and `stamp` of a Listing. `roots`: where files that rows name may lie."""

    table: "Dataset"
    column: str
    roots: tuple[Path, ...]
    opened: dict[str, Contents] = field(default_factory=dict)  # archives, by their path

    def read(self, row: int) -> bytes:
        """The encoded bytes: from the table, or from the file that it names inside one of `roots`."""
        value, path = self.value(row)
        if value is None and path and (named := IN_ZIP.fullmatch(path)):
            members, at = self.member(row, named)
            return members.read(at)
        for cell in (value, path):
            if cell and base64_head(cell):
                return from_base64(row, base64_text(cell))
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
        if ADDRESS.match(path):
            raise PictureError(
                f"row {row} names an address, {shown(path)}, which is not fetched: download the picture."
            )
        return Path(self.inside(row, path))

    def inside(self, row: int, path: str) -> str:
        """The path of a file in one of `roots`, the one that has it. Raises PictureError."""
        allowed = [root / path for root in self.roots if Path(os.path.realpath(root / path)).is_relative_to(root)]
        if not allowed:
            raise PictureError(
                f"row {row} names '{path}', which leads out of the data set's folder: copy the file into it."
            )
        return str(next((place for place in allowed if place.exists()), allowed[0]))

    def member(self, row: int, named: re.Match[str]) -> tuple[Members, int]:
        """Members, and the row in them, of a file in an archive. Raises PictureError."""
        archive = self.inside(row, named["archive"])
        if archive not in self.opened:
            self.opened[archive] = contents(archive)
        members, rows = self.opened[archive]
        if named["member"] not in rows:
            raise PictureError(
                f"row {row} names '{named['member']}', which {named['archive']} does not hold: remove it."
            )
        return members, rows[named["member"]]

    def stamp(self, row: int) -> str | None:
        """The stamp of the file that a row names, else of the table's files, with the row."""
        value, path = self.value(row)
        try:
            if value is None and path and (named := IN_ZIP.fullmatch(path)):
                members, at = self.member(row, named)
                return members.stamp(at)
            if value is None and not base64_head(path):
                return file_stamp(self.find(row, path))
        except DataError:
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
