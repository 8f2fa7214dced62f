"""Merges that prune each LoRA's change before they add: TIES, DARE, and pruning by magnitude, as peft computes them.

    ties               keep the largest numbers, agree on signs, average those that agree    (arXiv 2306.01708)
    dare_linear        drop numbers at random, scale the others up, add                      (DARE, arXiv 2311.03099)
    dare_ties          drop at random and scale up, then as ties
    magnitude_prune    keep the largest numbers, add

In: the full-size changes of one module, and weights. Out: the merged change. The functions are peft's own
(peft.utils.merge_utils), on changes of weights as in peft's `ties_svd`, `dare_linear_svd` and so on: a LoRA's two
matrices are no numbers that could be pruned on their own.
"""

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...system.errors import ModelError

METHODS = ("sum", "ties", "dare_linear", "dare_ties", "magnitude_prune")


@dataclass(frozen=True)
class Method:
    """How changes are merged: one of METHODS, the share `density` of numbers kept, the seed of DARE's masks.

    The sum keeps all. A module's masks depend on the seed and its name alone, and on the order of the LoRAs.
    """

    name: str = "sum"
    density: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ModelError(f"There is no way to merge called {self.name!r}: choose one of {', '.join(METHODS)}.")
        if not 0 < self.density <= 1:
            raise ModelError(f"The density is the share of numbers kept, above 0 and at most 1, not {self.density}.")

    def merged(self, changes: Sequence[torch.Tensor], weights: Sequence[float], path: str) -> torch.Tensor:
        """The merged change of the module called `path`."""
        from peft.utils import merge_utils

        function = getattr(merge_utils, self.name)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The density 1.* no pruning will be performed")  # as asked
            torch.manual_seed(self.seed + zlib.crc32(path.encode()))
            merged: torch.Tensor = function(list(changes), torch.tensor(weights), self.density)
        return merged


SUM = Method()
