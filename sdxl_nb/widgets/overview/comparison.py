"""Two runs compared: what differs in their settings, their losses on one canvas, their pictures under one step slider.

In: two run folders. Out: a box. Everything is read from the folders, a job's from its copy here; nothing is fetched.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from ipywidgets import HTML, Dropdown, HBox, Layout, VBox

from ...config.train_config import TrainConfig
from ...runs.glance import Glance
from ...runs.overview import differences
from ...runs.plots import gapped
from ...runs.run import Run
from ..parts.pictures import BeforeAfter, thumbnail
from ..parts.plot import Line, Plot
from ..playground.sliders import Slider

SIDE = 420  # pixels of a picture
ELSEWHERE = ("output_dir", "output_name", "logging_dir", "resume_from_checkpoint", "overwrite_output_dir")


class Comparison(VBox):
    """`show` two glances, again when they have changed."""

    def __init__(self, one: Glance, other: Glance):
        self.glances = one, other
        self._runs = Run(one.folder), Run(other.folder)
        self.names = [one.name, other.name]
        self._settings, self._plot, self._said = HTML(), Plot(layout=Layout(width="100%")), HTML()
        self._which = Dropdown(description="Picture", layout=Layout(width="520px"))
        self._step = Slider(description="step", room=40)
        self._step.layout.width = f"{SIDE}px"
        self._pair = BeforeAfter(labels=self.names, side=SIDE)
        self._pictures = VBox([HBox([self._which], layout=Layout(flex_flow="row wrap")), self._step, self._pair])
        title = HTML(f"<h3 class='sdxl-nb-between'>{escape(one.name)} and {escape(other.name)}</h3>")
        super().__init__([title, self._settings, self._plot, self._pictures, self._said])
        self._which.observe(lambda change: self._draw(), "value")
        self._step.observe(lambda change: self._draw(), "value")
        self._drawn: tuple[dict[int, list[Path]], ...] = ({}, {})
        self._shown: list[Path | None] = []
        self.show(one, other)

    def show(self, one: Glance, other: Glance) -> None:
        """What the two have now."""
        self.glances = one, other
        self._settings.value = settings_table(self.glances)
        self._plot.show(curves(self._runs, self.names), f"Losses of {one.name} and of {other.name}")
        self._drawn = tuple({step: paths for step, paths in run.pictures().items() if paths} for run in self._runs)
        steps = sorted({*self._drawn[0], *self._drawn[1]})
        self._pictures.layout.display = None if all(self._drawn) else "none"
        self._said.value = "" if all(self._drawn) else _lacking(self.names, self._drawn)
        if not all(self._drawn):
            return
        self._step.step = float(math.gcd(*steps) or 1)
        self._step.min, self._step.max = float(steps[0]), float(max(steps[-1], steps[0] + 1))
        if not self._shown:
            self._step.value = float(steps[-1])
        names = picture_names(self._runs, self._drawn)
        if tuple(names) != tuple(self._which.options):
            chosen = self._which.value or 0
            self._which.options = names
            self._which.value = min(chosen, len(names) - 1)
        self._draw()

    def _draw(self) -> None:
        """The picture that each run had drawn by the step of the slider."""
        if self._which.value is None or not all(self._drawn):
            return
        found = [_by(drawn, self._step.value, self._which.value) for drawn in self._drawn]
        if [path for _, path in found] == self._shown:
            return
        self._shown = [path for _, path in found]
        self._pair.before, self._pair.after = (_bytes(path) for path in self._shown)
        self._pair.labels = [f"{name}, step {step}" for name, (step, _) in zip(self.names, found, strict=True)]
        self._pair.alt = self._which.label


def picture_names(runs: Sequence[Run], drawn: Sequence[dict[int, list[Path]]]) -> list[tuple[str, int]]:
    """The pictures that both runs draw, by their place; where the prompts differ, both are named."""
    many = min(max(map(len, each.values())) for each in drawn)
    names = []
    for place in range(many):
        found = [_prompt(*each, place) for each in zip(runs, drawn, strict=True)]
        prompts, seeds = ([*dict.fromkeys(each)] for each in zip(*found, strict=True))
        names.append((f"{' / '.join(prompts)}, seed {' and '.join(seeds)}", place))
    return names


def _prompt(run: Run, drawn: dict[int, list[Path]], place: int) -> tuple[str, str]:
    """The prompt and the seed of a picture, by its name."""
    path = max(drawn.values(), key=len)[place]
    number, _, seed = path.stem.partition("-")
    prompts = list({each.number: each.line for each in run.config.drawings()}.values())
    prompt = prompts[int(number)] if number.isdigit() and int(number) < len(prompts) else f"prompt {number}"
    return prompt, seed


def _by(drawn: dict[int, list[Path]], step: float, place: int) -> tuple[int, Path | None]:
    """The newest picture of a place that there was at a step; before the first one, the first."""
    having = [at for at, paths in drawn.items() if place < len(paths)]
    at = max((at for at in having if at <= step), default=min(having))
    return at, drawn[at][place]


def _bytes(path: Path | None) -> bytes:
    return thumbnail(path, SIDE) if path else b""


def _lacking(names: Sequence[str], drawn: Sequence[dict[int, list[Path]]]) -> str:
    without = " and ".join(escape(name) for name, each in zip(names, drawn, strict=True) if not each)
    return f"<div class='sdxl-nb-hint'>{without}: no validation picture to compare.</div>"


def curves(runs: Sequence[Run], names: Sequence[str]) -> list[Line]:
    """The averaged training loss and the held-out loss of each run, a colour for each."""
    lines = []
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        steps, losses = run.losses()
        at, heldout = run.heldout()
        lines.append(Line(name, np.array(steps, dtype=float), gapped(losses), colour=number, smoothed=True))
        if at:
            dots = np.array(at, dtype=float), np.array(heldout, dtype=float)
            lines.append(Line(f"{name}, held out", *dots, look="dots", colour=number))
    return lines


def settings_table(glances: Sequence[Glance]) -> str:
    """Every setting that differs, as a table of three columns; what a person wrote is escaped."""
    names = [name for name in TrainConfig.model_fields if name not in ELSEWHERE]
    told = differences(glances, names)
    if not any(told):
        return "<div class='sdxl-nb-hint'>Their settings are the same.</div>"
    heads = "".join(f"<th>{escape(each)}</th>" for each in ("setting", *(seen.name for seen in glances)))
    rows = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{escape(_said(each.get(name)))}</td>' for each in told)}</tr>"
        for name in told[0]
    )
    return f"<table class='sdxl-nb-settings'><tr>{heads}</tr>{rows}</table>"


def _said(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
