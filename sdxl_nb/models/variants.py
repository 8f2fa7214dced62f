"""Weights that a folder has under a variant's name alone, as in `model.fp16.safetensors`: taken, and said.

In: a Source, or how its files are found. Out: the variant to read, None for the files without one.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

from ..system.errors import ModelError
from .sources import WEIGHTS, Source

KNOWN = ("fp16", "bf16", "fp32", "non_ema")


def taken(source: Source, part: str) -> str | None:
    """The variant that a part of a folder or repository is read from: the one asked for, or the only one there is."""
    return source.variant or only(source.find, f"{part}/{WEIGHTS[part]}")


def only(find: Callable[[str], Path | None], stem: str) -> str | None:
    """The variant of these weights where there are none without one."""

    def there(*names: str) -> bool:
        for name in names:
            with contextlib.suppress(ModelError):  # without a network nobody knows of what is not in the hub's cache
                if find(name) is not None:
                    return True
        return False

    if there(f"{stem}.safetensors", f"{stem}.safetensors.index.json"):
        return None
    names = ((name, f"{stem}.{name}.safetensors", f"{stem}.safetensors.index.{name}.json") for name in KNOWN)
    return next((name for name, whole, index in names if there(whole, index)), None)


def remarks(source: Source) -> list[str]:
    """What to say of variants that nobody asked for."""
    if source.variant or source.is_single_file:
        return []
    found = {part: taken(source, part) for part in WEIGHTS if part != "vae" or source.vae is None}
    chosen = sorted({variant for variant in found.values() if variant})
    if not chosen:
        return []
    parts = ", ".join(part for part, variant in found.items() if variant)
    return [f"{source.name} has only {' and '.join(chosen)} weights of {parts}: they are taken, without --variant."]
