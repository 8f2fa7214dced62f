"""The tensors of a base one by one, under diffusers' and transformers' names whatever it is stored as.

In: a Source that is an SDXL. Out: of each part a model that is hollow, which says what its tensors are called and what
kind of layer they belong to, and where in the files each lies. Nothing is read before it is asked for.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...models import files
from ...models.loading import hushed, to_fill
from ...models.sources import Source
from ...models.streaming import Filling, Slot, Weights
from ...models.unet import SdxlUNet, covers
from ...system.errors import ModelError
from ..names import TE1, TE2, UNET

VAE = "vae"


@dataclass(frozen=True)
class Parameter:
    """One tensor of a part: what it is called, the layer it belongs to, where it lies."""

    slot: Slot
    weights: Weights

    @property
    def name(self) -> str:
        return self.slot.name

    @property
    def module_name(self) -> str:
        return self.slot.name.rpartition(".")[0]

    @property
    def layer(self) -> nn.Module:
        return self.slot.module

    @property
    def is_weight(self) -> bool:
        return self.slot.leaf == "weight"

    def read(self) -> torch.Tensor:
        """The tensor as it is stored, mapped: computed with before the next one is read."""
        return self.weights.read(self.slot.place).reshape(self.slot.shape)


@dataclass(frozen=True)
class Part:
    """One model of a base, hollow, and its parameters in order."""

    model: Any
    parameters: tuple[Parameter, ...]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __len__(self) -> int:
        return len(self.parameters)


def opened_parts(source: Source) -> dict[str, Part]:
    """U-Net, text encoders and VAE. ModelError for a part whose files are broken or lack tensors."""
    made = {}
    for part, make in ((UNET, _unet), (TE1, _text_encoder), (TE2, _text_encoder), (VAE, _vae)):
        config = _config(source, part)
        with hushed("transformers"):
            found = to_fill(source, part, make(part, config), config, torch.float32)
        if found is None:
            raise ModelError(
                f"The {part} of {source.name} lacks tensors, or its files are broken or named in a way that is not "
                "read tensor by tensor: download it again."
            )
        made[part] = _part(found)
    return made


def _part(found: Filling) -> Part:
    return Part(found.model, tuple(Parameter(slot, found.weights) for slot in found.slots))


def _config(source: Source, part: str) -> dict[str, Any]:
    path = next((path for path in files.files(source, part) if path.name == "config.json"), None)
    if path is None:
        raise ModelError(f"{source.name} has no {part} with a config.json: give a whole SDXL model.")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    about = source.config("unet/config.json") if part == UNET else None  # which knows an inpainting file's channels
    return about or config


def _unet(part: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    if covers(config):
        return lambda: SdxlUNet(config)
    with hushed():
        from diffusers import UNet2DConditionModel

    return lambda: UNet2DConditionModel.from_config(config)


def _text_encoder(part: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModel if part == TE1 else CLIPTextModelWithProjection
    about = CLIPTextConfig(**config)
    return lambda: kind(about)


def _vae(part: str, config: dict[str, Any]) -> Callable[[], nn.Module]:
    with hushed():
        from diffusers import AutoencoderKL

    return lambda: AutoencoderKL.from_config(config)
