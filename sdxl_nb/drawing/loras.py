"""The LoRAs of one drawing on a pipeline: put on together, taken off one by one (lora/layers.py).

In: a pipeline and LoRAs by the names of their adapters. Out: the pipeline with all of them on. Plain LoRAs need no
peft, which takes 2.5 CPU seconds to put 560 layers on and take them off; where one is of another kind, or the pipeline
brings LoRAs of its own, all have peft's layers.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch

from ..lora.kinds.drawn import put_drawn
from ..lora.layers import Layer, LoraWeights, attach, lora_modules, models_of, planned
from ..lora.names import COMPONENTS


def put_on(loras: Mapping[str, LoraWeights], pipeline: Any) -> None:
    """Put all on, each at the strength it was trained at. ModelError for the first layer that does not fit."""
    models = models_of(pipeline)
    if all(map(_is_plain, loras.values())) and not any(next(lora_modules(each), None) for each in models.values()):
        parts = [(name, part) for name in loras for part in COMPONENTS]
        plans = [(part, name, planned(loras[name].component(part), models.get(part), part)) for name, part in parts]
        for part, name, plan in plans:
            if plan:
                put_drawn(models[part], cast(Mapping[str, Layer], plan), name, torch.float32)
        return
    for name, weights in sorted(loras.items(), key=lambda each: each[1].algo != "lora"):  # peft takes LoRAs first
        attach(weights, pipeline, name)


def _is_plain(weights: LoraWeights) -> bool:
    return all(isinstance(layer, Layer) and layer.dora_scale is None for layer in weights.layers.values())
