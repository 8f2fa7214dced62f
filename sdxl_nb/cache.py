"""Pictures as VAE latents: encoded once before training, or anew for every step.

In: captioned pictures, a frozen VAE and a TrainConfig. Out: for the pictures and random choices of a batch, scaled
latents (N, 4, h, w) fp32 and SDXL's time ids (N, 6) fp32. The VAE gives a mean and a standard deviation; the sample
is drawn at every step from the position's own noise, so encoding once changes no loss.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .crops import Crop, plan_crop
from .errors import ModelError
from .sampling import Choices

Progress = Callable[[int, int], None]


class Encoder:
    """Decodes, crops and encodes pictures: the part that both ways share."""

    def __init__(self, pictures: Sequence[Any], vae: Any, config: Any):
        self.pictures, self.vae, self.config = pictures, vae, config

    def crop(self, size: tuple[int, int], choices: Choices | None, flip: bool) -> Crop:
        """The crop of a picture; without choices the one that does not change: its centre, or place (u, v) = (½, ½)."""
        config = self.config
        u, v = (choices.u, choices.v) if choices else (0.5, 0.5)
        return plan_crop(size, config.resolution, config.center_crop, flip, u, v, config.image_interpolation_mode)

    def flips(self, choices: Choices) -> bool:
        return self.config.random_flip and choices.flip

    @torch.no_grad()
    def encode(self, pixels: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents of (3, H, W) pictures, fp32 on the CPU."""
        batch = torch.from_numpy(np.stack(pixels)).to(self.vae.device, self.vae.dtype)
        latents = self.vae.encode(batch).latent_dist
        mean, std = latents.mean.float().cpu(), latents.std.float().cpu()
        if not torch.isfinite(mean).all():
            raise ModelError(
                "The VAE made latents that are not numbers: use --pretrained_vae_model_name_or_path "
                "madebyollin/sdxl-vae-fp16-fix, or --mixed_precision no."
            )
        return mean, std

    def sample(self, mean: torch.Tensor, std: torch.Tensor, choices: Sequence[Choices]) -> torch.Tensor:
        """Latents drawn from the VAE's distribution, shifted and scaled as the VAE's config says."""
        noise = torch.from_numpy(np.stack([c.noise(tuple(mean.shape[1:])) for c in choices]))
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (mean + std * noise - shift) * self.vae.config.scaling_factor


class LiveLatents(Encoder):
    """Encodes the pictures of each batch when they are asked for, at the crop that their choices say."""

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, time_ids = [], []
        for index, chosen in zip(indices, choices, strict=True):
            sample = self.pictures[index]
            crop = self.crop(sample.original_size, chosen, self.flips(chosen))
            pixels.append(crop.apply(sample.picture))
            time_ids.append(crop.time_ids)
        return self.sample(*self.encode(pixels), choices), torch.tensor(time_ids, dtype=torch.float32)


class CachedLatents(Encoder):
    """Encodes every picture once, and once more mirrored with `random_flip`; each has one crop for the whole run."""

    def __init__(
        self, pictures: Sequence[Any], vae: Any, config: Any, progress: Progress | None = None, batch: int | None = None
    ):
        super().__init__(pictures, vae, config)
        batch = batch or min(8, max(1, 512**2 // config.resolution**2))  # a large picture fills a GPU alone
        self.variants = (False, True) if config.random_flip else (False,)
        self.moving = 0  # pictures whose random crop would have moved from epoch to epoch
        stored: list[tuple[torch.Tensor, ...]] = []
        for first in range(0, len(pictures), batch):
            stored.append(self._encode_variants(range(first, min(first + batch, len(pictures)))))
            if progress:
                progress(min(first + batch, len(pictures)), len(pictures))
        self.mean, self.std, self.time_ids = (torch.cat(parts) for parts in zip(*stored, strict=True))

    def _encode_variants(self, indices: range) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels, time_ids = [], []
        for index in indices:
            sample = self.pictures[index]
            for flip in self.variants:
                crop = self.crop(sample.original_size, None, flip)
                pixels.append(crop.apply(sample.picture))
                time_ids.append(crop.time_ids)
            self.moving += not self.config.center_crop and crop.resized != crop.target_size
        return *self.encode(pixels), torch.tensor(time_ids, dtype=torch.float32)

    def __call__(self, indices: Sequence[int], choices: Sequence[Choices]) -> tuple[torch.Tensor, torch.Tensor]:
        many = len(self.variants)
        rows = torch.tensor(
            [i * many + (self.flips(c) if many > 1 else 0) for i, c in zip(indices, choices, strict=True)]
        )
        return self.sample(self.mean[rows], self.std[rows], choices), self.time_ids[rows]
