"""What the U-Net is asked to predict, and what each error counts: pure tensor functions.

Symbols as in Ho et al. 2020 (DDPM, arXiv 2006.11239): alpha_bar[t] is the share of signal left at timestep t, x0 the
clean latents, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise. Batches are (N, 4, h, w), timesteps (N,) int64.
"""

import torch


def alpha_bar(scheduler_config, *, rescale_zero_snr: bool = False, device: str | torch.device = "cpu") -> torch.Tensor:
    """The noise schedule of a base model's scheduler, (T,) fp32; rescaled to zero terminal SNR if asked for."""
    from diffusers import DDPMScheduler

    options = {"rescale_betas_zero_snr": True} if rescale_zero_snr else {}
    return DDPMScheduler.from_config(scheduler_config, **options).alphas_cumprod.to(device, torch.float32)


def _at(values: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    return values[timesteps].view(-1, 1, 1, 1)


def add_noise(x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """x_t, the latents as they are after `timesteps` of noising."""
    share = _at(alpha_bar, timesteps)
    return share.sqrt() * x0 + (1 - share).sqrt() * noise


def target(
    kind: str, x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor, alpha_bar: torch.Tensor
) -> torch.Tensor:
    """What to predict: noise (epsilon), or v = sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) x0 (arXiv 2202.00512)."""
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        share = _at(alpha_bar, timesteps)
        return share.sqrt() * noise - (1 - share).sqrt() * x0
    raise ValueError(f"prediction_type must be epsilon or v_prediction, not {kind}")


def snr(timesteps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), (N,)."""
    share = alpha_bar[timesteps]
    return share / (1 - share)


def min_snr_weight(
    kind: str, timesteps: torch.Tensor, alpha_bar: torch.Tensor, gamma: float | None
) -> torch.Tensor | None:
    """Min-SNR-gamma weights (N,), arXiv 2303.09556; None (all count one) without gamma.

    min(snr, gamma) / snr for epsilon, / (snr + 1) for v. With epsilon and zero terminal SNR it is 0 / 0, which the
    configuration refuses.
    """
    if gamma is None:
        return None
    ratio = snr(timesteps, alpha_bar)
    return ratio.clamp(max=gamma) / (ratio if kind == "epsilon" else ratio + 1)


def losses(predicted: torch.Tensor, wanted: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared error of each picture in fp32, weighted: (N,)."""
    error = (predicted.float() - wanted.float()).square().mean(dim=(1, 2, 3))
    return error if weight is None else error * weight
