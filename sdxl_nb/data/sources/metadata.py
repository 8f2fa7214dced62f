"""A metadata file beside pictures (metadata.jsonl, .csv or .parquet): a path in, its rows out, one at a time.

A file inside an archive goes the same way.

DataError, with one sentence that names the line, for a file that is not what its suffix says.
"""

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ...system.errors import DataError
from ..decoding import first_line

Row = dict[Any, Any]  # by column, and by REST
NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
REST = None  # the key of what a CSV row has beyond the columns of its header


class Inside:
    """A file that lies in an archive, as far as a path is wanted here."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self.suffix, self.data = name, os.path.splitext(name)[1], data

    def open(self, mode: str = "r", encoding: str | None = None, newline: str | None = None) -> IO[Any]:
        file = io.BytesIO(self.data)
        return file if "b" in mode else io.TextIOWrapper(file, encoding, newline=newline)


Readable = Path | Inside


def rows(path: Readable) -> Iterator[Row]:
    """The rows as dictionaries, read while they are asked for."""
    read = {".parquet": parquet_rows, ".csv": csv_rows, ".tsv": csv_rows}.get(path.suffix.lower(), json_rows)
    return read(path)


def parquet_rows(path: Readable) -> Iterator[Row]:
    from pyarrow import parquet

    try:
        source = path if isinstance(path, Path) else path.open("rb")
        for batch in parquet.read_table(source).to_batches(max_chunksize=10_000):
            yield from batch.to_pylist()
    except Exception as error:  # pyarrow's own, OSError, UnicodeDecodeError
        raise DataError(f"{path.name} cannot be read ({first_line(error)}): save it again.") from error


def csv_rows(path: Readable) -> Iterator[Row]:
    """The rows of CSV text, None where a cell is empty, as datasets reads them; blanks before a cell are not its own.

    Strict, because an unclosed quote would otherwise swallow the rows that follow it.
    """
    mark = delimiter(next(lines(path), ""))
    reader = csv.DictReader(lines(path, newline=""), restkey=REST, strict=True, skipinitialspace=True, delimiter=mark)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            yield {key: value or None for key, value in row.items() if key or key is REST}
    except csv.Error as error:
        place = f"the row that starts at line {reader.line_num + 1} of {path.name}"
        raise DataError(f"{place} is not CSV ({error}): close each quote and double those inside.") from error


def delimiter(header: str) -> str:
    """What separates the cells: a comma, or in a header without any the semicolon or tab of some spreadsheets."""
    return next((mark for mark in (",", ";", "\t") if mark in header), ",")


def json_rows(path: Readable) -> Iterator[Row]:
    for number, line in enumerate(lines(path), start=1):
        if line.strip():
            yield json_row(path, number, line)


def json_row(path: Readable, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise DataError(f"line {number} of {path.name} is not JSON (nested too deeply): correct it.") from error
    except ValueError as error:
        raise DataError(f"line {number} of {path.name} is not JSON ({error}): correct it.") from error
    if not isinstance(row, dict):
        raise DataError(f'line {number} of {path.name} is not an object like {{"file_name": ..., "text": ...}}.')
    return row


def lines(path: Readable, newline: str | None = None) -> Iterator[str]:
    """The lines of UTF-8 text, with or without a byte order mark. Raises DataError."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            for line in file:
                yield line if newline == "" else line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:  # a link that leads nowhere, a file of somebody else
        raise DataError(f"{path.name} cannot be read ({error.strerror}): correct or remove it.") from error
