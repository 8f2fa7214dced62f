"""T-LoRA (arXiv 2507.05964): while it trains, a LoRA has fewer ranks at noisy timesteps than at clear ones.

    r(t) = floor(((T - t) / T)^a (R - m)) + m       m = tlora_min_rank, a = tlora_alpha, R a layer's rank

Of A's R outputs the first r(t) count, as in the authors' code and LyCORIS' tlora; nothing makes up for the others.
In: a U-Net with plain LoRA layers, and the timesteps of a batch before each pass. Out: the same U-Net with those masks
while it trains. Whatever draws or measures has all ranks at all timesteps, as every reader of the file has: the
authors mask there too, so that what a file draws is more than what was trained where pictures are noisy.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..config.train_config import TrainConfig
from ..system.transfer import sent
from .layers import lora_modules

REMARK = (
    "tlora_min_rank: ranks are masked by the timestep in training alone; pictures, held-out loss and every reader of "
    "the file have all ranks at all timesteps, so draw at less strength where pictures look burnt."
)


def ranks_at(timestep: int, timesteps: int, rank: int, least: int, alpha: float) -> int:
    """How many of a layer's ranks count at a timestep, of so many; a layer of no more than `least` keeps all."""
    if rank <= least:
        return rank
    return int(((timesteps - timestep) / timesteps) ** alpha * (rank - least)) + least


class TimestepRanks:
    """The masks of the batch that is computed now, by rank: (N, rank) of 0 and 1."""

    def __init__(self, unet: nn.Module, config: TrainConfig, timesteps: int):
        self.least, self.alpha, self.timesteps = config.tlora_min_rank or 1, config.tlora_alpha, timesteps
        self.now: dict[int, torch.Tensor] = {}
        self.ranks = set()
        for _, module in lora_modules(unet):
            for down in module.lora_A.values():
                self.ranks.add(len(down.weight))
                if (before := down.__dict__.get("masked")) is not None:  # of a Step before
                    before.remove()
                down.__dict__["masked"] = down.register_forward_hook(self._mask)

    def set(self, timesteps: Sequence[int], device: torch.device) -> None:
        """Take the timesteps of a batch, each from 0, the clearest."""
        for rank in self.ranks:
            counts = [ranks_at(t, self.timesteps, rank, self.least, self.alpha) for t in timesteps]
            self.now[rank] = sent((torch.arange(rank) < torch.tensor(counts)[:, None]).float(), device)

    def _mask(self, layer: nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
        if not layer.training:
            return out
        conv = out.ndim == 4
        mask = self.now[out.shape[1 if conv else -1]]
        shape = (*mask.shape, 1, 1) if conv else (len(mask), *(1,) * (out.ndim - 2), mask.shape[1])
        return out * mask.view(shape).to(out.dtype)
