"""Flags as people type them, and the command lines in a shell file: read, and never run.

In: text. Out: words, flags by name, and for each command that starts a training script its name and its flags.
Variables are put in where the same file sets them; what else a shell would do with a text is not done.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...system.errors import ConfigError

CONTINUED = re.compile(r"[ \t]*[\\`^][ \t]*\r?\n")  # of a POSIX shell, PowerShell and cmd
SETS = re.compile(r"^\s*(?:export\s+|set\s+|\$(?:env:)?)?\"?([A-Za-z_]\w*)\s*=\s*(.*?)\"?\s*$")
VARIABLE = re.compile(r"\$\{(?:env:)?(\w+)\}|\$(?:env:)?(\w+)|%(\w+)%")
SCRIPT = re.compile(r"(?:^|[/\\])([\w-]+\.py)$")


class Command(NamedTuple):
    """A training script that a command line starts, and the flags that it is given."""

    script: str
    flags: dict[str, Any]
    launch: dict[str, Any]  # what the launcher before it is given


def words(line: str, file: str) -> list[str]:
    """A line as a shell splits it. Raises ConfigError."""
    splitter = shlex.shlex(line, posix=True, punctuation_chars=False)
    splitter.whitespace_split, splitter.commenters = True, "#"
    splitter.escape = "" if re.search(r"[A-Za-z]:\\|\\\w", line) else "\\"  # a path of Windows has no escapes
    try:
        return list(splitter)
    except ValueError as error:
        raise ConfigError(f"{file} has a command line that cannot be read ({error}): close its quotes") from None


def flags(given: Sequence[str]) -> dict[str, Any]:
    """Words as flags by name: --name=value, --name value, --name value value (a list), --name alone (true).

    What stands alone before the first flag is left out; of a flag that comes twice the last counts.
    """
    found: dict[str, Any] = {}
    name = ""
    for word in given:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            found[name] = [value] if equals else []
        elif name:
            found[name].append(word)
    return {key: True if not values else values[0] if len(values) == 1 else values for key, values in found.items()}


def commands(text: str, file: str) -> list[Command]:
    """The commands of a shell file, or of a copied line, that start a script of Python. Raises ConfigError."""
    found: list[Command] = []
    known: dict[str, str] = {}
    for line in _lines(text):
        if (sets := SETS.match(line)) and " --" not in line:
            known[sets[1]] = _filled(sets[2].strip().strip("\"'"), known)
            continue
        given = words(_filled(line, known), file)
        at = next((place for place, word in enumerate(given) if SCRIPT.search(word)), None)
        if at is not None:
            found.append(Command(SCRIPT.search(given[at])[1], flags(given[at + 1 :]), flags(given[:at])))  # type: ignore[index]
    return found


def _lines(text: str) -> Iterator[str]:
    """Lines, those that go on put together, without what is set for one line alone before the command."""
    for line in CONTINUED.sub(" ", text).splitlines():
        line = line.strip().removeprefix("$ ").removeprefix("! ").removeprefix("!")
        if line and not line.startswith(("#", "REM ", "rem ", "::")):
            yield line


def _filled(text: str, known: dict[str, str]) -> str:
    """Text with the variables that the file sets."""
    return VARIABLE.sub(lambda found: known.get(next(filter(None, found.groups())), found[0]), text)
