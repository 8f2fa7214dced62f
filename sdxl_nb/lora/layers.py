"""LoRA layers on live models: collect them, put them on, set their strength.

In: diffusers' U-Net and transformers' CLIP text encoders with (or for) peft layers. Out: `LoraWeights`, the canonical
in-memory form that files are written from and read into. The effective change of one module is

    delta W = alpha / rank * up @ down                                        (LoRA, arXiv:2106.09685)
    delta W = m * (W + s B A) / ||W + s B A||_row - W,  s = alpha / rank      (DoRA, arXiv:2402.09353)

or that of LoHa and LoKr (kinds/factored.py), which are layers beside these everywhere.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import nn

from ..models.lock import ALONE
from ..system.errors import ModelError
from .base import SDXL, Base, Module, module_of
from .kinds.factored import WORDS, Factored
from .kinds.peft_layers import adapters_of, algo_of, collected, config_of, is_factored, put_into
from .names import COMPONENTS, TE1, TE2, UNET, canonical_path
from .targets import inside

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline
    from diffusers.loaders.peft import PeftAdapterMixin
    from peft.tuners.lora import LoraLayer
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from ..models.unet import UNet

    Models: TypeAlias = StableDiffusionXLPipeline | nn.Module | Mapping[str, nn.Module]

# a part that a LoRA's layer has, of each kind; to ask a module for an attribute that it lacks takes long
CARRIERS = {"lora_A", "hada_w1_a", "lokr_w1"}


@dataclass(frozen=True)
class Layer:
    """One module's LoRA in fp32: down (r, in[, kh, kw]), up (out, r[, 1, 1]), alpha; dora_scale (out,) or None."""

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    dora_scale: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def kind(self) -> str:
        return "conv" if self.down.ndim == 4 else "linear"

    @property
    def algo(self) -> str:
        return "lora"

    def scaled(self, factor: float) -> "Layer":
        """The same with its change before DoRA times `factor`."""
        return replace(self, alpha=self.alpha * factor)

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """The tensors by name, but for alpha."""
        dora = {} if self.dora_scale is None else {"dora_scale": self.dora_scale}
        return {"down": self.down, "up": self.up, **dora}


AnyLayer: TypeAlias = Layer | Factored


@dataclass
class LoraWeights:
    """Canonical module path -> layer, with the base model that they belong to."""

    layers: dict[str, AnyLayer]
    base: Base = SDXL
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def algo(self) -> str:
        """lora, loha or lokr: what most layers are."""
        return Counter(layer.algo for layer in self.layers.values()).most_common(1)[0][0]

    def component(self, name: str) -> dict[str, AnyLayer]:
        """The layers of unet, text_encoder or text_encoder_2, with paths inside that model."""
        return {path.partition(".")[2]: layer for path, layer in self.layers.items() if path.startswith(f"{name}.")}


def models_of(models: "Models") -> dict[str, nn.Module]:
    """A pipeline, a U-Net, or a mapping of component names -> {unet: ..., text_encoder: ..., text_encoder_2: ...}."""
    if isinstance(models, Mapping):
        found = {name: models[name] for name in COMPONENTS if models.get(name) is not None}
    elif isinstance(models, nn.Module):
        found = {UNET: models}
    else:
        found = {name: getattr(models, name) for name in COMPONENTS if getattr(models, name, None) is not None}
    if UNET not in found:
        raise ModelError(f"{type(models).__name__} holds no U-Net; pass an SDXL pipeline or its models.")
    return found


def lora_modules(model: nn.Module) -> "Iterator[tuple[str, LoraLayer]]":
    """The modules of a live model with layers of any kind of LoRA, by name: peft's, or those of plain.py."""
    every = model.named_modules()
    return ((name, cast("LoraLayer", m)) for name, m in every if not CARRIERS.isdisjoint(m._modules))


def lora_names(model: nn.Module) -> list[str]:
    """The names of a live model's modules that carry LoRA layers."""
    return [inside(name) for name, _ in lora_modules(model)]


