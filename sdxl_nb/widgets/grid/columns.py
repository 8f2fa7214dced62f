"""Which stages of a run stand side by side: the ones that matter, or all of them, some at a time.

In: the steps with pictures, those whose LoRA is there, and the best. Out: the steps to show, and the controls that lead
to the others; they are hidden where all fit.
"""

from collections.abc import Collection, Sequence
from typing import Any

import traitlets
from ipywidgets import Button, Checkbox, HBox, Label, Layout

from ...runs.stages import Stages, lowest

MOST = 8  # columns at once


class Columns(HBox):
    """`of` says which steps to show now; `page` is the state, which a person changes."""

    page = traitlets.Int(None, allow_none=True, help="Number of the page of all stages; None for the main ones.")

    def __init__(self):
        self._all = Checkbox(description="all stages", indent=False, layout=Layout(width="auto"))
        self._earlier = Button(description="Earlier", icon="arrow-left", layout=Layout(width="90px"))
        self._later = Button(description="Later", icon="arrow-right", layout=Layout(width="90px"))
        self._said = Label()
        super().__init__([self._all, self._earlier, self._later, self._said])
        self.layout.flex_flow, self.layout.grid_gap, self.layout.display = "row wrap", "4px 12px", "none"
        self._all.observe(lambda change: self._asked(change["new"]), "value")
        self._earlier.on_click(lambda _: self.set_trait("page", self.page - 1))
        self._later.on_click(lambda _: self.set_trait("page", self.page + 1))

    def _asked(self, for_all: bool) -> None:
        if for_all != (self.page is not None):
            self.page = 0 if for_all else None

    @traitlets.observe("page")
    def _turned(self, change: Any) -> None:
        self._all.value = change["new"] is not None

    def of(self, drawn: Collection[int], kept: Collection[int], best: Collection[int | None]) -> list[int]:
        """The steps of this page; the controls say which of all they are."""
        steps = sorted({*drawn, *kept})
        pages = max(1, -(-len(steps) // MOST))
        page = None if self.page is None else min(max(self.page, 0), pages - 1)
        shown = main_steps(drawn, kept, best) if page is None else steps[page * MOST : (page + 1) * MOST]
        self.layout.display = None if len(steps) > MOST else "none"
        self._earlier.disabled, self._later.disabled = not page, page is None or page == pages - 1
        for button in (self._earlier, self._later):
            button.layout.display = "none" if page is None else None
        which = "first, best, last, and those with a LoRA before others" if page is None else _range(shown)
        self._said.value = f"{len(shown)} of {len(steps)} stages: {which}"
        return shown


def _range(steps: Sequence[int]) -> str:
    return f"steps {steps[0]} to {steps[-1]}" if steps else "none"


def main_stages(stages: Stages) -> list[int]:
    """The `main_steps` of a run as it is now, ascending; none before it has drawn or kept anything."""
    drawn, kept, heldout = stages.steps(), stages.steps_with_lora(), stages.heldout()
    return main_steps(drawn, kept, {lowest(heldout, kept), lowest(heldout, {*drawn, *kept})})


def main_steps(drawn: Collection[int], kept: Collection[int], best: Collection[int | None]) -> list[int]:
    """At most MOST of the steps: first, last and best, then those whose LoRA is there, then others, evenly chosen.

    Where pictures and LoRAs are of different steps, half of the places stay for pictures.
    """
    steps = sorted({*drawn, *kept})
    if len(steps) <= MOST:
        return steps
    chosen = {steps[0], steps[-1], *(set(steps) & set(best))}

    def add(those: Collection[int], places: int) -> None:
        chosen.update(_spread([step for step in steps if step in those and step not in chosen], places))

    apart = set(kept) - set(drawn) and set(drawn) - set(kept) - chosen
    left = MOST - len(chosen)
    add(kept, (left + 1) // 2 if apart else left)
    add(set(steps) - set(kept), MOST - len(chosen))
    add(steps, MOST - len(chosen))
    return sorted(chosen)


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """So many of the steps, evenly chosen; all of them where there are no more."""
    if len(steps) <= count:
        return list(steps)
    return [steps[(2 * i + 1) * len(steps) // (2 * count)] for i in range(count)]
