"""How a VAE's latents become what the U-Net sees."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LatentScaling:
    """(z - mean) * factor / std, by channel; without statistics mean is 0 and std 1. Defaults are AutoencoderKL's."""

    factor: float = 0.18215
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "LatentScaling":
        """As a VAE's config says: latents_mean and latents_std (Playground 2.5) or a shift_factor for all channels."""
        factor = config.get("scaling_factor", cls.factor)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:
            return cls(factor, tuple(map(float, mean)), tuple(map(float, std)))
        shift = config.get("shift_factor") or 0.0
        channels = int(config.get("latent_channels", 4))
        return cls(factor, (float(shift),) * channels, (1.0,) * channels) if shift else cls(factor)

    @classmethod
    def fault(cls, config: Mapping[str, Any]) -> str | None:
        """What of a VAE's config cannot scale latents, in a few words; None where all of it can."""
        channels = config.get("latent_channels", 4)
        if not _are_numbers([config.get("scaling_factor", cls.factor)], 1, least=0.0):
            return f"{config.get('scaling_factor')!r} as scaling_factor"
        if None in (config.get("latents_mean"), config.get("latents_std")):
            return None
        if not _are_numbers(config["latents_mean"], channels):
            return f"a latents_mean that is not one number for each of {channels} channels"
        if not _are_numbers(config["latents_std"], channels, least=0.0):
            return f"a latents_std that is not one number above 0 for each of {channels} channels"
        return None

    def scaled(self, latents: "torch.Tensor") -> "torch.Tensor":
        """The VAE's latents (N, c, h, w) as the U-Net's."""
        if not self.mean:
            return latents * self.factor
        mean, std = (self._by_channel(values, latents) for values in (self.mean, self.std))
        return (latents - mean) * self.factor / std

    def unscaled(self, latents: "torch.Tensor") -> "torch.Tensor":
        """The U-Net's latents as the VAE's."""
        if not self.mean:
            return latents / self.factor
        mean, std = (self._by_channel(values, latents) for values in (self.mean, self.std))
        return latents * std / self.factor + mean

    @staticmethod
    def _by_channel(values: tuple[float, ...], latents: "torch.Tensor") -> "torch.Tensor":
        return latents.new_tensor(values).view(1, -1, 1, 1)


def _are_numbers(values: Any, count: int, least: float = -math.inf) -> bool:
    """Whether these are `count` finite numbers above `least`."""
    numbers = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return numbers and len(values) == count and all(least < value < math.inf for value in values)
