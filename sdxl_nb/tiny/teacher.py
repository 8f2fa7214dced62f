"""The embedded base as the teacher of one with another objective: what it knows, said in that objective's words.

In: noisy latents of pictures, as the other base sees them. Out: the picture that the embedded base makes of them, and
from it what the other base is to predict. The mean of all pictures that fit, which is what both learn, comes without
the noise that single pictures are of it, so that some hundred small steps do what thousands did.
"""

from typing import Any

import torch
from torch import nn

from ..models.loading import load
from ..models.objective import base_objective
from ..models.sources import Source
from ..training import objective
from ..training.noise.noising import Noising

CLEAREST, NOISIEST = 0.1, 8.0  # deviations of noise over those of the picture between which the teacher is asked
MIDDLE, WIDTH, EVEN = 0.3, 1.4, 0.3  # of the normal distribution of log ratios, and the share that is drawn evenly
FIT_STEPS, FIT_RATE = 1000, 3e-3


class Teacher:
    """The embedded base, asked about latents of another base's `taught` objective."""

    def __init__(self, taught: base_objective.BaseObjective, noising: Noising, deviation: float):
        source = Source("embedded:tiny-sdxl")
        own = base_objective.of(source)
        self.taught, self.latents, self.noising = taught.latents, own.latents, noising
        self.unet = load(source, "unet").float().requires_grad_(False).to(memory_format=torch.channels_last)
        self.alpha_bar = objective.alpha_bar(own.scheduler)
        ratios = ((1 - noising.alpha_bar) / noising.alpha_bar).sqrt() / deviation
        self.ratios = ratios.clamp(1e-4, 1e4)  # (T,): a flow's last timestep has no picture at all
        self.table = self._spread()

    def timesteps(self, ratios: torch.Tensor) -> torch.Tensor:
        """The embedded base's timesteps with most nearly these ratios of noise to picture, (N,)."""
        own = ((1 - self.alpha_bar) / self.alpha_bar).sqrt().log()
        return (ratios.log()[:, None] - own).abs().argmin(dim=1)

    def _spread(self, count: int = 1000) -> torch.Tensor:
        """The taught timesteps (count,) at equal shares of what is drawn: most where pictures take shape.

        A normal distribution of log ratios (arXiv 2206.00364, table 1, with a mean for smaller pictures), and some of
        all timesteps: of EDM's 1000 sigmas two in five are noisier than any that the embedded base has seen.
        """
        logs = self.ratios.double().log()
        normal = torch.exp(-0.5 * ((logs - MIDDLE) / WIDTH).square()) * torch.gradient(logs)[0]
        shares = (1 - EVEN) * normal / normal.sum() + EVEN / len(logs)
        even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return torch.searchsorted(shares.cumsum(0), even).clamp(max=len(logs) - 1)

    @torch.no_grad()
    def lesson(
        self,
        x0: torch.Tensor,
        noises: tuple[torch.Tensor, torch.Tensor],
        when: torch.Tensor,
        text: torch.Tensor,
        added: dict[str, Any],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the taught U-Net sees of x0 (N, 4, h, w) at its timesteps `when` (N,), and what it is to predict.

        Where there is more noise than the teacher can see through, it is asked before the last of it, the second of
        `noises`, came on top: the mean over that is the same. Where there is nearly none, the target is the picture's.
        """
        ratio = self.ratios[when].view(-1, 1, 1, 1)
        share = ratio.clamp(max=NOISIEST) / ratio
        noise = share * noises[0] + (1 - share.square()).sqrt() * noises[1]
        made = self._picture(x0, noises[0], ratio.clamp(CLEAREST, NOISIEST).flatten(), text, added)
        nothing, seen = torch.zeros_like(x0), self.noising.noisy(x0, noise, when)
        left = (seen - self.noising.noisy(made, nothing, when)) / self.noising.noisy(nothing, nothing + 1, when)
        taught = self.noising.target(made, left, when)
        return seen, torch.where(ratio < CLEAREST, self.noising.target(x0, noise, when), taught)

    def _picture(
        self, x0: torch.Tensor, noise: torch.Tensor, ratios: torch.Tensor, text: torch.Tensor, added: dict[str, Any]
    ) -> torch.Tensor:
        """The picture that the embedded base makes of these at so much noise, as the taught base's latents."""
        when = self.timesteps(ratios)
        clean = self.latents.scaled(self.taught.unscaled(x0))
        seen = objective.add_noise(clean, noise, when, self.alpha_bar)
        predicted = self.unet(seen, when, text, added_cond_kwargs=added, return_dict=False)[0]
        bar = self.alpha_bar[when].view(-1, 1, 1, 1)
        return self.taught.scaled(self.latents.unscaled((seen - (1 - bar).sqrt() * predicted) / bar.sqrt()))

    def prepare(self, unet: Any, steps: int = FIT_STEPS) -> float:
        """Let a copy of the teacher begin with what it is to become: the sign of its output, and its words for time.

        Returns how much of the variance of the time's embedding is missed, after it was fitted to the teacher's.
        """
        nothing, middle = torch.zeros(1, 4, 1, 1), torch.tensor([len(self.noising) // 2])
        if self.noising.target(nothing, nothing + 1, middle).mean() < 0:  # EDM predicts the noise with a minus
            for weight in unet.conv_out.parameters():
                weight.data.neg_()
        every = torch.arange(0, len(self.noising), 4)
        with torch.no_grad():
            wanted = self.unet.time_embedding(self.unet.time_proj(self.timesteps(self.ratios[every])).float())
        told = unet.time_proj(self.noising.times(every)).float()
        weights = list(unet.time_embedding.parameters())
        optimizer = torch.optim.Adam(weights, lr=FIT_RATE)
        course = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            missed = nn.functional.mse_loss(unet.time_embedding(told), wanted) / wanted.var(dim=0).mean()
            optimizer.zero_grad()
            missed.backward()
            optimizer.step()
            course.step()
        return missed.item()
