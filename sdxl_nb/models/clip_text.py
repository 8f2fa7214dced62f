"""CLIP's text encoders as caching prompts needs them: tokens in, the hidden states of every layer out.

In: a text encoder's configuration and tensors as transformers stores them. Out: what transformers' CLIPTextModel and
CLIPTextModelWithProjection give, tested equal to them bit for bit; their modules, four CPU seconds to import, are left
out. What it does not cover (`covers` says so) is left to transformers. Architecture: Radford et al. 2021 (arXiv
2103.00020), section 2.4.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .unet import Config


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """OpenAI's approximation of gelu (https://github.com/hendrycks/GELUs)."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu}
COUNTS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
SHAPES = {*COUNTS, "vocab_size", "max_position_embeddings", "projection_dim", "layer_norm_eps"}
OTHERS = ("_attn_implementation", "attn_implementation", "quantization_config")  # how else transformers may compute it
OLD_END = 2  # configurations from before transformers 4.31 say this of an end that is another: the largest token then


def covers(config: Mapping[str, Any]) -> bool:
    """Whether this module builds the encoder of that configuration."""
    return (
        config.get("model_type") == "clip_text_model"
        and config.keys() >= SHAPES
        and config.get("hidden_act") in ACTIVATIONS
        and isinstance(config.get("eos_token_id"), int)
        and config["hidden_size"] % config["num_attention_heads"] == 0
        and not any(config.get(name) for name in OTHERS)
    )


class Encoded(NamedTuple):
    """`hidden_states` of the embedding and each layer, (N, tokens, width); `text_embeds` of a model with projection."""

    hidden_states: tuple[torch.Tensor, ...]
    text_embeds: torch.Tensor | None


class Embeddings(nn.Module):
    """Tokens and their places: (N, tokens) -> (N, tokens, width)."""

    def __init__(self, config: Config):
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.token_embedding(ids)
        return embedded + self.position_embedding.weight[: ids.shape[-1]]


class Attention(nn.Module):
    """Each token looks at those before it and at itself."""

    def __init__(self, config: Config):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_attention_heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in layers)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=q.shape[-1] ** -0.5)
        found: torch.Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return found


class Wide(nn.Module):
    """The two layers after attention."""

    def __init__(self, config: Config):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.act = ACTIVATIONS[config.hidden_act]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc2(self.act(self.fc1(x)))
        return found


class Layer(nn.Module):
    """Attention and two layers, each after a norm and around a skip."""

    def __init__(self, config: Config):
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.self_attn, self.mlp = Attention(config), Wide(config)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Stack(nn.Module):
    """All layers: what goes into the first, and what comes out of each."""

    def __init__(self, config: Config):
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [x]
        for layer in self.layers:
            found.append(layer(found[-1]))
        return tuple(found)


class TextModel(nn.Module):
    """Of tokens (N, tokens) the hidden states, and the normed last state at each text's end, (N, width)."""

    def __init__(self, config: Config):
        super().__init__()
        self.end = config.eos_token_id
        self.embeddings, self.encoder = Embeddings(config), Stack(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, ids: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        states = self.encoder(self.embeddings(ids))
        ends = (ids if self.end == OLD_END else (ids == self.end).int()).argmax(dim=-1)
        last = self.final_layer_norm(states[-1])
        return states, last[torch.arange(len(ids), device=last.device), ends]


class ClipTextEncoder(nn.Module):
    """See the module; called as transformers' models are. The second of SDXL's has a projection."""

    def __init__(self, config: Mapping[str, Any], projects: bool):
        super().__init__()
        self.config = Config(config)
        self.text_model = TextModel(self.config)
        width, wide = self.config.hidden_size, self.config.projection_dim
        self.text_projection = nn.Linear(width, wide, bias=False) if projects else None

    def forward(self, ids: torch.Tensor, output_hidden_states: bool = True) -> Encoded:
        states, pooled = self.text_model(ids)
        return Encoded(states, None if self.text_projection is None else self.text_projection(pooled))