def collect(
    unet: "UNet",
    text_encoder: "CLIPTextModel | None" = None,
    text_encoder_2: "CLIPTextModelWithProjection | None" = None,
    adapter_name: str = "default",
) -> LoraWeights:
    """Copy a peft adapter's weights from live models, on the CPU in fp32; alpha includes rsLoRA's factor.

    ModelError if no module carries the adapter.
    """
    layers = {}
    for component, model in zip(COMPONENTS, (unet, text_encoder, text_encoder_2), strict=True):
        for name, module in lora_modules(model) if model is not None else ():
            if adapter_name in adapters_of(module):
                layers[_path(component, name)] = _collect_layer(module, adapter_name)
    if not layers:
        raise ModelError(f"No module of the models carries a LoRA adapter named {adapter_name!r}.")
    return LoraWeights(layers, Base.of(unet, text_encoder, text_encoder_2))


def _path(component: str, name: str) -> str:
    """The canonical path of a live model's module, also of one inside another kind's layer."""
    path = canonical_path(f"{component}.{inside(name)}".replace(".base_layer", ""))
    return cast(str, path)  # None is for what is no component


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _collect_layer(module: "LoraLayer", adapter: str) -> AnyLayer:
    if is_factored(module):
        return collected(cast(Any, module), adapter)
    rank = module.r[adapter]
    # `scaling` moves with set_scale, so the trained strength comes from alpha and rank; rsLoRA is alpha / sqrt(r)
    alpha = module.lora_alpha[adapter] * (rank**0.5 if module.use_rslora.get(adapter) else 1)
    magnitudes = module.lora_magnitude_vector
    dora = _copy(magnitudes[adapter].weight).flatten() if adapter in magnitudes else None
    return Layer(_copy(module.lora_A[adapter].weight), _copy(module.lora_B[adapter].weight), float(alpha), dora)


def delta(layer: AnyLayer, weight: torch.Tensor | None = None) -> torch.Tensor:
    """The effective change of a module's weight at strength 1, in the weight's shape; DoRA needs that `weight`.

    Without it a convolution's change may be (out, in h w), where LoHa or LoKr have it so.
    """
    if isinstance(layer, Factored):
        return layer.change() if weight is None else layer.change().reshape(weight.shape)
    change = (layer.up.flatten(1) @ layer.down.flatten(1)) * layer.scale
    change = change.reshape(layer.up.shape[0], *layer.down.shape[1:])
    if layer.dora_scale is None:
        return change
    if weight is None:
        raise ModelError("A DoRA layer's delta depends on the base weight; pass the module's weight.")
    moved = weight.float().cpu() + change
    rows = (-1, *(1,) * (moved.ndim - 1))
    norms: torch.Tensor = moved.flatten(1).norm(dim=1)
    return layer.dora_scale.view(rows) * moved / norms.view(rows) - weight.float().cpu()


def attach(
    weights: LoraWeights, models: "Models", adapter_name: str = "default", dtype: torch.dtype = torch.float32
) -> None:
    """Put LoRA layers on live models through peft, each with its own rank and alpha; alone active, at strength 1.

    `models`: a pipeline, a U-Net, or a dict with unet, text_encoder, text_encoder_2. Every layer must find its
    module with matching widths (ModelError names the first that does not); nothing is changed before that is known.
    """
    found = models_of(models)
    plans = {name: planned(weights.component(name), found.get(name), name) for name in COMPONENTS}
    for name, model in found.items():
        if adapter_name in getattr(model, "peft_config", {}):
            raise ModelError(f"The {name} already carries an adapter named {adapter_name!r}; choose another name.")
    for name, plan in plans.items():
        if plan:
            inject(found[name], plan, adapter_name, dtype)
    set_scale(found, {adapter_name: 1.0})


