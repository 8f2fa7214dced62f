"""Which program's settings a file holds, and what they are here.

In: the path of a file. Out: a Draft, or None for a file of our own. A file is known by its keys: it belongs to the
program that knows most of them. Nothing that a file names is imported or run.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...system.errors import ConfigError
from .. import formats
from ..messages import nearest
from ..settings import Settings
from . import ai_toolkit, diffusers, kohya, kohya_gui, onetrainer, simpletuner
from .command_line import commands
from .keys import Draft
from .kohya_keys import KOHYA

SHELL = (".sh", ".bash", ".txt", ".ps1", ".bat", ".cmd")
MAX_CHARACTERS = 1_000_000  # of a shell file


class Program(NamedTuple):
    """Another trainer: what its files are called, what they may hold, and what reads them."""

    title: str
    knows: Callable[[str], bool]
    read: Callable[[Mapping[str, Any], Path, Collection[str]], Draft]


OURS = frozenset(Settings.model_fields)
PROGRAMS = (
    Program("kohya's sd-scripts (TOML, JSON)", KOHYA.__contains__, kohya.read),
    Program("kohya_ss (JSON)", kohya_gui.knows, kohya_gui.read),
    Program("OneTrainer (JSON)", onetrainer.knows, onetrainer.read),
    Program("SimpleTuner (JSON, TOML)", simpletuner.knows, simpletuner.read),
)
JOB = Program("ai-toolkit (YAML, JSON)", ai_toolkit.AI_TOOLKIT.__contains__, ai_toolkit.read)
LINES = Program("command lines of diffusers' scripts (.sh, .txt)", diffusers.DIFFUSERS.__contains__, diffusers.read)


def kinds() -> str:
    """The kinds of files, in words."""
    return ", ".join(["our own (JSON, YAML)", *(program.title for program in (*PROGRAMS, JOB, LINES))])


def read(path: Path, given: Collection[str] = ()) -> tuple[dict[str, Any], Draft | None]:
    """What a file holds, and the Draft of it where it is another program's. Raises ConfigError."""
    if path.suffix.lower() in SHELL:
        said: dict[str, Any] = {"commands": commands(_text(path), path.name)}
        return said, diffusers.read(said, path, given)
    said = formats.read_file(path)
    program = recognised(said, path)
    return said, program.read(said, path, given) if program else None


def recognised(said: Mapping[str, Any], path: Path) -> Program | None:
    """The program whose file it is; None for our own. Raises ConfigError for what is of no known kind."""
    if ai_toolkit.is_its_own(said):
        return JOB
    if isinstance(said.get("datasets"), list):
        raise ConfigError(f"{path.name} lists pictures and no settings of a run: give it as --train_data_dir")
    keys = _keys(said)
    ours = sum(key in OURS for key in keys)
    counts = {program: sum(map(program.knows, keys)) for program in PROGRAMS}
    program = max(PROGRAMS, key=counts.__getitem__)
    only = any(program.knows(key) and key not in OURS for key in keys)
    if counts[program] > ours or (counts[program] == ours and only and path.suffix == ".toml"):
        return program
    if counts[program] == ours > 0 and path.suffix == ".toml":  # which we do not write
        return program
    if keys and not ours and not any(nearest(key, OURS) for key in keys):
        raise ConfigError(f"{path.name} holds settings of no kind that is known: there are {kinds()}")
    return None


def _text(path: Path) -> str:
    """The text of a shell file. Raises ConfigError."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config file {path} is not UTF-8 text: save it as UTF-8") from None
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"config file {path} has more than {MAX_CHARACTERS} characters: give the command line alone")
    return text


def _keys(said: Mapping[str, Any]) -> list[str]:
    """The names in a file, those inside its sections too."""
    keys: list[str] = []
    for key, value in said.items():
        keys += [str(key), *map(str, value)] if isinstance(value, Mapping) else [str(key)]
    return keys
