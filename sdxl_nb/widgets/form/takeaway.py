"""A configuration to take along: as Python, as flags, and as a file, each one press from the clipboard or the disk.

In: a TrainConfig and the preset it started from. Out: folded texts below the form, and buttons that save.
"""

import shlex
from collections.abc import Callable
from html import escape
from typing import Any

from ipywidgets import HTML, Button, HBox, Layout, Text, VBox

from ...config.formats import render
from ...config.precedence import overlay
from ...config.train_config import TrainConfig
from ...system.errors import ConfigError
from ..parts.downloads import DownloadButton
from ..parts.fold import Fold

COPY = (
    "const t=this.parentNode.querySelector('textarea');"
    "t.select();document.execCommand('copy');this.textContent='Copied';this.focus()"
)


def as_python(config: TrainConfig, preset: str | None = None) -> str:
    """Code that makes this configuration again, from the preset or from the defaults."""
    lines = [f'"{preset}"'] if preset else []
    lines += [f"{name}={value!r}" for name, value in changes(config, preset).items()]
    call = "TrainConfig.preset" if preset else "TrainConfig"
    inside = "".join(f"\n    {line}," for line in lines) + "\n" if len(lines) > 1 else "".join(lines)
    return f"from sdxl_nb import TrainConfig\n\nconfig = {call}({inside})\n"


def as_flags(config: TrainConfig) -> str:
    """A command for the shell that trains with this configuration."""
    return " \\\n    ".join(["python -m sdxl_nb.train", *map(shlex.quote, config.to_flags())]) + "\n"


def changes(config: TrainConfig, preset: str | None) -> dict[str, Any]:
    """The fewest settings that turn the preset into this configuration, or the defaults."""
    if preset is None:
        return config.essentials()
    below, wanted = TrainConfig.preset(preset).model_dump(), config.model_dump()
    needed = {name: value for name, value in wanted.items() if value != below[name]}
    reached = TrainConfig(**overlay(below, needed)).model_dump()  # a new base model drops what belonged to the old one
    return needed | {name: value for name, value in wanted.items() if value != reached[name]}


class Takeaway(VBox):
    """The three forms of the configuration; `show` fills them."""

    def __init__(self, guard: Callable[..., Any], say: Callable[[str], object], fail: Callable[[Exception], object]):
        self._texts = [HTML() for _ in range(3)]
        self._config: TrainConfig | None = None
        self._say = say
        self._path = Text("config.json", description="file", tooltip="JSON or YAML", layout=Layout(width="320px"))
        self._save = Button(description="Save here", icon="save", tooltip="Write it beside the notebook")
        self._save.on_click(guard(lambda button: self.save(self._path.value)))
        self._download = DownloadButton("Download", "config.json", lambda: self._file().encode(), fail)
        self._download.layout.margin = "2px"  # as the other controls have it
        buttons = HBox([self._path, self._save, self._download], layout=Layout(flex_flow="row wrap"))
        python, flags, file = ([text] for text in self._texts)
        folds = {"Copy as Python": python, "Copy as flags": flags, "Copy or save as a file": [*file, buttons]}
        super().__init__([Fold(title, inside) for title, inside in folds.items()])

    def show(self, config: TrainConfig | None, preset: str | None) -> None:
        """Fill the three texts; without a valid configuration they say so."""
        self._config = config
        self._save.disabled = self._download.disabled = config is None
        if config is None:
            texts = ["There is nothing to copy until the settings above are mended."] * 3
        else:
            texts = [as_python(config, preset), as_flags(config), self._file()]
        for widget, text, kind in zip(self._texts, texts, ("Python", "flags", "a file"), strict=True):
            widget.value = _copyable(text, f"the settings as {kind}") if config else f"<i>{text}</i>"

    def _valid(self) -> TrainConfig:
        """The configuration. Raises ConfigError while there is none."""
        if self._config is None:
            raise ConfigError("There is nothing to save until the settings above are mended.")
        return self._config

    def _file(self) -> str:
        return render(self._valid().model_dump(mode="json"), ".json")

    def save(self, path: str) -> None:
        """Write the configuration as JSON or YAML. Raises ConfigError."""
        self._valid().save(path)
        self._say(f"Saved as {path}; --config {path} and TrainConfig.load read it.")


def _copyable(text: str, label: str) -> str:
    rows = min(text.count("\n") + 1, 16)
    look = f'class="sdxl-nb-text" readonly rows="{rows}" spellcheck="false" aria-label="{label}"'
    area = f"<textarea {look}>{escape(text)}</textarea>"
    return f'<div>{area}<button class="jupyter-button sdxl-nb-copy" type="button" onclick="{COPY}">Copy</button></div>'
