"""What the residual blocks make of the timestep's embedding: one product for all, and part of a convolution's bias.

In: the residual blocks of a U-Net, those without LoRA on these layers, and the embedding. Out: what each adds to its
first convolution.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from .matrices import move

if TYPE_CHECKING:
    from ...models.unet import Resnet


class Shifts:
    """`widths` are the outputs of each block that this covers; their projections' weights become views of one."""

    def __init__(self, resnets: Sequence["Resnet"]):
        covered = [each for each in resnets if type(each.conv1) is nn.Conv2d and type(each.time_emb_proj) is nn.Linear]
        self.widths: dict[nn.Module, int] = {each: each.conv1.out_channels for each in covered}
        if not covered:
            return
        weights = [each.time_emb_proj.weight for each in covered]
        whole = weights[0].new_empty(sum(self.widths.values()), weights[0].shape[1])
        move(weights, whole.split(list(self.widths.values())))
        self.weight_t = whole.t()
        biases = [(each.time_emb_proj.bias, each.conv1.bias) for each in covered]
        self.bias = torch.cat([(one + other).detach() for one, other in biases if other is not None])

    def of(self, embedding: torch.Tensor) -> dict[nn.Module, torch.Tensor]:
        """What each block adds, (N, width), its convolution's bias among it."""
        whole = torch.addmm(self.bias, embedding, self.weight_t)
        return dict(zip(self.widths, whole.split(list(self.widths.values()), dim=1), strict=True))

    def convolved(self, x: torch.Tensor, shift: torch.Tensor, resnet: "Resnet") -> torch.Tensor:
        """The block's first convolution with what it adds, which of one picture is a bias."""
        if len(shift) == 1:
            return F.conv2d(x, resnet.conv1.weight, shift[0], padding=1)
        return F.conv2d(x, resnet.conv1.weight, None, padding=1) + shift[:, :, None, None]
