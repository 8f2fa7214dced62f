"""How a base's pictures are noised and what it predicts of them, by the kind of its objective.

In: a BaseObjective. Out: a Noising: at each of its timesteps, numbered from the clearest to the noisiest, the shares of
picture and noise that the U-Net sees, what it is to predict of both, and what number it is told the time by. Symbols
are DDPM's (objective.py), EDM's (Karras et al. 2022, arXiv 2206.00364) and rectified flow's (arXiv 2209.03003, and
Esser et al. 2024, arXiv 2403.03206).
"""

from dataclasses import dataclass

import torch

from ...models.objective.base_objective import BaseObjective, made
from .. import objective


@dataclass(frozen=True)
class Noising:
    """`alpha_bar` (T,) is the share of signal in the variance; of `levels` (5, T), None for DDPM's own, see `of`."""

    kind: str
    alpha_bar: torch.Tensor
    levels: torch.Tensor | None = None

    @classmethod
    def of(cls, base: BaseObjective, device: str | torch.device = "cpu") -> "Noising":
        """That of a base; `levels` are signal, noise, the picture's and the noise's part of the target, and time."""
        if base.prediction in ("epsilon", "v_prediction"):
            bar = objective.alpha_bar(base.scheduler, rescale_zero_snr=base.zero_snr, device=device)
            return cls(base.prediction, bar)
        levels = edm_levels(base) if base.prediction == "edm" else flow_levels(base)
        signal, noise = levels[:2].double()
        bar = signal.square() / (signal.square() + noise.square())
        return cls(base.prediction, bar.float().to(device), levels.to(device))

    def __len__(self) -> int:
        return len(self.alpha_bar)

    def noisy(self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the U-Net sees of latents (N, 4, h, w) at these timesteps (N,)."""
        if self.levels is None:
            return objective.add_noise(x0, noise, timesteps, self.alpha_bar)
        signal, share = self._at(0, timesteps), self._at(1, timesteps)
        return signal * x0 + share * noise

    def target(self, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What it is to predict."""
        if self.levels is None:
            return objective.target(self.kind, x0, noise, timesteps, self.alpha_bar)
        return self._at(2, timesteps) * x0 + self._at(3, timesteps) * noise

    def times(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The number that tells the U-Net the time, (N,)."""
        return timesteps if self.levels is None else self.levels[4][timesteps]

    def _at(self, row: int, timesteps: torch.Tensor) -> torch.Tensor:
        assert self.levels is not None
        return self.levels[row][timesteps].view(-1, 1, 1, 1)


def edm_levels(base: BaseObjective) -> torch.Tensor:
    """EDM's at the sigmas of the base's scheduler, as diffusers' --do_edm_style_training takes them.

    The U-Net sees c_in (x0 + sigma n) and predicts F with D = c_skip x + c_out F (table 1). The loss of F is that of D
    weighted by 1 / c_out^2, which is the paper's lambda(sigma). c_out is negative for v_prediction (CosXL).
    """
    scheduler = made(base.scheduler)
    sigma = scheduler.sigmas[: len(scheduler.timesteps)].double().flip(0)
    data = float(scheduler.config["sigma_data"])
    c_in = (sigma.square() + data**2).rsqrt()
    sign = -1 if scheduler.config["prediction_type"] == "v_prediction" else 1
    picture, noise = sign * sigma / data * c_in, -sign * data * c_in  # (x0 - c_skip x) / c_out
    return torch.stack([c_in, c_in * sigma, picture, noise, 0.25 * sigma.log()]).float()


def flow_levels(base: BaseObjective) -> torch.Tensor:
    """Rectified flow's: x_t = (1 - t) x0 + t n, velocity n - x0 predicted, t shifted (2403.03206, eq. 23)."""
    count, shift = int(base.scheduler["num_train_timesteps"]), base.flow_shift
    t = torch.arange(1, count + 1, dtype=torch.float64) / count
    t = shift * t / (1 + (shift - 1) * t)
    ones = torch.ones_like(t)
    return torch.stack([1 - t, t, -ones, ones, t * count]).float()
