"""What looking at a run takes: seconds and memory of its validation pictures, each by its own size, steps and guidance.

In: a TrainConfig, and what is counted of a step and of the VAE (counting.py). Out: numbers for estimate_table.py.
"""

from collections.abc import Sequence

from ..config.prompts import Drawing
from ..config.train_config import TrainConfig
from ..models.architectures import Architecture
from ..training.epochs import drawing_passes, looks_in, steps_per_epoch
from . import counting

AT_ONCE = 512**2  # pixels that are drawn together; of larger pictures one (training/validation.py)


def largest(config: TrainConfig) -> tuple[int, int]:
    """(height, width) of the largest validation picture, resolution where none is drawn: what the VAE must decode."""
    sizes = [(each.height, each.width) for each in config.drawings()]
    return max(sizes or [(config.resolution, config.resolution)], key=lambda size: size[0] * size[1])


def memory(config: TrainConfig, built: Architecture, decoding: int, cuda: bool) -> int:
    """Bytes beside the weights that the costliest pictures of one look take at their worst moment.

    On a CPU pictures are decoded while the next ones are drawn.
    """
    drawings = config.drawings()
    if not drawings:
        return 0
    height, width, many = max(
        (_together(each, drawings) for each in drawings), key=lambda one: one[0] * one[1] * one[2]
    )
    denoising = counting.count_pass(config, built.unet, built.scale, built.tokens, height, width, many)
    return max(denoising, decoding) if cuda else denoising + decoding


def _together(drawing: Drawing, drawings: Sequence[Drawing]) -> tuple[int, int, int]:
    """Height, width, and how many the U-Net sees of them at once, twice as many with guidance."""
    alike = sum((each.height, each.width) == (drawing.height, drawing.width) for each in drawings)
    many = min(alike, max(1, AT_ONCE // (drawing.width * drawing.height)))
    return drawing.height, drawing.width, many * (2 if drawing.guidance > 1 else 1)


def seconds(
    config: TrainConfig, steps: int, entries: int, processes: int, forward: float, operations: float, decoding: float
) -> float:
    """Seconds of all looks at a run of so many steps: a pass at resolution takes `forward` of the arithmetic's.

    `operations` are those of launching what a pass is made of, `decoding` of the VAE at the largest size.
    """
    drawings, (height, width) = config.drawings(), largest(config)
    if not drawings:
        return 0.0
    passes = sum(each.steps * (2 if each.guidance > 1 else 1) for each in drawings)
    areas = sum(each.width * each.height for each in drawings) / (width * height)
    a_look = max(drawing_passes(config) * forward, passes * operations) + areas * decoding
    return a_look * looks_in(config, steps, steps_per_epoch(config, entries, processes))
