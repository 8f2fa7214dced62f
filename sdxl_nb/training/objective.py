"""What the U-Net is asked to predict, and what each error counts: pure tensor functions.

Symbols as in Ho et al. 2020 (DDPM, arXiv 2006.11239): alpha_bar[t] is the share of signal left at timestep t, x0 the
clean latents, x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise. Batches are (N, 4, h, w), timesteps (N,) int64.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from ..config.train_config import TrainConfig
from ..models.objective.base_objective import WORDS, BaseObjective
from ..models.quiet import hushed
from ..system.errors import ConfigError

WEIGHTS = ("snr_gamma", "debiased_estimation_loss", "p2_gamma", "soft_snr_gamma")  # at most one is asked for
WEIGHTS_OF_NOTHING = ("snr_gamma", "p2_gamma", "soft_snr_gamma")  # 0 where snr is, for v


def alpha_bar(
    scheduler_config: Mapping[str, Any], *, rescale_zero_snr: bool = False, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """The noise schedule of a base model's scheduler, (T,) fp32; rescaled to zero terminal SNR if asked for.

    SDXL's own schedule is computed here, equal to diffusers' bit for bit and without the second that its import
    takes; any other is left to diffusers.
    """
    plain = scheduler_config.get("trained_betas") is None and not scheduler_config.get("rescale_betas_zero_snr")
    if plain and not rescale_zero_snr and scheduler_config.get("beta_schedule") == "scaled_linear":
        first, last = scheduler_config["beta_start"] ** 0.5, scheduler_config["beta_end"] ** 0.5
        betas = torch.linspace(first, last, scheduler_config["num_train_timesteps"], dtype=torch.float32) ** 2
        return torch.cumprod(1.0 - betas, dim=0).to(device)
    with hushed():  # it notes what other schedulers have, and it has not
        from diffusers import DDPMScheduler

        options = {"rescale_betas_zero_snr": True} if rescale_zero_snr else {}
        theirs: torch.Tensor = DDPMScheduler.from_config(scheduler_config, **options).alphas_cumprod
    return theirs.to(device, torch.float32)


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


def debiased_estimation_weight(kind: str, timesteps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Debiased estimation weights (N,), arXiv 2310.08442: 1 / sqrt(snr) for epsilon, 1 / (snr + 1) for v.

    snr counts at most 1000, as in sd-scripts, so that the clearest timesteps keep a weight. With epsilon and zero
    terminal SNR it is 1 / 0, which the configuration refuses.
    """
    ratio = snr(timesteps, alpha_bar).clamp(max=1000)
    return ratio.rsqrt() if kind == "epsilon" else 1 / (ratio + 1)


