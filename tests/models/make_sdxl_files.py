"""Make `sdxl_nb/models/sdxl/`: what a single-file checkpoint lacks, SDXL's configurations and CLIP's two tokenizers.

In: bpe_simple_vocab_16e6.txt.gz, CLIP's merges, which open_clip_torch carries on PyPI (MIT, as github.com/openai/CLIP).
Out: the folder, 3 MB. `pip download --no-deps open_clip_torch`, unpack the wheel, then
`python tests/models/make_sdxl_files.py open_clip/bpe_simple_vocab_16e6.txt.gz`.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from sdxl_nb.models.architectures import TEXT, UNET, VAE

FOLDER = Path(__file__).parents[2] / "sdxl_nb" / "models" / "sdxl"
MERGES = 49152 - 256 - 2  # tokens of CLIP's vocabulary that are made by a merge
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
TOKENS = 77


def byte_letters() -> list[str]:
    """A visible letter for each byte, in CLIP's order: bytes that are visible in Latin-1 stand for themselves."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) for byte in visible] + [chr(256 + number) for number in range(len(hidden))]


def vocabulary(lines: list[str]) -> dict[str, int]:
    """Token -> number: the bytes, the bytes that end a word, what merges make, start and end of text."""
    letters = byte_letters()
    merged = ["".join(line.split()) for line in lines]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, BOS, EOS]
    return {token: number for number, token in enumerate(tokens)}


def configurations() -> dict[str, Any]:
    """File name -> content, as stabilityai/stable-diffusion-xl-base-1.0 has them."""
    clip = {
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": TOKENS,
        "model_type": "clip_text_model",
        "pad_token_id": 1,
        "vocab_size": 49408,
    }
    one = {"architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "num_attention_heads": 12}
    one |= {"projection_dim": 768}
    two = {"architectures": ["CLIPTextModelWithProjection"], "hidden_act": "gelu", "num_attention_heads": 20}
    parts = {
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    index = {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True}
    schedule = {
        "_class_name": "EulerDiscreteScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "trained_betas": None,
        "use_karras_sigmas": False,
    }
    unet = {"_class_name": "UNet2DConditionModel", **UNET}
    vae = {"_class_name": "AutoencoderKL", **VAE, "force_upcast": True, "sample_size": 1024, "scaling_factor": 0.13025}
    return {
        "model_index.json": index | parts,
        "scheduler/scheduler_config.json": schedule,
        "text_encoder/config.json": clip | one | TEXT[0],
        "text_encoder_2/config.json": clip | two | TEXT[1],
        "unet/config.json": unet,
        "vae/config.json": vae | {"in_channels": 3, "out_channels": 3, "act_fn": "silu"},
    }


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, lines: list[str], pad: str) -> None:
    """All files that transformers 4 and 5 look for; SDXL's second tokenizer pads with "!", number 0."""
    special = {"bos_token": BOS, "eos_token": EOS, "pad_token": pad, "unk_token": EOS}
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "do_lower_case": True, "errors": "replace"}
    write(folder / "special_tokens_map.json", special)
    write(folder / "tokenizer_config.json", about | special)
    vocab = json.dumps(vocabulary(lines), ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")


def main(merges: str) -> None:
    lines = gzip.decompress(Path(merges).read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    for name, content in configurations().items():
        write(FOLDER / name, content)
    for name, pad in (("tokenizer", EOS), ("tokenizer_2", "!")):
        write_tokenizer(FOLDER / name, lines, pad)


if __name__ == "__main__":
    main(sys.argv[1])
