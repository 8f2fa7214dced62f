"""torch's Muon on LoRA's matrices: each step is made orthogonal (Keller Jordan, 2024), at AdamW's rates (2502.16982).

In: parameter groups of matrices and convolutions, each taken as rows by all the rest. Out: torch.optim.Muon.
"""

from typing import Any

import torch
from torch import nn

RATES = "match_rms_adamw"  # an update as large as AdamW's usually is, so that its learning rates hold


def muon(groups: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    """torch.optim.Muon on views of the parameters. ValueError where one is no matrix."""
    made = [{**group, "params": [_matrix(parameter) for parameter in group["params"]]} for group in groups]
    return torch.optim.Muon(made, **{"adjust_lr_fn": RATES} | options)


def _matrix(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter as rows by columns, with its gradient: views into the same memory."""
    if parameter.ndim < 2 or parameter.grad is None:
        raise ValueError("it learns matrices alone")
    if parameter.ndim == 2:
        return parameter
    flat = nn.Parameter(parameter.data.view(len(parameter), -1))
    flat.grad = parameter.grad.view(len(parameter), -1)
    return flat
