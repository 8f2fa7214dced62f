"""The shapes of a base model's parts, for numbers that need no weights.

In: a TrainConfig. Out: an Architecture: from the base's own small files where they can be had, else SDXL's own.
"""

import math
from dataclasses import dataclass
from typing import Any

from ..config.precedence import DEFAULT_BASE
from ..config.train_config import TrainConfig
from ..system.errors import ModelError
from .sources import Source

UNET = {  # stabilityai/stable-diffusion-xl-base-1.0, as its unet/config.json has it
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "norm_num_groups": 32,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "force_upcast": False,
}
TEXT = (  # width, layers, inner width, tokens, vocabulary of the two text encoders
    {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
    {"hidden_size": 1280, "num_hidden_layers": 32, "intermediate_size": 5120, "projection_dim": 1280},
)
TOKENS, VOCABULARY = 77, 49408


@dataclass(frozen=True)
class Architecture:
    """Configurations of the parts as diffusers and transformers store them; `note` says where they come from."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], ...]
    note: str = ""

    @property
    def scale(self) -> int:
        """How many pixels a latent is wide."""
        return 2 ** (len(self.vae["block_out_channels"]) - 1)

    @property
    def tokens(self) -> int:
        return self.text[0].get("max_position_embeddings", TOKENS)

    @property
    def caption_numbers(self) -> int:
        """Numbers in the embedding of one caption."""
        widths = [text["hidden_size"] for text in self.text]
        return self.tokens * sum(widths) + self.text[-1].get("projection_dim", widths[-1])

    def text_parameters(self) -> int:
        """Weights of both text encoders: embeddings, and in each layer attention, feed-forward and norms."""
        total = 0
        for text in self.text:
            width, inner = text["hidden_size"], text["intermediate_size"]
            layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
            embedded = (text.get("vocab_size", VOCABULARY) + self.tokens) * width
            total += embedded + text["num_hidden_layers"] * layer + 2 * width
        last = self.text[-1]
        return total + last["hidden_size"] * last.get("projection_dim", last["hidden_size"])

    def text_kept(self, pictures: int, size: int) -> int:
        """About what training the encoders keeps for the backward pass, in bytes; `size` is that of a number."""
        layers = (16 * self.tokens * text["hidden_size"] * text["num_hidden_layers"] for text in self.text)
        return math.ceil(sum(layers) * pictures * size)


SDXL = Architecture(UNET, VAE, TEXT)


def of(config: TrainConfig) -> Architecture:
    """The Architecture of the configured base; of one that cannot be reached it is SDXL's, with a note that says so."""
    if config.pretrained_model_name_or_path.startswith("s3://"):  # the place of a SageMaker job's base
        place = config.pretrained_model_name_or_path
        return Architecture(UNET, VAE, TEXT, f"counted as SDXL's own architecture: {place} is for a job to read")
    source = Source.of(config)
    if config.pretrained_model_name_or_path == DEFAULT_BASE or source.is_single_file:
        return SDXL
    try:
        unet, vae = source.config("unet/config.json"), source.config("vae/config.json")
        text = [source.config(f"{part}/config.json") for part in ("text_encoder", "text_encoder_2")]
    except ModelError as error:
        return Architecture(UNET, VAE, TEXT, f"counted as SDXL's own architecture, because {error}")
    known = tuple(encoder for encoder in text if encoder is not None)
    if unet is None or vae is None or len(known) < len(text):
        return Architecture(UNET, VAE, TEXT, f"counted as SDXL's own architecture: {source.name} has no configurations")
    return Architecture(unet, vae, known)
