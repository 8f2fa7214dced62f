"""The table of scores: a row for the bare base and for every stage, a column for each metric, the best starred.

In: values by step and metric. Out: `Scores`, which prints, shows itself in a notebook, and is JSON with `as_json`.
"""

import html
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from .best import Choice, choose, copies
from .intervals import Score, number
from .kept import Kept
from .scorer import Scorer

CELL = "text-align:left;padding:2px 8px"


class Scores:
    """What `score_run` found. `scores[step]["likeness"]` is a Score, step 0 the bare base; `best` the starred step."""

    def __init__(
        self,
        name: str,
        kept: Mapping[int, Mapping[str, Kept]],
        scorers: Mapping[str, Scorer],
        lacking: Mapping[str, str],
        by: Sequence[str] = (),
        notes: Sequence[str] = (),
    ):
        self.name, self.kept, self.scorers, self.lacking, self.by = name, kept, scorers, lacking, by
        self._notes = list(notes)
        self.shortfalls: list[str] = []  # what of a gate's thresholds is missed

    @cached_property
    def table(self) -> dict[int, dict[str, Score]]:
        """Step -> metric -> Score."""
        return {s: {name: Score.of(kept.values) for name, kept in row.items()} for s, row in self.kept.items()}

    def __getitem__(self, step: int) -> dict[str, Score]:
        return self.table[step]

    @property
    def steps(self) -> list[int]:
        """The stages, 0 for the bare base first."""
        return sorted(self.kept)

    @property
    def metrics(self) -> list[str]:
        """The metrics that were measured at some stage."""
        return [name for name in self.scorers if any(name in row for row in self.kept.values())]

    @cached_property
    def choice(self) -> Choice:
        """The best stage, with the reason."""
        return choose(self.table, self.scorers, self.by)

    @property
    def best(self) -> int | None:
        """The starred step; None without any LoRA."""
        return self.choice.step

    @property
    def reason(self) -> str:
        """Why it is starred."""
        return self.choice.reason

    @cached_property
    def copying(self) -> list[int]:
        """The steps that copy training pictures."""
        return copies(self.table)

    @property
    def notes(self) -> list[str]:
        """What there is to say below the table, a sentence each."""
        star = [] if self.best is None else [f"★ step {self.best}: {self.reason}."]
        flags = [f"step {step} copies training pictures. {self._remark(step, 'copying')}" for step in self.copying]
        said = {kept.remark for row in self.kept.values() for name, kept in row.items() if name != "copying"}
        lacking = [f"{name} was not measured: {reason}." for name, reason in self.lacking.items()]
        short = [f"The gate is missed: {one}." for one in self.shortfalls]
        return [*star, *flags, *sorted(said - {""}), *lacking, *self._notes, *short]

    def _remark(self, step: int, metric: str) -> str:
        return self.kept[step][metric].remark

    def as_json(self) -> dict[str, Any]:
        """Means, intervals and the choice as plain values."""
        rows = {str(s): {name: vars(score) for name, score in self.table[s].items()} for s in self.steps}
        return {"run": self.name, "best": self.best, "reason": self.reason, "copying": self.copying, "scores": rows}

    def _label(self, step: int) -> str:
        return f"step {step}" + (" ★" if step == self.best else "") if step else "base"

    def _head(self, name: str) -> str:
        return f"{name} {'↑' if self.scorers[name].better == 'higher' else '↓'}"

    def _cell(self, step: int, name: str) -> str:
        score = self.table[step].get(name)
        mark = " (!)" if name == "copying" and step in self.copying else ""
        return "–" if score is None else f"{score}{mark}"

    def __str__(self) -> str:
        heads = ["", *map(self._head, self.metrics)]
        rows = [[self._label(step), *(self._cell(step, name) for name in self.metrics)] for step in self.steps]
        wide = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in (heads, *rows)]
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return f"Scores({self.name}: {len(self.steps)} stages, {', '.join(self.metrics)}, best step {self.best})"

    def _repr_html_(self) -> str:
        heads = "".join(
            f'<th style="{CELL}" title="{html.escape(one.sentence)}">{html.escape(self._head(name))}</th>'
            for name, one in self.scorers.items()
            if name in self.metrics
        )
        body = "".join(f"<tr>{self._row(step)}</tr>" for step in self.steps)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        table = f'<table style="color:inherit;background:none"><tr><th></th>{heads}</tr>{body}</table>'
        return f"<div>{table}<ul>{notes}</ul></div>"

    def _row(self, step: int) -> str:
        cells = []
        for name in self.metrics:
            score, mark = self.table[step].get(name), " ⚠" if name == "copying" and step in self.copying else ""
            between = "" if score is None or score.low is None else f"<br><small>{_between(score)}</small>"
            cells.append(f'<td style="{CELL}">{"–" if score is None else number(score.mean)}{mark}{between}</td>')
        return f'<th style="{CELL}">{self._label(step)}</th>' + "".join(cells)


def _between(score: Score) -> str:
    assert score.low is not None and score.high is not None
    return f"{number(score.low)} to {number(score.high)}"
