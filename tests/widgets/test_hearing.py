"""Every widget with a module of its own hears the kernel on a page that is slow (seen in test_browser_pictures.py), and
what is typed in a form is heard before its Start, also while a cell runs (seen in test_browser_typing.py)."""

import importlib
import pkgutil
import re

import anywidget
import comm
import pytest
from ipykernel.comm.comm import BaseComm
from ipywidgets import Widget

import sdxl_nb.widgets
from sdxl_nb import ConfigForm, TrainConfig
from sdxl_nb.widgets.dataset.cards import Card
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


def test_a_card_has_its_class_when_the_page_hears_of_it():
    """A view that is made before a class comes has the look of none: a card is larger than the page's columns."""
    heard = []
    Widget.on_widget_constructed(lambda made: isinstance(made, Card) and heard.append(list(made._dom_classes)))
    try:
        Card("a.png", None, print, print)
    finally:
        Widget.on_widget_constructed(None)
    assert heard == [["sdxl-nb-card"]]


class Page:
    """What a front end says while a cell runs: ipykernel's own comms say which thread hears it, that of cells or the
    subshell that it was sent to; of two threads each hears in order."""

    def __init__(self):
        self.cells, self.subshell = [], []

    def say(self, widget, **data):
        widget.comm._reply_subshell_id = None  # the kernel has spoken of it in a cell
        lane = widget.comm._reply_subshell_for(data, "subshell")
        message = {"content": {"comm_id": widget.comm.comm_id, "data": data}, "buffers": []}
        (self.subshell if lane else self.cells).append(lambda: widget.comm.handle_msg(message))

    def type_in(self, widget, value):
        self.say(widget, method="update", state={"value": value})

    def press(self, button):
        self.say(button, method="custom", content={"event": "click"})

    def hear(self):
        for lane in (self.subshell, self.cells):  # the cell is over last
            while lane:
                lane.pop(0)()


@pytest.mark.slow
def test_what_is_typed_in_the_form_is_heard_before_start_that_is_pressed_after_it(monkeypatch, tmp_path):
    monkeypatch.setattr(comm, "create_comm", BaseComm)
    launched = []
    monkeypatch.setattr("sdxl_nb.widgets.form.start.launch", lambda config, say: launched.append(config))
    form, page = ConfigForm(TrainConfig.preset("tiny", output_dir=str(tmp_path / "run"))), Page()
    form.start._watch = False
    fields = {name: form._editors[name].input for name in ("max_train_steps", "validation_prompt", "use_dora")}
    page.type_in(fields["max_train_steps"], "33")
    page.type_in(fields["validation_prompt"], "a zarko")
    page.type_in(fields["use_dora"], True)
    page.press(form.start.button)
    page.hear()
    form.start.wait(600)
    (config,) = launched
    assert (config.max_train_steps, config.validation_prompt, config.use_dora) == (33, ["a zarko"], True)
    page.type_in(fields["max_train_steps"], "many")
    page.press(form.start.button)
    page.hear()
    form.start.wait(600)
    assert len(launched) == 1 and "max_train_steps must be a whole number" in form.start._notice.value
    page.press(form._reset)
    page.say(form._presets, method="update", state={"index": form._presets.options.index("sdxl-24gb")})
    page.press(form.start.button)
    page.hear()
    form.start.wait(600)
    assert launched[1].rank == TrainConfig.preset("sdxl-24gb").rank and launched[1].max_train_steps != 33
    form.close()
