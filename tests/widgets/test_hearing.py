"""Every widget with a module of its own hears the kernel on a page that is slow (seen in test_browser_pictures.py)."""

import importlib
import pkgutil
import re

import anywidget

import sdxl_nb.widgets
from sdxl_nb.widgets.parts.hearing import HearingWidget


def kinds(of):
    """All classes below one that this package has, whatever module they are in."""
    for module in pkgutil.walk_packages(sdxl_nb.widgets.__path__, "sdxl_nb.widgets."):
        importlib.import_module(module.name)
    found, new = set(), {of}
    while new:
        found |= new
        new = {below for kind in new for below in kind.__subclasses__()} - found
    return {
        kind for kind in found if kind.__module__.startswith("sdxl_nb.") and isinstance(vars(kind).get("_esm"), str)
    }


def test_every_module_is_one_that_hears():
    ours = kinds(anywidget.AnyWidget)
    assert ours == kinds(HearingWidget) and len(ours) == 12
    for kind in ours:
        assert len(re.findall(r"const initialize = ", kind._esm)) == 1, kind
        assert re.search(r"export default \{ initialize, render\b", kind._esm), kind