def p2_weight(kind: str, timesteps: torch.Tensor, alpha_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """P2 weights (N,), arXiv 2204.00227 with its k = 1: (1 + snr)^-gamma of the error of epsilon.

    The error of v is that of epsilon times (snr + 1) / snr, so that its weight has the inverse besides.
    """
    ratio = snr(timesteps, alpha_bar)
    weight = (1 + ratio) ** -gamma
    return weight if kind == "epsilon" else weight * ratio / (ratio + 1)


def soft_min_snr_weight(kind: str, timesteps: torch.Tensor, alpha_bar: torch.Tensor, gamma: float) -> torch.Tensor:
    """Soft-min-SNR weights (N,), arXiv 2401.11605: snr gamma / (snr + gamma) of the error of x0, as min-SNR without a
    kink: gamma / (snr + gamma) for epsilon, snr / (snr + 1) times that for v.
    """
    ratio = snr(timesteps, alpha_bar)
    weight = gamma / (ratio + gamma)
    return weight if kind == "epsilon" else weight * ratio / (ratio + 1)


def weight(config: TrainConfig, kind: str, timesteps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor | None:
    """The weights (N,) that a configuration asks for, of which it may name one kind; None where all count one."""
    if config.debiased_estimation_loss:
        return debiased_estimation_weight(kind, timesteps, alpha_bar)
    if config.p2_gamma is not None:
        return p2_weight(kind, timesteps, alpha_bar, config.p2_gamma)
    if config.soft_snr_gamma is not None:
        return soft_min_snr_weight(kind, timesteps, alpha_bar, config.soft_snr_gamma)
    return min_snr_weight(kind, timesteps, alpha_bar, config.snr_gamma)


def huber_c(schedule: str, c: float, timesteps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The scale at which a Huber loss turns from square to linear, (N,): arXiv 2403.16728, names as in sd-scripts.

    `constant` is c; `exponential` falls from 1 at timestep 0 to c at the last; `snr` is
    (1 - c) / (1 + sigma)^2 + c with sigma^2 = 1 / snr, so that noisy timesteps are the more robust ones.
    """
    if schedule == "constant":
        return torch.full(timesteps.shape, c, device=alpha_bar.device)
    if schedule == "exponential":
        return c ** (timesteps / len(alpha_bar))
    sigma = snr(timesteps, alpha_bar).rsqrt()  # infinite at zero terminal SNR, which leaves c
    return (1 - c) / (1 + sigma).square() + c


def pseudo_huber(difference: torch.Tensor, kind: str, c: torch.Tensor) -> torch.Tensor:
    """Elementwise pseudo-Huber loss of differences (N, 4, h, w) at scales c (N,), arXiv 2403.16728.

    `huber` is 2 c (sqrt(d^2 + c^2) - c), near d^2 for small d; `smooth_l1` is 2 (sqrt(d^2 + c^2) - c), near 2 |d| for
    large d.
    """
    c = c.view(-1, 1, 1, 1)
    root = 2 * ((difference.square() + c.square()).sqrt() - c)
    return c * root if kind == "huber" else root


def losses(
    predicted: torch.Tensor,
    wanted: torch.Tensor,
    weight: torch.Tensor | None = None,
    kind: str = "l2",
    c: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each picture in fp32, weighted: (N,); of squares, magnitudes (l1), log(cosh), or Huber's at c (N,).

    `mask` (N, 1, h, w) is what each place counts. The mean is over all elements of the picture, not those of the mask,
    as in sd-scripts (apply_masked_loss) and in OneTrainer unless normalize_masked_area_loss is asked for.
    """
    difference = predicted.float() - wanted.float()
    if kind == "l2":
        error = difference.square()
    elif kind == "l1":
        error = difference.abs()
    elif kind == "log_cosh":  # log(cosh d) = |d| + log(1 + exp(-2 |d|)) - log 2, which no large d overflows
        size = difference.abs()
        error = size + torch.nn.functional.softplus(-2 * size) - math.log(2)
    elif c is not None:
        error = pseudo_huber(difference, kind, c)
    else:
        raise ValueError(f"loss_type {kind} needs its scales c")
    if mask is not None:
        error = error * mask
    each = error.mean(dim=(1, 2, 3))
    return each if weight is None else each * weight


def check(config: TrainConfig, base: BaseObjective, count: int) -> list[str]:
    """Remarks on how the loss is weighted with this base of `count` timesteps; ConfigError for what cannot be."""
    kind = base.prediction
    if max(config.min_timestep + 1, config.max_timestep or 0) > count:
        raise ConfigError(f"this base has {count} timesteps: lower min_timestep and max_timestep to them")
    weighs = next((name for name in WEIGHTS if getattr(config, name)), None)
    divides = weighs if weighs in WEIGHTS[:2] else None
    if divides and base.zero_snr and kind == "epsilon":
        whose = "rescale_betas_zero_snr" if config.rescale_betas_zero_snr else "the base's zero terminal SNR"
        raise ConfigError(
            f"{divides} with {whose} needs --prediction_type v_prediction: "
            "with epsilon the weight at the last timestep divides by zero"
        )
    if weighs and kind in ("edm", "flow"):
        raise ConfigError(
            f"{weighs} is a loss weight for bases that predict epsilon or v, and this one {WORDS[kind]}: drop {weighs}"
        )
    if config.flow_shift is not None and kind != "flow":
        raise ConfigError(f"flow_shift needs a base that predicts the flow, and this one {WORDS[kind]}: drop it")
    if base.zero_snr and kind == "v_prediction" and weighs in WEIGHTS_OF_NOTHING:
        return [
            f"{weighs} with zero terminal SNR gives the last timestep, which is noise alone, no weight at all, as its "
            "authors' formula says: what is learned there comes from the timesteps before it."
        ]
    return []
