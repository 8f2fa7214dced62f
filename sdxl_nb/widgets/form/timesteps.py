"""At which timesteps a run trains, as bars and in words.

In: a TrainConfig. Out: HTML with a drawing that takes the page's colours, and its text alternative; nothing where every
timestep is as likely as any other.
"""

import numpy as np

from ...config.train_config import TrainConfig
from ...training.noise.timesteps import shares, spread

COUNT = 1000  # timesteps of SDXL and of what came of it
BARS, PARTS = 50, 5
WIDTH, HEIGHT = 300, 56  # pixels


def histogram(config: TrainConfig) -> str:
    """The bars of a configuration's timesteps; "" for even ones."""
    if spread(config, COUNT) is None:
        return ""
    said = f"Timesteps that are drawn, from the clearest to the noisiest: {words(config)}."
    found = shares(config, COUNT, BARS)
    wide, tall = WIDTH / BARS, HEIGHT / found.max()
    bars = "".join(
        f'<rect x="{number * wide:.1f}" y="{HEIGHT - share * tall:.1f}" width="{wide - 1:.1f}" '
        f'height="{share * tall:.1f}"/>'
        for number, share in enumerate(found.tolist())
        if share
    )
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" fill="currentColor"'
    drawn = f'<div><svg role="img" aria-label="{said}" {size}>{bars}</svg></div>'
    return f'<div class="sdxl-nb-plan"><b>Timesteps</b>{drawn}<div>{said}</div></div>'


def words(config: TrainConfig) -> str:
    """The share of each fifth of all timesteps, such as 0-199 10%."""
    step = COUNT // PARTS
    parts: list[float] = np.round(100 * shares(config, COUNT, PARTS)).tolist()
    return ", ".join(f"{n * step}-{(n + 1) * step - 1} {part:.0f}%" for n, part in enumerate(parts))