def planned(layers: Mapping[str, AnyLayer], model: nn.Module | None, component: str) -> dict[str, AnyLayer]:
    """Live module name -> layer in that module's shape."""
    if not layers:
        return {}
    if model is None:
        raise ModelError(f"The LoRA has layers for {component}, but the models given do not include it.")
    live = {_path(component, name): name for name, _ in reversed(list(model.named_modules())) if name}
    modules = dict(model.named_modules())
    plan = {}
    for path, layer in layers.items():
        full = f"{component}.{path}"
        module = module_of(modules[live[full]]) if full in live else None
        if module is None:
            raise ModelError(f"The LoRA has a layer for {full}, which this base model does not have.")
        plan[live[full]] = fit(layer, module, full)
    return plan


def fit(layer: AnyLayer, module: Module, path: str) -> AnyLayer:
    """Reshape between a linear layer and a 1x1 convolution where needed; ModelError if the widths differ."""
    if isinstance(layer, Factored):  # its change takes the weight's shape by itself
        columns = module.inputs * module.kernel[0] * module.kernel[1]
        if (layer.outputs, layer.columns) != (module.outputs, columns):
            raise _misfit(path, (layer.outputs, layer.columns), (module.outputs, columns))
        return layer
    down, up = layer.down, layer.up
    if module.kind == "linear" and down.ndim == 4 and down.shape[2:] == (1, 1):
        down, up = down.flatten(1), up.flatten(1)
    elif module.kind == "conv" and down.ndim == 2 and module.kernel == (1, 1):
        down, up = down[..., None, None], up[..., None, None]
    dora = layer.dora_scale
    shapes = tuple(down.shape[1:]) == module.down_shape and up.shape[0] == module.outputs
    if not shapes or (dora is not None and dora.numel() != module.outputs):
        raise _misfit(path, (layer.up.shape[0], *layer.down.shape[1:]), (module.outputs, *module.down_shape))
    return Layer(down, up, layer.alpha, dora)


def _misfit(path: str, theirs: tuple[int, ...], ours: tuple[int, ...]) -> ModelError:
    said, own = ("x".join(map(str, shape)) for shape in (theirs, ours))
    return ModelError(f"The LoRA's layer for {path} is {said}, the base model's is {own}: another architecture.")


def peft_fields(layers: Mapping[str, AnyLayer], anchor: str = "^") -> dict[str, Any]:
    """The LoraConfig arguments that give each of these modules its own rank and alpha; JSON-ready.

    Without the anchor, names may be the ends of longer ones (a CLIP model inside its older wrapper).
    """
    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    pattern = {name: anchor + name.replace(".", r"\.") for name in layers}
    return {
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {pattern[n]: layer.rank for n, layer in layers.items() if layer.rank != rank},
        "alpha_pattern": {pattern[n]: _plain(layer.alpha) for n, layer in layers.items() if layer.alpha != alpha},
        "target_modules": sorted(layers),
        "use_dora": any(layer.dora_scale is not None for layer in layers.values()),
    }


