"""LoHa and LoKr on live models: peft's layers, given a file's tensors or asked for theirs.

In: modules that peft made. Out: the same with a layer's tensors, whatever their layout (peft itself makes one layout of
each), which compute as peft's do but draw nothing from torch's global generator. peft's own forward draws at every pass
while it trains, also without dropout, and then leaves a layer out once in 17 million times.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from .factored import PARTS, Factored

if TYPE_CHECKING:
    from peft.tuners.lycoris_utils import LycorisLayer


def adapters_of(module: Any) -> set[str]:
    """The names of the adapters that one of peft's layers carries, of whichever kind."""
    if hasattr(module, "lora_A"):
        return set(module.lora_A)
    names: set[str] = module._get_available_adapters()
    return names


def is_factored(module: Any) -> bool:
    """Whether it is one of peft's layers of LoHa or LoKr."""
    return hasattr(module, "hada_w1_a") or hasattr(module, "lokr_w1")


def config_of(algo: str, **options: Any) -> Any:
    """peft's configuration of a kind; `options` in LoRA's names."""
    from peft import LoHaConfig, LoKrConfig

    options["alpha"] = options.pop("lora_alpha")
    if algo == "lokr":
        return LoKrConfig(init_weights="lycoris", **options)
    return LoHaConfig(**options)


def collected(module: "LycorisLayer", adapter: str) -> Factored:
    """A copy of a live layer's tensors, on the CPU in fp32."""
    parts = {
        name: getattr(module, name)[adapter].detach().to("cpu", torch.float32, copy=True).contiguous()
        for name in PARTS[algo_of(module)]
        if adapter in getattr(module, name)
    }
    return Factored(parts, float(module.alpha[adapter]))


def algo_of(module: Any) -> str:
    """loha or lokr."""
    return "loha" if hasattr(module, "hada_w1_a") else "lokr"


@torch.no_grad()
def put_into(module: "LycorisLayer", adapter: str, layer: Factored, dtype: torch.dtype) -> None:
    """Give a live layer these tensors in the place of its own, frozen, on the device of its weight."""
    device = module.get_base_layer().weight.device
    for name in PARTS[layer.algo]:
        tensors = getattr(module, name)
        if adapter in tensors:
            del tensors[adapter]
        if name in layer.parts:
            tensors[adapter] = nn.Parameter(layer.parts[name].to(device, dtype, copy=True), requires_grad=False)
    module.r[adapter], module.alpha[adapter] = layer.rank, layer.scale * layer.rank
    module.scaling[adapter] = layer.scale
    quiet(module)


def made_ready(module: "LycorisLayer", adapter: str) -> None:
    """A new layer as LyCORIS would begin it: LoHa's first values, and scale 1 for a LoKr of two whole factors."""
    if algo_of(module) == "loha":  # peft's are so small that the first hundreds of steps hardly move the weight
        for name, deviation in (("w1_a", 0.1), ("w1_b", 1.0), ("w2_a", 0.0), ("w2_b", 1.0)):
            nn.init.normal_(getattr(module, f"hada_{name}")[adapter], std=deviation)
    elif adapter in module.lokr_w1 and adapter in module.lokr_w2:
        module.alpha[adapter], module.scaling[adapter] = module.r[adapter], 1.0
    quiet(module)


def quiet(module: "LycorisLayer") -> None:
    """Let a layer compute without peft's draw at every pass."""
    module.__class__ = _quiet_class(type(module))


_classes: dict[type, type] = {}


def _quiet_class(kind: type) -> type:
    if kind not in _classes and not issubclass(kind, _Quiet):
        _classes[kind] = type(kind.__name__, (_Quiet, kind), {})
    return kind if issubclass(kind, _Quiet) else _classes[kind]


class _Quiet:
    """See the module; `dropped` (training/…, lora/dropout.py) is what leaves rows or the whole layer out."""

    dropped: Any = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layer = cast("LycorisLayer", self)
        if not layer.training or layer.disable_adapters or layer.merged:
            return cast(torch.Tensor, super().forward(x, *args, **kwargs))  # type: ignore[misc]
        result = layer.base_layer(x, *args, **kwargs)
        for adapter in layer.active_adapters:
            if adapter in layer._available_adapters:
                change = layer._get_delta_activations(adapter, x, *args, **kwargs)
                result = result + (change if self.dropped is None else self.dropped(change))
        return cast(torch.Tensor, result.to(x.dtype))
