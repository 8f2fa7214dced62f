"""The names that a folder's only metadata file names: a million of them in little memory.

In: an Arrow column of names. Out: a Mapping of each to the file, as a dict of the names of several files is. A name is
found by sorted 64-bit hashes and compared then: 34 bytes a name, where a dict takes 170.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from ....system.errors import DataError
from ..listing import Texts, positions


class Seen(Mapping[str, str]):
    """See the module. Raises DataError for a name that is there twice."""

    def __init__(self, table: str, names: pa.Array) -> None:
        self.table, self.names = table, names
        hashes = np.fromiter(map(hash, Texts[str](names)), np.int64, len(names))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]
        self._refuse_twice()

    def _refuse_twice(self) -> None:
        alike = np.isin(self._hashes, self._hashes[1:][self._hashes[1:] == self._hashes[:-1]])
        once: set[str] = set()
        for name in Texts[str](self.names, np.sort(self._rows[alike])):
            if name in once:
                raise DataError(f"{self.table} names '{name}' more than once: keep one line per picture.")
            once.add(name)

    def where(self, column: pa.Array) -> np.ndarray:
        """(N,) bool: which texts of a column are named."""
        return positions(column, self.names) >= 0

    def __getitem__(self, name: str) -> str:
        first = int(np.searchsorted(self._hashes, hash(name)))
        last = int(np.searchsorted(self._hashes, hash(name), "right"))
        if any(self.names[int(row)].as_py() == name for row in self._rows[first:last]):
            return self.table
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(Texts[str](self.names))

    def __len__(self) -> int:
        return len(self.names)
