"""All trained weights in one flat buffer, so that clipping, averaging and the optimizer are one operation each.

The parameters stay where peft put them, as views into the buffer; their gradients are views into a second one.
Hundreds of small tensors (560 layers at rank 4 on SDXL) cost more to launch than to compute.
"""

from collections.abc import Iterable

import torch
from torch import nn


class FlatParameters:
    """The trainable parameters of some models, in fp32, as one vector `weights` with gradient `weights.grad`.

    `names` has one dotted name a parameter, led by its model's name, with its shape and place in the vector.
    """

    def __init__(self, models: dict[str, nn.Module]):
        found = {
            f"{name}.{path}": parameter
            for name, model in models.items()
            for path, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.parameters = list(found.values())
        self.names = list(found)
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.weights = nn.Parameter(torch.cat([p.detach().float().reshape(-1) for p in self.parameters]))
        self.weights.grad = torch.zeros_like(self.weights)
        self._bind(self.weights.data, self.weights.grad)

    def _bind(self, weights: torch.Tensor, gradients: torch.Tensor) -> None:
        pieces = zip(self.parameters, weights.split(self.sizes), gradients.split(self.sizes), strict=True)
        for parameter, piece, gradient in pieces:
            parameter.data, parameter.grad = piece.view(parameter.shape), gradient.view(parameter.shape)

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place: the views stay views."""
        self.weights.grad.zero_()

    def named(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """A vector of this layout (weights, or an optimizer's moments) cut into named tensors, as copies."""
        pieces = zip(self.names, self.parameters, vector.split(self.sizes), strict=True)
        return {name: piece.view(parameter.shape).clone() for name, parameter, piece in pieces}

    def join(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """The inverse of `named`; KeyError when a parameter is missing."""
        return torch.cat([tensors[name].reshape(-1).float() for name in self.names])

    def clip(self, largest: float) -> torch.Tensor:
        """Scale the gradient down to a norm of `largest`; returns the norm before, without waiting for it."""
        norm = torch.linalg.vector_norm(self.weights.grad)
        self.weights.grad.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
        return norm


def make_optimizer(config, weights: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer by name: AdamW (fused), or bitsandbytes' 8-bit AdamW."""
    options = {
        "lr": learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if config.optimizer_name() == "adamw8bit":
        import bitsandbytes

        return bitsandbytes.optim.AdamW8bit(weights, **options)
    return torch.optim.AdamW(weights, fused=True, **options)


def learning_rates(config, steps: int, processes: int):
    """The learning rate as a pure function of the optimizer step (from 0); diffusers' schedules by name.

    `constant` has no warm-up, as in diffusers; every other schedule warms up for `lr_warmup_steps`.
    """
    from diffusers.optimization import get_scheduler

    peak = config.scaled_learning_rate(processes)
    template = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        config.lr_scheduler, template, num_warmup_steps=config.lr_warmup_steps, num_training_steps=steps
    )
    return lambda step: peak * scheduler.lr_lambdas[0](step)
