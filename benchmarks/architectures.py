"""Random SDXL bases for measuring: SDXL's own classes and files, its weights drawn at random. No network is used.

In: a folder and a name. tiny: small in every way. prop: SDXL's depth (1, 2, 10 transformer blocks) at a tenth of its
width, so that the parts share a step's time as they do in the real one. full: as large as SDXL, saved in bf16 (7 GB).
Out: a diffusers folder, and pictures.

    python -m benchmarks.architectures OUT tiny
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from sdxl_nb.models.architectures import UNET

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": ((32, 3, 4), (32, 4, 4)),  # width, layers and heads of both text encoders
        "widths": (32, 64, 64),
        "heads": (1, 2, 2),
        "depths": (1, 1, 2),
        "vae": (8, 16, 32, 32),
        "layers": 1,
        "time": 8,
        "groups": 8,
    },
    "prop": {
        "text": ((64, 6, 4), (96, 7, 4)),
        "widths": (32, 64, 128),
        "heads": (1, 2, 4),
        "depths": (1, 2, 10),
        "vae": (16, 32, 64, 64),
        "layers": 2,
        "time": 32,
        "groups": 32,
    },
    "full": {
        "text": ((768, 12, 12), (1280, 32, 20)),
        "vocabulary": 49408,
        "widths": (320, 640, 1280),
        "heads": (5, 10, 20),
        "depths": (1, 2, 10),
        "vae": (128, 256, 512, 512),
        "layers": 2,
        "time": 256,
        "groups": 32,
    },
}


def make_base(folder: Path, name: str) -> None:
    """Save a random pipeline; the same one every time."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        **make_models(SIZES[name]),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=make_scheduler(),
        add_watermarker=False,
    )
    if name == "full":
        pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(folder)


def make_models(size: dict[str, Any]) -> dict[str, Any]:
    """VAE, text encoders and U-Net by their names in a pipeline, on torch's default device."""
    first, second = size["text"]
    return {
        "vae": _vae(size),
        "text_encoder": _text_encoder(size, first, "quick_gelu", projects=False),
        "text_encoder_2": _text_encoder(size, second, "gelu", projects=True),
        "unet": _unet(size, first[0] + second[0], second[0]),
    }


def _unet(size: dict[str, Any], context: int, pooled: int) -> Any:
    from diffusers import UNet2DConditionModel

    changes = {
        "sample_size": 32,
        "block_out_channels": size["widths"],
        "layers_per_block": size["layers"],
        "transformer_layers_per_block": list(size["depths"]),
        "attention_head_dim": list(size["heads"]),
        "cross_attention_dim": context,
        "addition_time_embed_dim": size["time"],
        "projection_class_embeddings_input_dim": pooled + 6 * size["time"],
        "norm_num_groups": size["groups"],
    }
    return UNet2DConditionModel(**UNET | changes)


def _vae(size: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=size["vae"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=size["layers"],
        norm_num_groups=8,
        latent_channels=4,
        sample_size=256,
        scaling_factor=0.13025,
        force_upcast=True,
    )


def _text_encoder(size: dict[str, Any], shape: tuple[int, int, int], activation: str, projects: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width, layers, heads = shape
    config = CLIPTextConfig(
        vocab_size=size.get("vocabulary", 514),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=size["text"][1][0],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        hidden_act=activation,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval()


def make_scheduler() -> Any:
    """SDXL's own noise schedule."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )


def make_tokenizer() -> Any:
    """CLIP's tokenizer over single bytes, without merges: 512 of them, a start and an end."""
    from transformers import CLIPTokenizer

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    entries = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", model_max_length=77)


def make_pictures(folder: Path, count: int, side: int) -> None:
    """Square captioned pictures of this side, a metadata.jsonl as datasets' imagefolder reads it."""
    import json

    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06d}.jpg", quality=90)
        lines.append(json.dumps({"file_name": f"{number:06d}.jpg", "text": f"pattern {number} of soft colours"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make_base(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "tiny")
