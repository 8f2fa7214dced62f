"""Pictures that a person has left out: a list in their folder, one name a line; the files stay where they are.

In: a folder of pictures. Out: the names on its list, and the list with other names. Opening a data set heeds it.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from ...system.errors import DataError
from ..decoding import Fault

LIST = ".left-out.txt"


def listed(folder: str | os.PathLike[str]) -> set[str]:
    """The names on the folder's list; none where there is no list. Raises DataError for one that cannot be read."""
    try:
        return {line for line in Path(folder, LIST).read_text(encoding="utf-8").splitlines() if line.strip()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError) as error:
        raise DataError(f"{Path(folder, LIST)} cannot be read ({error}): mend it, or delete it.") from error


def leave_out(folder: str | os.PathLike[str], names: Iterable[str], *, out: bool = True) -> set[str]:
    """Put these names on the folder's list, or take them from it; returns those that are on it then."""
    given, before = set(names), listed(folder)
    now = before | given if out else before - given
    path = Path(folder, LIST)
    try:
        if now:
            draft = path.with_name(f"{LIST}.{os.getpid()}.draft")
            draft.write_text("".join(f"{name}\n" for name in sorted(now)), encoding="utf-8")
            draft.replace(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): check the folder.") from error
    return now


def fault(name: str) -> Fault:
    """How a picture on the list is called."""
    return Fault(name, f"{name} was left out by hand ({LIST}): bring it back in the data set browser.")