def _plain(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


def inject(
    model: "PeftAdapterMixin", plan: Mapping[str, AnyLayer], adapter: str, dtype: torch.dtype, dropout: float = 0.0
) -> None:
    """Put peft's layers on a model, with these ranks, alphas and weights, frozen; `plan` as `planned` makes it."""
    from peft import inject_adapter_in_model

    config = _peft_config(model, plan, dropout)
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with ALONE, _peft_quiet(), torch.random.fork_rng(devices=[]):  # peft draws; training's generator must not move
        inject_adapter_in_model(config, model, adapter_name=adapter)
    model._hf_peft_config_loaded = True  # what diffusers' and transformers' own adapter methods ask for
    for name, module in lora_modules(model):
        if name in plan and adapter in adapters_of(module):
            _copy_into(module, adapter, plan[name], dtype)
    _restore(flags)


def _peft_config(model: nn.Module, plan: Mapping[str, AnyLayer], dropout: float) -> Any:
    """peft's configuration for these layers. ModelError where it cannot hold them on one model."""
    from peft import LoraConfig

    algos = {layer.algo for layer in plan.values()}
    if len(algos) > 1:
        words = " and ".join(WORDS[algo] for algo in sorted(algos))
        raise ModelError(f"The LoRA mixes {words} layers in one model, which peft cannot hold: fuse it, or convert it.")
    (algo,) = algos
    there = {algo_of(module) for _, module in lora_modules(model) if is_factored(module)}
    if algo == "lora" and there:
        raise ModelError("A LoRA must be put on a model before a LoHa or LoKr: attach it first.")
    if there - {algo}:
        raise ModelError("A LoHa and a LoKr cannot be on one model at once: draw with them one after the other.")
    if algo != "lora":
        return config_of(algo, r=1, lora_alpha=1, target_modules=sorted(plan))  # the tensors say the rest
    if len({layer.dora_scale is None for layer in plan.values()}) > 1:
        raise ModelError("The LoRA mixes DoRA and plain LoRA layers in one model, which peft cannot hold.")
    return LoraConfig(**peft_fields(plan), lora_dropout=dropout)


@torch.no_grad()
def _copy_into(module: "LoraLayer", adapter: str, layer: AnyLayer, dtype: torch.dtype) -> None:
    if isinstance(layer, Factored):
        put_into(cast(Any, module), adapter, layer, dtype)
        return
    a, b = module.lora_A[adapter], module.lora_B[adapter]
    a.to(dtype).weight.copy_(layer.down)
    b.to(dtype).weight.copy_(layer.up)
    a.requires_grad_(False)
    b.requires_grad_(False)
    if layer.dora_scale is not None:
        magnitude = module.lora_magnitude_vector[adapter].to(dtype).weight.requires_grad_(False)
        magnitude.copy_(layer.dora_scale.view_as(magnitude))


def set_scale(models: "Models", scales: Mapping[str, float]) -> None:
    """Make exactly these adapters active at these strengths, without reloading; 1.0 is the trained strength.

    An adapter at 0, and any not named, is switched off, so {name: 0} gives the base's output bit for bit (also for
    DoRA, whose magnitudes would act at peft's scale 0). ModelError if no model carries a named adapter.
    """
    found = models_of(models)
    carried = {name for model in found.values() for _, module in lora_modules(model) for name in adapters_of(module)}
    for name in scales:
        if name not in carried:
            raise ModelError(
                f"No adapter named {name!r} is attached; attached: {', '.join(sorted(carried)) or 'none'}."
            )
    for model in found.values():
        flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
        for _, module in lora_modules(model):
            _scale_module(module, {name: scale for name, scale in scales.items() if name in adapters_of(module)})
        _restore(flags)


@contextmanager
def _peft_quiet() -> Iterator[None]:
    """peft warns of every second adapter and of every one that goes; both are asked for here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Already found a `peft_config`|Adapter .* was active", module="peft")
        yield


def _restore(flags: dict[torch.nn.Parameter, bool]) -> None:
    """peft makes what it activates trainable and freezes the rest; who trains what is not ours to change."""
    for parameter, flag in flags.items():
        parameter.requires_grad_(flag)


def _scale_module(module: "LoraLayer", scales: dict[str, float]) -> None:
    active = [name for name, scale in scales.items() if scale != 0]
    if active:
        module.set_adapter(active)
        for name in active:
            module.set_scale(name, float(scales[name]))
    module.enable_adapters(bool(active))


def detach(models: "Models", adapter_name: str) -> None:
    """Take an adapter off again; a module whose last adapter goes is the base's own once more."""
    model: PeftAdapterMixin
    for model in models_of(models).values():
        with _peft_quiet():
            for name, module in reversed(list(lora_modules(model))):  # what is inside another kind's layer first
                if adapter_name in adapters_of(module):
                    module.delete_adapter(adapter_name)
                if not adapters_of(module):
                    parent, _, child = name.rpartition(".")
                    setattr(model.get_submodule(parent), child, module.base_layer)
        getattr(model, "peft_config", {}).pop(adapter_name, None)
        if not getattr(model, "peft_config", True):
            del model.peft_config
            model._hf_peft_config_loaded = False


__all__ = [
    "TE1",
    "TE2",
    "Layer",
    "LoraWeights",
    "attach",
    "collect",
    "delta",
    "detach",
    "set_scale",
]
