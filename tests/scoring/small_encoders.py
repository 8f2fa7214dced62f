"""A CLIP and a DINOv2 of a few kilobytes with random weights, as folders of safetensors."""

import torch
import transformers
from random_sdxl import make_tokenizer

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def clip(folder):
    """A CLIPModel of 16 dimensions and its tokenizer of 16 tokens; the folder's name."""
    text = VISION | {"vocab_size": 514, "max_position_embeddings": 16}
    text |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    vision = VISION | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(1)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    _processor("CLIPImageProcessor", 32).save_pretrained(folder)
    return str(folder)


def dino(folder):
    """A Dinov2Model of 32 dimensions; the folder's name."""
    torch.manual_seed(2)
    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(folder)
    _processor("BitImageProcessor", 28).save_pretrained(folder)
    return str(folder)


def _processor(name, side):
    kind = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return kind(size={"shortest_edge": 32}, crop_size={"height": side, "width": side})
