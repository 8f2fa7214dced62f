"""LoRAs below the one that is trained: frozen, in the base's own weights from the moment they are read.

In: the Source of a base with its `loras`. Out: for each of its models the change that reading makes of its weights, in
fp32, before they are rounded or stored in 8 bits. `drawing.load_base` gives a pipeline of such a Source the same.
"""

from collections.abc import Callable

import torch

from ...config.header import find_lora
from ...models.sources import Source
from ...system.errors import ModelError
from ..base import Base
from ..files.reader import read_lora
from ..files.writer import unknown_modules
from ..layers import AnyLayer, delta, fit
from ..names import COMPONENTS, canonical_path

Change = Callable[[str, torch.Tensor], torch.Tensor]


class FrozenLoras:
    """What the `loras` of a base change. Raises ModelError for a file that is none, or of another architecture."""

    def __init__(self, source: Source, base: Base | None):
        self.files = [find_lora(file) for file, _ in source.loras]
        self.scales = [scale for _, scale in source.loras]
        self.layers: dict[str, list[AnyLayer]] = {}
        for path, scale in zip(self.files, self.scales, strict=True):
            weights = read_lora(path, base)
            inventory = (base or weights.base).inventory
            for lost in unknown_modules(weights, inventory):
                raise ModelError(f"base_lora {path.name} has a layer for {lost}, which this base does not have so.")
            for module, layer in weights.layers.items():
                fitted = fit(layer, inventory[module], module)
                self.layers.setdefault(module, []).append(fitted.scaled(scale))

    def touches(self, component: str) -> bool:
        """Whether any of them changes this model."""
        return any(module.startswith(f"{component}.") for module in self.layers)

    def change(self, component: str) -> Change | None:
        """What reading makes of this model's weights; None where it stays as it is."""
        assert component in COMPONENTS
        return (lambda name, weight: self._changed(component, name, weight)) if self.touches(component) else None

    def _changed(self, component: str, name: str, weight: torch.Tensor) -> torch.Tensor:
        module, _, leaf = name.rpartition(".")
        for layer in self.layers.get(canonical_path(f"{component}.{module}") or "", ()) if leaf == "weight" else ():
            weight = weight.float() + delta(layer, weight).reshape(weight.shape).to(weight.device)
        return weight
