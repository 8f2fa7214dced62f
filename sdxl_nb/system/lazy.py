"""The public names of a wing, each imported when it is first asked for, so that opening a wing costs nothing.

In: the wing's name and a table of names and their modules. Out: what its `__init__.py` hands to Python (PEP 562).
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from .importing import uncollected

Lazy = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def public(package: str, modules: Mapping[str, str]) -> Lazy:
    """`__getattr__`, `__dir__` and `__all__` of a package whose public names lie in these modules below it."""

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with uncollected():
            return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get, lambda: sorted(modules), [*modules]
