"""How a VAE's latents become what the U-Net sees."""

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
