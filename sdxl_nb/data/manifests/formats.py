"""Which program's data file a file is, and what it says.

In: the path of a YAML, TOML or JSON file. Out: its Manifest. Adding a format is adding a module and a line in FORMATS.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ...config.checks import is_data_file
from ...config.formats import toml
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from . import kohya, kohya_metadata, onetrainer, own, simpletuner
from .manifest import Manifest, Reader

FORMATS: tuple[Reader, ...] = (own, kohya, onetrainer, simpletuner, kohya_metadata)
SMALL = 1 << 24  # bytes of a file that is looked into though nobody named it
MAX_BYTES = 1 << 29  # of a file; kohya's metadata of a million pictures has some 200 MB


def is_there(place: str) -> bool:
    """Whether a place is a data file on this machine."""
    return is_data_file(place) and os.path.isfile(os.path.expanduser(place))


def read(file: Path, config: TrainConfig) -> Manifest:
    """The Manifest of a data file. Raises DataError."""
    said = parsed(file)
    for reader in FORMATS:
        if reader.is_its_own(said):
            return reader.read(said, file, config)
    raise DataError(f"{file.name} {_instead(said)}: give a folder, or a file with a list of folders.")


def in_folder(place: str) -> str:
    """The name of a data file in a folder, which may be meant instead of it, or ""."""
    folder = Path(os.path.expanduser(place))
    if "://" in place or not os.path.isdir(folder):
        return ""
    for name in sorted(os.listdir(folder)):
        file = folder / name
        if not is_there(str(file)) or name.startswith(".") or file.stat().st_size > SMALL:
            continue
        with contextlib.suppress(DataError):
            said = parsed(file)
            if any(reader.is_its_own(said) for reader in FORMATS):
                return name
    return ""


def parsed(file: Path) -> Any:
    """What a file holds, as YAML, TOML, JSON or lines of JSON. Raises DataError."""
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file.name} is larger than {MAX_BYTES >> 20} MiB: give the folder of the pictures.")
        text = file.read_text(encoding="utf-8-sig")
        return _PARSERS[file.suffix.lower()](text)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check its permissions.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not UTF-8 text: save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        kind = {".toml": "TOML", ".json": "JSON", ".jsonl": "JSON lines"}.get(file.suffix.lower(), "YAML")
        raise DataError(f"{file.name} is not {kind} ({_first_line(error)}): correct it.") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or "nested too deep"


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml says no types; its own loader takes a key's last value
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            if isinstance(node, yaml.MappingNode):
                _once(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _once(keys: Iterable[str]) -> None:
    """Raise ValueError for a key that comes twice."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{key} is there twice")
        seen.add(key)


def _json(text: str) -> Any:
    def group(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            _once(key for key, _ in pairs)
        return made

    return json.loads(text, object_pairs_hook=group)


def _lines(text: str) -> list[Any]:
    def rows() -> Iterator[Any]:
        for line in text.splitlines():
            if line.strip():
                yield json.loads(line)

    return list(rows())


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": toml,
    ".yaml": _yaml,
    ".yml": _yaml,
    ".json": _json,
    ".jsonl": _lines,
}


def _instead(said: Any) -> str:
    """What a file is that names no folders."""
    if isinstance(said, dict) and "pretrained_model_name_or_path" in said:
        return "holds the settings of a run, which --config takes"
    if isinstance(said, list) and said and isinstance(said[0], dict) and "file_name" in said[0]:
        return "is a table of pictures, which is read with the folder that holds it"
    if isinstance(said, dict) and "concept_file_name" in said:
        return "is OneTrainer's configuration, whose pictures its concepts.json lists"
    return "is no data file that is known (our own, kohya's, OneTrainer's, SimpleTuner's)"
