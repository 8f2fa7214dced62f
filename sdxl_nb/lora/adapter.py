"""LoRA put on a base as a TrainConfig says, in peft's layers or plain ones like them: the weights that are trained.

In: a TrainConfig and frozen models. Out: the same models with trainable layers on them, which change nothing yet.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ..config.train_config import TrainConfig
from ..models.lock import ALONE
from ..models.sources import first_line
from ..models.unet import SdxlUNet
from ..system.errors import ConfigError
from ..system.importing import uncollected
from .kinds.peft_layers import config_of, made_ready
from .kinds.plain import put_plain
from .layers import LoraWeights, lora_modules, lora_names
from .starting.going_on import put_on
from .targets import check_patterns, target_modules, text_target_modules

OF_LORA = re.compile(r"\.(lora|hada|lokr)_\w+\.")  # in the names of weights that learn
TEXT_PARTS = ("text_encoder", "text_encoder_2")


def add_lora(
    config: TrainConfig,
    unet: nn.Module,
    text_encoders: tuple[nn.Module, ...] = (),
    start: LoraWeights | None = None,
) -> list[str]:
    """Put LoRA layers on the U-Net, and with `train_text_encoder` on the text encoders; weights in fp32.

    Returns the names of the models that got them. The first values are drawn from torch's global generator, which
    is seeded with `config.seed` here, so that the same config always starts from the same weights. Layers start as
    zero (B = 0), so the first picture is the base's own (arXiv 2106.09685); with `start` they are that LoRA.
    """
    if start is not None:
        names = put_on(config, start, unet, text_encoders)
        _trainable({"unet": unet, **dict(zip(TEXT_PARTS, text_encoders, strict=False))}, names)
        return names
    models: dict[str, tuple[nn.Module, list[str] | str]] = {"unet": (unet, target_modules(config.target_modules, unet))}
    if config.train_text_encoder:
        for name, encoder in zip(TEXT_PARTS, text_encoders, strict=True):
            models[name] = (encoder, text_target_modules(config.target_modules))
    with ALONE:
        torch.manual_seed(config.seed)
        for name, (model, targets) in models.items():
            try:
                if isinstance(model, SdxlUNet) and config.lora_kind == "lora" and not config.use_dora:
                    put_plain(model, targets, config)
                else:
                    _put_pefts(model, targets, config)
            except ValueError as error:  # peft's, when no layer has such a name or is of a kind that takes LoRA
                raise ConfigError(f"target_modules cannot be put on the {name}: {first_line(error)}") from error
            for _, module in lora_modules(model) if config.lora_kind != "lora" else ():
                made_ready(cast(Any, module), "default")
    _trainable({name: model for name, (model, _) in models.items()}, models)
    for model, _ in models.values() if config.use_dora else ():
        _exact_magnitudes(model)
    check_patterns(config, [name for model, _ in models.values() for name in lora_names(model)])
    return list(models)


def _peft_config(config: TrainConfig, targets: list[str] | str) -> Any:
    """peft's configuration of the layers that `config` asks for."""
    from peft import LoraConfig

    common = {
        "r": config.rank,
        "lora_alpha": config.alpha(),
        "target_modules": targets,
        "rank_pattern": config.rank_pattern or {},
        "alpha_pattern": config.alpha_pattern or {},
    }
    if config.lora_kind == "lokr":
        return config_of("lokr", decompose_factor=config.lokr_factor or -1, **common)
    if config.lora_kind == "loha":
        return config_of("loha", **common)
    return LoraConfig(
        lora_dropout=config.lora_dropout,
        init_lora_weights="gaussian",
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        **common,
    )


def _put_pefts(model: Any, targets: list[str] | str, config: TrainConfig) -> None:
    with uncollected():
        from peft import inject_adapter_in_model

    inject_adapter_in_model(_peft_config(config, targets), model)


def _trainable(models: Mapping[str, nn.Module], names: Iterable[str]) -> None:
    """Let the LoRA layers of these models learn, in fp32, and nothing else."""
    for model in map(models.__getitem__, names):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(OF_LORA.search(name) is not None)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def _exact_magnitudes(model: nn.Module) -> None:
    """DoRA's magnitudes in fp32: peft rounds them to the dtype of a base in half precision.

    Its linear layers divide by norms in fp32 and would not start as the base's; convolutions divide by rounded ones.
    """
    for _, module in lora_modules(model):
        vectors = module.lora_magnitude_vector
        weight = module.get_base_layer().weight if len(vectors) else None
        if weight is not None and weight.ndim == 2 and weight.dtype != torch.float32:
            for vector in vectors.values():
                vector.weight.data = torch.linalg.norm(weight.float(), dim=1).view_as(vector.weight)
