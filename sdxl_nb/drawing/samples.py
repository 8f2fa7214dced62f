"""Pictures whose prompts have sizes, seeds, steps, guidance, negatives and samplers of their own.

In: a base and a LoRA as `generate` takes them, and Drawings, or a file or lines of sample prompts. Out: a PictureGrid.
A picture drawn here is that of a training run which draws the same, and of diffusers' own pipeline.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..config.prompts import Drawing, read_prompts
from ..system.errors import ConfigError
from .generation import EMBEDDED_BASE, Cell, PictureGrid, generate, load_base
from .scheduler import sampled_by

if TYPE_CHECKING:
    from PIL.Image import Image


def draw(base: Any, lora: Any, drawings: Sequence[Drawing], scale: float = 1.0) -> PictureGrid:
    """Draw each at this scale of the LoRA; pictures are called by their lines. `base` as of `generate`."""
    pipeline = load_base(base)
    found: dict[Cell, Image] = {}
    own = pipeline.scheduler
    try:
        for _, of_one in groupby(drawings, key=lambda drawing: drawing.number):
            same = list(of_one)
            first = same[0]
            pipeline.scheduler = own if first.sampler is None else sampled_by(own, first.sampler)
            grid = generate(
                pipeline,
                lora,
                first.prompt,
                scales=(scale,),
                seeds=[drawing.seed for drawing in same],
                num_inference_steps=first.steps,
                guidance_scale=first.guidance,
                height=first.height,
                width=first.width,
                negative_prompt=first.negative or None,
                progress=False,
            )
            found |= {Cell(first.line, cell.label, cell.seed): picture for cell, picture in grid.pictures.items()}
    finally:
        pipeline.scheduler = own
    return PictureGrid(found)


def draw_samples(
    prompts: Any,
    base: Any = EMBEDDED_BASE,
    lora: Any = None,
    scale: float = 1.0,
    *,
    seed: int = 0,
    num_inference_steps: int = 25,
    guidance_scale: float = 5.0,
    side: int | None = None,
) -> PictureGrid:
    """Draw sample prompts: a file (kohya's lines, TOML, YAML, JSON), or lines such as "a cup --w 832 --h 1216 --d 7".

    What a prompt does not say is as given here; `side` is the base's own. ConfigError names the line that is wrong.
    """
    try:
        one = isinstance(prompts, str) and " --" in prompts and "\n" not in prompts  # that may end in .txt
        samples = read_prompts([prompts] if one else prompts)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    pipeline = load_base(base)
    usual = side or pipeline.default_sample_size * pipeline.vae_scale_factor
    drawings = [
        Drawing(
            number,
            sample.line(),
            sample.prompt,
            sample.negative or "",
            sample.width or sample.height or usual,
            sample.height or sample.width or usual,
            seed if sample.seed is None else sample.seed,
            sample.steps or num_inference_steps,
            guidance_scale if sample.guidance is None else sample.guidance,
            sample.sampler,
        )
        for number, sample in enumerate(samples)
    ]
    return draw(pipeline, lora, drawings, scale)
