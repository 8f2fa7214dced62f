"""What is kept of scoring in a run folder: the values of every stage and metric, and under which key.

    scores/scores.json                what is known; JSON, replaced whole after every metric of every stage
    scores/step-N/KEY.png             pictures, step-0 those of the bare base

In: a run folder. Out: values whose key is still the one asked for; a key changes with all that would change them.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ..config.formats import write_text
from ..config.layout import SCORES
from ..system.errors import SdxlNbError

VERSION = 1  # raised when our own metrics come to give other numbers for the same pictures


class Kept(NamedTuple):
    """The values of one metric at one stage, [prompt][seed], and the scorer's remark."""

    values: list[list[float]]
    remark: str = ""


class Store:
    """scores.json of a run folder: `get` and `put`."""

    def __init__(self, run_folder: Path):
        self.folder = run_folder / SCORES
        self.file = self.folder / "scores.json"
        self.damaged = False
        self._known = self._read()

    def _read(self) -> dict[str, Any]:
        """What is there; nothing of a damaged file, which is then said, or of another version."""
        try:
            known = json.loads(self.file.read_text(encoding="utf-8"))
            scores = known["scores"] if known["version"] == VERSION else {}
            for metrics in scores.values():
                for one in metrics.values():
                    _checked(one)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.damaged = True
            return {}
        return scores

    def get(self, step: int, metric: str, key: str) -> Kept | None:
        """What is known of a metric at a step under this key."""
        one = self._known.get(str(step), {}).get(metric)
        return Kept(one["values"], one["remark"]) if one and one["key"] == key else None

    def put(self, step: int, metric: str, key: str, kept: Kept) -> None:
        """Keep a metric's values; the file is whole at any moment."""
        self._known.setdefault(str(step), {})[metric] = {"key": key, **kept._asdict()}
        write_text(self.file, json.dumps({"version": VERSION, "scores": self._known}, indent=1))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Within the block no other process scores this run. Raises SdxlNbError when one does, or none may write."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / "lock")
            lock.acquire(timeout=0)
        except Timeout:
            raise SdxlNbError(
                f"{self.folder} is being filled by another process: wait for it, then ask again."
            ) from None
        except OSError as error:
            raise SdxlNbError(f"Scores cannot be kept in {self.folder}: {error.strerror or error}.") from error
        try:
            yield
        finally:
            lock.release()


def _checked(one: Any) -> None:
    """ValueError or TypeError for an entry that is none of ours."""
    if not isinstance(one["key"], str) or not isinstance(one["remark"], str) or not one["values"]:
        raise ValueError
    if not all(row and all(isinstance(value, float | int) for value in row) for row in one["values"]):
        raise ValueError
