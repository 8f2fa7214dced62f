"""scale_weight_norms: no layer's change of its weight is larger than asked for (sd-scripts' max-norm regularization).

In: the models that learn, after a step. Out: the same, a change of a larger norm scaled down to it, evenly over the
matrices that it is a product of.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...lora.kinds.factored import PARTS
from ...lora.kinds.peft_layers import algo_of, is_factored
from ...lora.layers import lora_modules

ADAPTER = "default"


class LargestNorms:
    """Call it after a step: it returns how many layers it scaled, () on the device."""

    def __init__(self, models: Mapping[str, nn.Module], largest: float):
        self.largest = largest
        self.layers = [module for model in models.values() for _, module in lora_modules(model)]

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        scaled = []
        for module in self.layers:
            norm, factors = _norm(module), _factors(module)
            ratio = (self.largest / norm.clamp(min=self.largest / 2)).clamp(max=1.0)
            for factor in factors:
                factor.mul_(ratio ** (1 / len(factors)))
            scaled.append(ratio < 1)
        return torch.stack(scaled).sum()


def _norm(module: Any) -> torch.Tensor:
    """The Frobenius norm of a layer's change; of a LoRA by its small products, |BA|^2 = tr(B'B AA')."""
    if is_factored(module):
        found: torch.Tensor = torch.linalg.vector_norm(module.get_delta_weight(ADAPTER))
        return found
    down, up = (part[ADAPTER].weight.flatten(1) for part in (module.lora_A, module.lora_B))
    square: torch.Tensor = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0)
    return square.sqrt() * abs(float(module.scaling[ADAPTER]))


def _factors(module: Any) -> list[torch.Tensor]:
    """The matrices that a layer's change is linear in, each of them."""
    if is_factored(module):
        tensors = (getattr(module, name) for name in PARTS[algo_of(module)])
        return [each[ADAPTER] for each in tensors if ADAPTER in each]
    return [module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight]
