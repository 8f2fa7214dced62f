"""Other libraries' notices are kept from the reader: what matters becomes a sentence of ours."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator

from ..system.misfits import leave_out_xformers


@contextlib.contextmanager
def hushed(*libraries: str) -> Iterator[None]:
    """Silence transformers' and diffusers' bars, notices and warnings: what matters becomes a sentence of ours."""
    names = libraries or ("diffusers", "transformers")
    if "diffusers" in names:
        leave_out_xformers()
    modules = [importlib.import_module(f"{name}.utils.logging") for name in names]
    kept = [(module.get_verbosity(), module.is_progress_bar_enabled()) for module in modules]
    for module in modules:
        module.set_verbosity(logging.CRITICAL)
        module.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, (verbosity, bar) in zip(modules, kept, strict=True):
            module.set_verbosity(verbosity)
            if bar:
                module.enable_progress_bar()
