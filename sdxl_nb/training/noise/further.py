"""Noise other than the plain one: with an offset, at several resolutions, disturbed.

In: the noise of a batch (N, 4, h, w), and for what is drawn anew a generator for each picture (data/sampling.py), so
that it is a function of (seed, position) too. Out: noise of the same shape.
"""

from collections.abc import Sequence

import numpy as np
import torch


def offset_noise(
    noise: torch.Tensor, offset: torch.Tensor, scale: float, adaptive: float, x0: torch.Tensor
) -> torch.Tensor:
    """Noise that moves whole channels (crosslabs.org/blog/diffusion-with-offset-noise), by `offset` (N, 4, 1, 1).

    Adaptive as in sd-scripts: the scale grows by `adaptive` times the channel's mean, its sign left out, and is at
    least 0.
    """
    if not adaptive:
        return noise + scale * offset
    return noise + (scale + adaptive * x0.mean(dim=(2, 3), keepdim=True).abs()).clamp(min=0) * offset


def pyramid(
    noise: torch.Tensor, generators: Sequence[np.random.Generator], levels: int, discount: float
) -> torch.Tensor:
    """Multi-resolution noise (wandb.ai/johnowhitaker/multires_noise): coarser noise on top, each picture's own.

    Each level is coarser by a factor between 2 and 4 to the power of its number, and weighs `discount` to that power;
    the sum has a standard deviation of 1.
    """
    made = [_pyramid(one, generator, levels, discount) for one, generator in zip(noise, generators, strict=True)]
    return torch.stack(made)


def _pyramid(noise: torch.Tensor, generator: np.random.Generator, levels: int, discount: float) -> torch.Tensor:
    channels, height, width = noise.shape
    for level in range(levels):
        factor = (2 + 2 * generator.random()) ** level
        low, narrow = max(1, int(height / factor)), max(1, int(width / factor))
        coarse = torch.from_numpy(generator.standard_normal((1, channels, low, narrow), dtype=np.float32))
        finer = torch.nn.functional.interpolate(coarse.to(noise.device), (height, width), mode="bilinear")
        noise = noise + finer[0] * discount**level
        if low == 1 or narrow == 1:
            break
    return noise / noise.std()


def perturbation(noise: torch.Tensor, generators: Sequence[np.random.Generator]) -> torch.Tensor:
    """As much noise again, for the input alone (arXiv 2301.11706)."""
    drawn = np.stack([each.standard_normal(noise.shape[1:], dtype=np.float32) for each in generators])
    return torch.from_numpy(drawn).to(noise.device)
