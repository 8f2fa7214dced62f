"""Named configurations, one YAML file each: `tiny`, and real SDXL by GPU memory.

In: a name. Out: its settings as a dictionary (`read`) or its sentence (`describe`); what it does not name is default.
"""

from importlib import resources
from typing import Any

from ..formats import parse
from ..messages import unknown

SUFFIX = ".yaml"


def names() -> list[str]:
    """Names of all presets, tiny first and then by GPU memory."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    found = [name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX)]
    return sorted(found, key=lambda name: (name != "tiny", len(name), name))


def read(name: str) -> dict[str, Any]:
    """Settings of the named preset. Raises ConfigError with the nearest name."""
    values = _document(name)
    del values["description"]
    return values


def describe(name: str) -> str:
    """One sentence on what the named preset is for. Raises ConfigError."""
    sentence: str = _document(name)["description"]
    return sentence


def fitting(memory: int) -> str | None:
    """The largest preset for a GPU with so many bytes of memory; None where not even the smallest fits."""
    size = memory / 1e9 + 1  # a GPU sold as one of 8 GB tells of a little less
    held = [name for name in names()[1:] if int(name.removeprefix("sdxl-").removesuffix("gb")) <= size]
    return held[-1] if held else None


def _document(name: str) -> dict[str, Any]:
    if name not in names():
        raise unknown(str(name), names(), kind="preset", advice=f"choose from {', '.join(names())}")
    found: dict[str, Any] = parse(resources.files(__name__).joinpath(name + SUFFIX).read_text("utf-8"), SUFFIX)
    return found
