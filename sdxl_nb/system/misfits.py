"""Packages that are installed but cannot be imported: made for another torch, most often, and left over from it.

In: nothing, or the error that an import ended in. Out: a diffusers that does without such an xformers; a sentence that
names the package. Nothing is kept from a library that could use it.
"""

import functools
import traceback
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@functools.cache
def leave_out_xformers() -> None:
    """Tell diffusers, and with a warning the user, of an xformers that is installed and cannot be imported.

    diffusers goes by its being installed. Its attention_dispatch.py then does without one that fails, its
    attention_processor.py (up to 0.42) ends in its error, and with it every model and pipeline.
    """
    from diffusers.utils import import_utils as installed

    if not installed.is_xformers_available():
        return
    try:
        import xformers.ops  # noqa: F401
    except Exception as error:  # linkers and CUDA have errors of every kind
        installed._xformers_available = False
        warnings.warn(f"{misfit(error)} Until then PyTorch's own attention is used.", stacklevel=2)


def misfit(error: BaseException) -> str:
    """One sentence for a failed import: which package it was, why, and what to do."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    name = _package(error) or "a package"
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return (
        f"{name} is installed but cannot be imported ({reason[:300].rstrip('.')}): "
        f"install the build of it that fits torch {version('torch')}, or uninstall it."
    )


def _package(error: BaseException) -> str:
    """The name and version of the installed package in which an error arose; nothing if it arose in none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        parts = Path(frame.filename).parts
        if "site-packages" in parts:
            name = parts[parts.index("site-packages") + 1].removesuffix(".py")
            try:
                return f"{name} {version(name)}"
            except PackageNotFoundError:  # called otherwise than its folder
                return name
    return ""
