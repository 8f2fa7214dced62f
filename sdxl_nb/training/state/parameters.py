"""All trained weights in one flat buffer, so that clipping, averaging and AdamW are one operation each.

The parameters stay where peft put them, as views into the buffer; their gradients are views into a second one.
Hundreds of small tensors (560 layers at rank 4 on SDXL) cost more to launch than to compute.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence

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
        # all down (A) before all up (B) matrices: those of layers that share an input lie side by side
        self.names = sorted(found, key=lambda name: ".lora_B." in name)
        self.parameters = [found[name] for name in self.names]
        self.sizes = [parameter.numel() for parameter in self.parameters]
        self.weights = nn.Parameter(torch.cat([p.detach().float().reshape(-1) for p in self.parameters]))
        self.gradient = self.weights.grad = torch.zeros_like(self.weights)  # they stay one
        self._bind(self.weights.data, self.gradient)

    def _bind(self, weights: torch.Tensor, gradients: torch.Tensor) -> None:
        pieces = zip(self.parameters, weights.split(self.sizes), gradients.split(self.sizes), strict=True)
        for parameter, piece, gradient in pieces:
            parameter.data, parameter.grad = piece.view(parameter.shape), gradient.view(parameter.shape)

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place: the views stay views."""
        self.gradient.zero_()

    def vectors(self, members: Sequence[int]) -> list[nn.Parameter]:
        """These parameters, by place, as few long vectors: views into the weights, with gradients in the gradient's.

        Of all it is the whole.
        """
        if len(members) == len(self.parameters):
            return [self.weights]
        starts = [0, *itertools.accumulate(self.sizes)]
        bounds: list[list[int]] = []
        for place in members:
            if bounds and bounds[-1][1] == starts[place]:
                bounds[-1][1] = starts[place + 1]
            else:
                bounds.append([starts[place], starts[place + 1]])
        found = [nn.Parameter(self.weights.data[first:last]) for first, last in bounds]
        for vector, (first, last) in zip(found, bounds, strict=True):
            vector.grad = self.gradient[first:last]
        return found

    def named(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """A vector of this layout (weights, or an optimizer's moments) cut into named tensors, as copies."""
        pieces = zip(self.names, self.parameters, vector.split(self.sizes), strict=True)
        return {name: piece.view(parameter.shape).clone() for name, parameter, piece in pieces}

    def join(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """The inverse of `named`; KeyError when a parameter is missing."""
        return torch.cat([tensors[name].reshape(-1).float() for name in self.names])

    def clip(self, largest: float) -> torch.Tensor:
        """Scale the gradient down to a norm of `largest`; returns the norm before, without waiting for it.

        `largest` 0 leaves the gradient as it is.
        """
        norm: torch.Tensor = torch.linalg.vector_norm(self.gradient)
        if largest:
            self.gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
        return norm


class Average:
    """Exponential moving average of the weights, one operation a step.

    As diffusers' EMAModel with its warm-up: after step n (from 1) the average keeps min(decay, n / (9 + n)) of itself,
    and nothing after the first, so that it forgets the random start.
    """

    def __init__(self, flat: FlatParameters, decay: float):
        self.flat, self.decay = flat, decay
        self.weights = flat.weights.detach().clone()

    def update(self, step: int, skipped: torch.Tensor | None = None) -> None:
        """Take in the weights as they are after optimizer step `step`, counted from 1; not if `skipped`, () of 0 or 1.

        That one lies on the device, and nobody waits for it.
        """
        share = 1 - min(self.decay, step / (9 + step)) if step > 1 else 1.0
        self.weights.lerp_(self.flat.weights.detach(), share if skipped is None else share * (1 - skipped))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own again, bit for bit."""
        own = self.flat.weights.detach().clone()
        self.flat.weights.data.copy_(self.weights)
        try:
            yield
        finally:
            self.flat.weights.data.copy_(own)
