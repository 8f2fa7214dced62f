"""Inpainting bases: U-Nets that also see which part of a picture is to be painted, and what is around it.

In: a U-Net's configuration, pictures as pixels. Out: holes, and the five channels that follow the four noisy ones: the
mask, 1 in the hole, and the latents of the picture whose hole is grey (Rombach et al. 2022, arXiv 2112.10752; the same
order as in diffusers' StableDiffusionXLInpaintPipeline).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from .objective.latent_scaling import LatentScaling

WHOLE_SHARE = 0.25  # of the holes: as Stable Diffusion's inpainting models were trained ("in 25% mask everything")


def inpaints(unet: Mapping[str, Any]) -> bool:
    """Whether a U-Net of this configuration takes a mask and the masked picture beside its latents."""
    latents = int(unet.get("out_channels") or 4)
    return int(unet.get("in_channels") or 4) == 2 * latents + 1


def draw_hole(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """A hole (height, width), True where to paint: everything, or a rectangle or ellipse of any size and place inside.

    Shapes as in diffusers' train_dreambooth_inpaint.py (random_mask).
    """
    whole, round_, *share = generator.random(6)
    if whole < WHOLE_SHARE:
        return np.ones((height, width), dtype=bool)
    down, across = int(share[0] * (height + 1)), int(share[1] * (width + 1))
    top, left = int(share[2] * (height - down + 1)), int(share[3] * (width - across + 1))
    hole = np.zeros((height, width), dtype=bool)
    if round_ < 0.5:
        hole[top : top + down, left : left + across] = True
        return hole
    y, x = np.ogrid[:height, :width]
    middle_y, middle_x = top + (down - 1) / 2, left + (across - 1) / 2
    inside: np.ndarray = ((y - middle_y) / max(down / 2, 0.5)) ** 2 + ((x - middle_x) / max(across / 2, 0.5)) ** 2 <= 1
    return inside & (down > 0) & (across > 0)


def hollowed(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Pixels (3, H, W) in [-1, 1] with the hole in mid grey."""
    return np.where(hole, pixels.dtype.type(0), pixels)


def mask_of(hole: np.ndarray, scale: int) -> np.ndarray:
    """A hole in pixels as the mask (1, h, w) fp32 of latents, the nearest pixel of each, as torch's interpolate."""
    return hole[::scale, ::scale][None].astype(np.float32)


def paint_everything(pipeline: Any, scaling: "LatentScaling") -> "RemovableHandle":
    """Let a text-to-image pipeline draw with an inpainting U-Net: all of the picture is a hole.

    That is StableDiffusionXLInpaintPipeline with a white mask at strength 1, but for the sampling of the grey
    picture's latents, of which the mean is taken. The U-Net is as it was once the handle is removed.
    """
    import torch

    unet, vae = pipeline.unet, pipeline.vae
    grey: dict[tuple[int, int], torch.Tensor] = {}

    def append(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        sample = arguments[0]
        if sample.shape[1] != module.config.out_channels:
            return None  # training hands all channels over
        shape = tuple(sample.shape[-2:])
        if shape not in grey:
            scale = 2 ** (len(vae.config.block_out_channels) - 1)
            pixels = torch.zeros(1, 3, *(scale * side for side in shape), device=vae.device, dtype=vae.dtype)
            latents = scaling.scaled(vae.encode(pixels).latent_dist.mean)
            grey[shape] = torch.cat([torch.ones_like(latents[:, :1]), latents], dim=1)
        more = grey[shape].to(sample).expand(len(sample), -1, -1, -1)
        return (torch.cat([sample, more], dim=1), *arguments[1:])

    prepare = pipeline.prepare_latents
    pipeline.prepare_latents = lambda many, channels, *rest: prepare(many, unet.config.out_channels, *rest)
    handle: RemovableHandle = unet.register_forward_pre_hook(append)
    return handle
