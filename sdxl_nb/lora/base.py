"""The base model as a LoRA file sees it: which modules exist, of which kind and width, and what they are called.

In: a live model, or the short description that our files carry in their header; out: an inventory, computed from the
U-Net's configuration on the meta device (no weights, a tenth of a second for full-size SDXL).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..models.lock import ALONE
from ..system.errors import ModelError
from ..system.misfits import leave_out_xformers
from .names import SDXL as SDXL_LAYOUT
from .names import TE1, TE2, UNET, Layout

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from ..models.unet import UNet

UNET_FIELDS = (
    "in_channels",
    "out_channels",
    "block_out_channels",
    "down_block_types",
    "up_block_types",
    "layers_per_block",
    "transformer_layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "use_linear_projection",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "norm_num_groups",
)
RELATIVE_FIELDS = {  # in a description only where they differ from SDXL's, as they do in SSD-1B's and Vega's kind
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "reverse_transformer_layers_per_block": None,
}
MIDDLES = ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None)
TEXT_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "projection_dim")
BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
LIMITS = {"block_out_channels": 4096, "layers_per_block": 4, "transformer_layers_per_block": 16}


@dataclass(frozen=True)
class Module:
    """One module that can carry a LoRA: kind is linear or conv; widths are those of its weight; kernel (h, w)."""

    kind: str
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)

    @property
    def down_shape(self) -> tuple[int, ...]:
        return (self.inputs, *self.kernel) if self.kind == "conv" else (self.inputs,)


@dataclass(frozen=True)
class Base:
    """The shapes of one SDXL: U-Net and text-encoder configurations, cut down to what decides names and widths."""

    description: str  # canonical JSON, so that a Base is hashable and travels in a header

    @classmethod
    def of(
        cls,
        unet: "UNet",
        text_encoder: "CLIPTextModel | None" = None,
        text_encoder_2: "CLIPTextModelWithProjection | None" = None,
    ) -> "Base":
        """Describe live diffusers and transformers models (text encoders may be absent)."""
        described = {name: unet.config[name] for name in UNET_FIELDS}
        others = {name: unet.config.get(name, usual) for name, usual in RELATIVE_FIELDS.items()}
        described |= {name: value for name, value in others.items() if value != RELATIVE_FIELDS[name]}
        parts = {UNET: described}
        for name, model in ((TE1, text_encoder), (TE2, text_encoder_2)):
            if model is not None:
                parts[name] = {field: getattr(model.config, field) for field in TEXT_FIELDS}
        return cls(json.dumps(parts, sort_keys=True))

    @classmethod
    def from_json(cls, text: str) -> "Base":
        """Read a description from a stranger's header; sizes are bounded, unknown fields refused (ModelError)."""
        try:
            parts = json.loads(text)
            _check_unet(parts[UNET])
            for name, part in parts.items():
                if name != UNET and (name not in (TE1, TE2) or set(part) != set(TEXT_FIELDS)):
                    raise ValueError(name)
                if name != UNET and not all(isinstance(v, int) and 0 < v <= 16384 for v in part.values()):
                    raise ValueError(name)
                if name != UNET and part["num_hidden_layers"] > 64:
                    raise ValueError(name)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                "The LoRA file's header describes no SDXL base model; its tensors may still load."
            ) from error
        return cls(json.dumps(parts, sort_keys=True))

    @property
    def layout(self) -> Layout:
        return _layout(self.description)

    @property
    def inventory(self) -> Mapping[str, Module]:
        """Canonical module path -> Module, for every linear and convolution of U-Net and text encoders."""
        return _inventory(self.description)


def _check_unet(config: dict[str, Any]) -> None:
    if (
        set(config) - set(RELATIVE_FIELDS) != set(UNET_FIELDS)
        or not set(config["down_block_types"] + config["up_block_types"]) <= BLOCKS
    ):
        raise ValueError("fields")
    if len(config["down_block_types"]) > 4 or len(config["up_block_types"]) > 4:
        raise ValueError("blocks")
    if config.get("mid_block_type", MIDDLES[0]) not in MIDDLES:
        raise ValueError("middle")
    for name, value in config.items():
        numbers = list(_flat(value, 3))
        if any(isinstance(n, int) and not 0 <= n <= LIMITS.get(name, 16384) for n in numbers):
            raise ValueError(name)


def _flat(value: Any, depth: int) -> Iterator[Any]:
    """What a value holds, lists in lists opened; ValueError for lists that are deeper or longer than a U-Net's."""
    if not isinstance(value, list):
        yield value
    elif not depth or len(value) > 8:
        raise ValueError("lists")
    else:
        for inner in value:
            yield from _flat(inner, depth - 1)


@lru_cache(maxsize=8)
def _layout(description: str) -> Layout:
    return Layout.of(json.loads(description)[UNET])


@lru_cache(maxsize=8)
def _inventory(description: str) -> Mapping[str, Module]:
    import torch

    from ..models.streaming import Hollow
    from ..models.unet import SdxlUNet, covers

    parts = json.loads(description)
    try:
        with ALONE, Hollow(), torch.random.fork_rng(devices=[]):
            if covers(parts[UNET]):  # the same modules, a second less to import
                unet: UNet = SdxlUNet(parts[UNET])
            else:
                leave_out_xformers()
                from diffusers import UNet2DConditionModel

                unet = UNet2DConditionModel(**parts[UNET])
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError, NotImplementedError) as error:
        raise ModelError("The base model that this LoRA describes cannot be built; its header is damaged.") from error
    modules = {f"{UNET}.{name}": module_of(module) for name, module in unet.named_modules()}
    for name in (TE1, TE2):
        modules.update(_text_modules(name, parts.get(name)))
    return {path: module for path, module in modules.items() if module}


def module_of(module: "torch.nn.Module") -> Module | None:
    """The Module of a live torch layer (or of the base layer of peft's), None for what carries no LoRA."""
    import torch

    while (inner := getattr(module, "base_layer", None)) is not None:  # one kind's layer may lie in another's
        module = inner
    if isinstance(module, torch.nn.Conv2d):
        height, width = module.kernel_size
        return Module("conv", module.in_channels, module.out_channels, (height, width))
    if isinstance(module, torch.nn.Linear):
        return Module("linear", module.in_features, module.out_features)
    return None


def _text_modules(component: str, config: dict[str, Any] | None) -> dict[str, Module]:
    """CLIP's modules need no model: every layer is the same four projections and two of the MLP."""
    if config is None:
        return {}
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    modules = {f"{TE2}.text_projection": Module("linear", hidden, config["projection_dim"])} if component == TE2 else {}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"{component}.text_model.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            modules[f"{prefix}.self_attn.{name}"] = Module("linear", hidden, hidden)
        modules[f"{prefix}.mlp.fc1"] = Module("linear", hidden, wide)
        modules[f"{prefix}.mlp.fc2"] = Module("linear", wide, hidden)
    return modules


SDXL = Base(
    json.dumps(
        {
            UNET: {
                "in_channels": 4,
                "out_channels": 4,
                "block_out_channels": [320, 640, 1280],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
                "layers_per_block": SDXL_LAYOUT.layers_per_block,
                "transformer_layers_per_block": [1, 2, 10],
                "attention_head_dim": [5, 10, 20],
                "cross_attention_dim": 2048,
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
                "norm_num_groups": 32,
            },
            TE1: {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "projection_dim": 768},
            TE2: {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280},
        },
        sort_keys=True,
    )
)
