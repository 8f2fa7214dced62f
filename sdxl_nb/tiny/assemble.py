"""Put the trained parts together as `base/`: diffusers' folder layout, fp16, names that every version reads.

python -m sdxl_nb.tiny.assemble PARTS --vae VAE [--out sdxl_nb/tiny/base]
"""

import argparse
import json
import shutil
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from .architecture import make_scheduler

BASE = Path(__file__).parent / "base"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", type=Path)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=BASE)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(args.parts / name, args.out / name)
    for name in ("text_encoder", "text_encoder_2"):
        copy_text_encoder(args.parts / name, args.out / name)
    UNet2DConditionModel.from_pretrained(args.parts / "unet").half().save_pretrained(args.out / "unet")
    AutoencoderKL.from_pretrained(args.vae).half().save_pretrained(args.out / "vae")
    make_scheduler().save_pretrained(args.out / "scheduler")
    (args.out / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    for config in args.out.glob("*/config.json"):
        clean(config)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {size / 1e6:.1f} MB")


MODEL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def copy_text_encoder(source: Path, target: Path) -> None:
    """fp16 weights under the names of transformers 4 (`text_model.` in front), which transformers 5 reads as well."""
    target.mkdir(parents=True)
    weights = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        old = name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"
        weights[old] = tensor.half() if tensor.is_floating_point() else tensor
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(source / "config.json", target / "config.json")


def clean(config: Path) -> None:
    """Take out what belongs to the machine that trained it."""
    values = json.loads(config.read_text())
    for name in ("_name_or_path", "transformers_version"):
        values.pop(name, None)
    for name in ("dtype", "torch_dtype"):
        if name in values:
            values[name] = "float32"  # what plain from_pretrained then loads them as, like the other parts
    config.write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    main()
