"""A run as matplotlib Figures that show themselves, drawn without pyplot: safe in threads, no global state."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..system.figures import Sheet
    from .run import Run

RAW, SMOOTHED, HELDOUT = "#99aabb", "#c2410c", "#2563a8"
INK = "#808080"  # of words in the place of a curve
POINTS = 2000  # more are not told apart on a screen


def loss_figure(run: "Run") -> "Sheet":
    """Training loss of each step, faint, its exponential average over about 20 steps, and the held-out loss if any."""
    from ..system.figures import Sheet

    figure = Sheet(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    steps, losses = run.losses()
    if steps:
        values = gapped(losses)
        every = -(-len(steps) // POINTS)
        axes.plot(steps[::every], values[::every], color=RAW, linewidth=0.8, alpha=0.7, label="each step")
        axes.plot(steps[::every], smooth(values)[::every], color=SMOOTHED, linewidth=2, label="smoothed")
        at, heldout = run.heldout()
        if at:
            axes.plot(at, heldout, color=HELDOUT, linewidth=1.5, marker="o", markersize=4, label="held out")
        axes.legend(frameon=False).set_in_layout(False)
    else:
        axes.text(0.5, 0.5, "no step yet", ha="center", va="center", transform=axes.transAxes, color=INK)
    axes.set(xlabel="optimizer step", ylabel="loss" if run.heldout()[0] else "training loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="x", integer=True)  # there is no half a step
    return figure


def gapped(values: Iterable[float | None]) -> np.ndarray:
    """Numbers as an array; NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def smooth(values: np.ndarray, span: int = 20) -> np.ndarray:
    """Exponential moving average with the start corrected (as Adam corrects its moments); NaN is passed over."""
    share, total, weight = 2 / (span + 1), 0.0, 0.0
    out: list[float] = []
    for value in values.tolist():  # plain numbers: a third of the time that numpy's take
        if value == value:
            total, weight = total * (1 - share) + value * share, weight * (1 - share) + share
        out.append(total / weight if weight else np.nan)
    return np.array(out, dtype=float)


def thinned(x: np.ndarray, y: np.ndarray, low: float, high: float, pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """The points from `low` to `high` and one beyond each end, of each of so many pieces the lowest and the highest.

    `x` rises; a gap in `y` is NaN. What is drawn of at most 2 x `pieces` points is what all of them would look like.
    """
    first, last = np.searchsorted(x, low, "left"), np.searchsorted(x, high, "right")
    x, y = x[max(first - 1, 0) : last + 1], y[max(first - 1, 0) : last + 1]
    each = -(-len(x) // pieces)
    if each <= 2:
        return x, y
    rows = -(-len(x) // each)
    padded = np.full(rows * each, np.nan)
    padded[: len(y)] = y
    table, begins = padded.reshape(rows, each), np.arange(rows) * each
    lowest = begins + np.where(np.isnan(table), np.inf, table).argmin(1)
    highest = begins + np.where(np.isnan(table), -np.inf, table).argmax(1)
    kept = np.unique(np.concatenate([lowest, highest]))
    return x[kept], y[kept]


def validation_figure(run: "Run") -> "Sheet":
    """Validation pictures, one row a prompt and seed, one column a step; at most eight steps, evenly chosen."""
    from ..system.figures import Sheet, picture_in, show

    by_step = run.pictures()
    steps = list(by_step)
    if len(steps) > 8:
        steps = [steps[round(i)] for i in np.linspace(0, len(steps) - 1, 8)]
    names = [path.stem for path in by_step[steps[0]]] if steps else []
    figure = Sheet(figsize=(1.6 * max(len(steps), 1) + 1.6, 1.75 * max(len(names), 1)), layout="constrained")
    if not names:
        figure.text(0.5, 0.5, "no validation picture yet", ha="center", va="center")
        return figure
    prompts = list({drawing.number: drawing.line for drawing in run.config.drawings()}.values())
    for row, axes_row in enumerate(figure.subplots(len(names), len(steps), squeeze=False)):
        for step, axes in zip(steps, axes_row, strict=True):
            path = run.folder / "validation" / f"step-{step}" / f"{names[row]}.png"
            if path.is_file():
                show(axes, picture_in(path))
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(f"step {step}", fontsize=9)
        number, seed = names[row].split("-")
        prompt = prompts[int(number)] if int(number) < len(prompts) else f"prompt {number}"
        label = _wrapped(prompt, 18).replace("$", r"\$") + f"\nseed {seed}"
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width, max_lines=5))
