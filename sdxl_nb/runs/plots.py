"""A run as matplotlib Figures that show themselves, drawn without pyplot: safe in threads, no global state."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..system.figures import Sheet
    from .run import Run

RAW, SMOOTHED, HELDOUT = "#99aabb", "#c2410c", "#2563a8"
INK = "#808080"  # of a curve without a ground of its own: it is read on a light page and on a dark one
POINTS = 2000  # more are not told apart on a screen


def loss_figure(run: "Run", *, see_through: bool = False) -> "Sheet":
    """Training loss of each step, faint, its exponential average over about 20 steps, and the held-out loss if any.

    With `see_through` it has no ground of its own, for a page that may be dark.
    """
    from ..system.figures import Sheet

    figure = Sheet(figsize=(7, 3), layout="constrained", **{"facecolor": "none"} if see_through else {})
    axes = figure.subplots()
    steps, losses = run.losses()
    if steps:
        values = np.array([np.nan if loss is None else loss for loss in losses], dtype=float)
        every = -(-len(steps) // POINTS)
        axes.plot(steps[::every], values[::every], color=RAW, linewidth=0.8, alpha=0.7, label="each step")
        axes.plot(steps[::every], smooth(values)[::every], color=SMOOTHED, linewidth=2, label="smoothed")
        at, heldout = run.heldout()
        if at:
            axes.plot(at, heldout, color=HELDOUT, linewidth=1.5, marker="o", markersize=4, label="held out")
        legend = axes.legend(frameon=False, labelcolor=INK if see_through else None)
        legend.set_in_layout(False)
    else:
        axes.text(0.5, 0.5, "no step yet", ha="center", va="center", transform=axes.transAxes, color=INK)
    axes.set(xlabel="optimizer step", ylabel="loss" if run.heldout()[0] else "training loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.locator_params(axis="x", integer=True)  # there is no half a step
    if see_through:
        axes.set_facecolor("none")
        axes.tick_params(colors=INK)
        axes.spines[:].set_color(INK)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(INK)
    return figure


def smooth(values: np.ndarray, span: int = 20) -> np.ndarray:
    """Exponential moving average with the start corrected (as Adam corrects its moments); NaN is passed over."""
    share, total, weight, out = 2 / (span + 1), 0.0, 0.0, np.empty_like(values)
    for i, value in enumerate(values):
        if value == value:
            total, weight = total * (1 - share) + value * share, weight * (1 - share) + share
        out[i] = total / weight if weight else np.nan
    return out


def validation_figure(run: "Run") -> "Sheet":
    """Validation pictures, one row a prompt and seed, one column a step; at most eight steps, evenly chosen."""
    from PIL import Image

    from ..system.figures import Sheet

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
                axes.imshow(Image.open(path), interpolation="nearest")
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
