"""Training on from a LoRA that is there: of ours, kohya's or diffusers'.

In: a TrainConfig with `lora_weights`. Out: the configuration with what the file decides, and its weights, put on a base
as trainable layers. Rank, alpha, layers and DoRA are the file's, each layer's its own.
"""

import os
from collections import Counter
from pathlib import Path

import torch
from torch import nn

from ...config.header import find_lora, opened
from ...config.train_config import TrainConfig
from ...models.sources import Source
from ...system.errors import ConfigError
from ..base import Base
from ..files.reader import read_lora
from ..fusing_file import base_of
from ..kinds.factored import has_rank
from ..layers import LoraWeights, inject, lora_modules, planned
from ..names import TE1, TE2, UNET

DECIDED = (
    *("rank", "lora_alpha", "use_dora", "lora_kind"),
    *("use_rslora", "target_modules", "rank_pattern", "alpha_pattern", "lokr_factor"),
)


def shapes_of(source: Source) -> Base | None:
    """The shapes of a base by its configurations; None where they do not say them, and files must."""
    try:
        return base_of(source)
    except KeyError:
        return None


def file_of(config: TrainConfig) -> Path | None:
    """The file that `lora_weights` means. Raises ModelError where there is none."""
    return None if config.lora_weights is None else find_lora(os.path.expanduser(config.lora_weights))


def taken_over(config: TrainConfig) -> TrainConfig:
    """The configuration as `lora_weights` decides it: rank, alpha and DoRA, those of most layers where they differ."""
    weights = starting_weights(config)
    if weights is None:
        return config
    _check_alphas(config, weights)
    layers = [layer for layer in weights.layers.values() if has_rank(layer)] or list(weights.layers.values())
    rank, alpha = (
        Counter(each).most_common(1)[0][0] for each in zip(*((a.rank, a.alpha) for a in layers), strict=True)
    )
    decided = {"rank": rank, "lora_alpha": alpha, "use_dora": any(layer.dora_scale is not None for layer in layers)}
    decided["lora_kind"] = weights.algo
    usual = {name: TrainConfig.model_fields[name].default for name in DECIDED[4:]}
    return config.replace(**decided, **usual)


def _check_alphas(config: TrainConfig, weights: LoraWeights) -> None:
    """ConfigError for layers whose alpha lets nothing be learned, or turns what is learned round."""
    wrong = {path: layer.alpha for path, layer in weights.layers.items() if has_rank(layer) and layer.alpha <= 0}
    if not wrong:
        return
    path, alpha = min(wrong.items())
    advice = (
        "such a layer cannot learn: give another file"
        if alpha == 0
        else "python -m sdxl_nb.lora convert --fold_alpha writes the same LoRA with an alpha that can be trained"
    )
    raise ConfigError(f"lora_weights {config.lora_weights} has alpha {alpha:g} in {path}: {advice}")


def remarks(given: TrainConfig, taken: TrainConfig) -> list[str]:
    """What is said of the file: settings that were given and are not used, and weights that were rounded."""
    path = file_of(given)
    if path is None:
        return []
    usual = {name: TrainConfig.model_fields[name].default for name in DECIDED}
    unused = [n for n in DECIDED if getattr(given, n) not in (usual[n], getattr(taken, n))]
    said = f"Training goes on from {path.name} with its rank {taken.rank}, alpha {taken.lora_alpha:g} and layers"
    said += f"; {', '.join(unused)} {'are' if unused[1:] else 'is'} not used." if unused else "."
    with opened(path, path.name, "pt") as file:
        halves = {"F16": "fp16", "BF16": "bf16"}
        rounded = {halves.get(file.get_slice(key).get_dtype()) for key in file.keys()} - {None}  # noqa: SIM118
    if rounded:
        said += f" Its weights were rounded to {' and '.join(sorted(filter(None, rounded)))} when it was written."
    return [said]


def starting_weights(config: TrainConfig, base: Base | None = None) -> LoraWeights | None:
    """The weights to go on from, if any. ModelError for a file that is no LoRA of SDXL."""
    path = file_of(config)
    return None if path is None else read_lora(path, base or shapes_of(Source.of(config)))


def put_on(
    config: TrainConfig, weights: LoraWeights, unet: nn.Module, text_encoders: tuple[nn.Module, ...]
) -> list[str]:
    """Put the weights on the models as trainable layers, fp32; returns the names of the models that got them.

    ConfigError where the file has layers of text encoders and they are not trained, or has none and they are;
    ModelError where it does not fit the base.
    """
    of_text = [name for name in (TE1, TE2) if weights.component(name)]
    if not weights.component(UNET):
        raise ConfigError(
            f"lora_weights {config.lora_weights} has layers for the text encoders alone, and a run trains the U-Net: "
            "give it as base_lora, then train_text_encoder trains new layers on top of it"
        )
    if of_text and not config.train_text_encoder:
        raise ConfigError(
            f"lora_weights {config.lora_weights} has layers for the text encoders too: add train_text_encoder to go on "
            "with all of it, or give it as base_lora to train a new LoRA on top of it"
        )
    if config.train_text_encoder and not of_text:
        raise ConfigError(
            f"lora_weights {config.lora_weights} has no layers for the text encoders: drop train_text_encoder"
        )
    found = {UNET: unet, **dict(zip((TE1, TE2), text_encoders, strict=False))}
    plans = {name: planned(weights.component(name), found.get(name), name) for name in (UNET, *of_text)}
    plans = {name: plan for name, plan in plans.items() if plan}
    for name, plan in plans.items():
        inject(found[name], plan, "default", torch.float32, config.lora_dropout)
        for _, module in lora_modules(found[name]):
            module.set_adapter("default")
    return list(plans)
