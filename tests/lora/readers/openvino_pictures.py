"""Record what OpenVINO GenAI's own pipeline draws with our files, beside diffusers from the same latents.

    python tests/lora/readers/openvino_pictures.py make FOLDER     (where this project is installed)
    python tests/lora/readers/openvino_pictures.py draw FOLDER     (where openvino-genai is, as below)

In: a folder to work in. `make` writes a base, the embedded one with a random U-Net of full-size SDXL's blocks, for the
reader knows kohya's names by those alone, and files of LoRAs with random weights, one of them also after
`convert --fold_alpha`. `draw` exports the base by optimum-intel and draws by openvino_genai.Text2ImagePipeline on the
CPU. Out: openvino.json, the largest differences of pixels, 0 to 255. For `draw`, in an environment of its own:
pip install torch==2.13.0 openvino-genai==2026.4.1.0 optimum-intel[openvino]==2.2.0 diffusers==0.39.0 peft==0.21.2.
"""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
PROMPTS = ("a red fish on a yellow background", "a green square on a white background", "a blueprint of a star")
SETTINGS = {"width": 64, "height": 64, "num_inference_steps": 6, "guidance_scale": 5.0}
BLOCKS = {"layers_per_block": 2, "transformer_layers_per_block": [1, 2, 3]}  # as SDXL's, but for its ten layers
ATTENTION = {"target_modules": "attention+ff", "train_text_encoder": True, "rank": 8}
KINDS = {  # settings of a LoRA
    "plain": ATTENTION | {"lora_alpha": 8},
    "alpha": ATTENTION | {"lora_alpha": 2},
    "convolutions": {"target_modules": "all", "rank": 8},
    "dora": {"target_modules": "attention", "rank": 8, "use_dora": True},
}
MODES = {  # of GenAI's AdapterConfig, by file
    "plain": ("STATIC", "AUTO", "FUSE"),
    "alpha_folded": ("STATIC",),
    "alpha": ("STATIC",),
    "dora": ("STATIC",),
    "convolutions": ("STATIC",),
}


def make(folder: Path) -> None:
    """The base and the files: NAME/pytorch_lora_weights.safetensors (diffusers) and NAME/NAME.safetensors (kohya)."""
    sys.path.insert(0, str(ROOT))
    from sdxl_nb.config.train_config import TrainConfig
    from sdxl_nb.lora.adapter import add_lora
    from sdxl_nb.lora.command import main as command
    from sdxl_nb.lora.files.writer import save_lora
    from sdxl_nb.lora.layers import collect
    from sdxl_nb.models.loading import load_pipeline

    make_base(folder / "base")
    for name, settings in KINDS.items():
        base = load_pipeline(str(folder / "base"))
        encoders = (base.text_encoder, base.text_encoder_2)
        config = TrainConfig(pretrained_model_name_or_path=str(folder / "base"), seed=1, **settings)
        learning = add_lora(config, base.unet, encoders)
        with torch.no_grad():
            for part in learning:
                for key, parameter in getattr(base, part).named_parameters():
                    if "lora_B" in key:
                        parameter.normal_(std=0.04)
        save_lora(collect(base.unet, *(encoders if len(learning) > 1 else ())), folder / name, name)
    folded = folder / "alpha_folded"
    folded.mkdir(exist_ok=True)
    files = (str(folder / "alpha" / "alpha.safetensors"), str(folded / "alpha_folded.safetensors"))
    assert not command(["convert", *files, "--to", "kohya", "--fold_alpha"])
    shutil.copy(folder / "alpha" / "pytorch_lora_weights.safetensors", folded)  # what it must draw


def make_base(goal: Path) -> None:
    """The embedded base with a random U-Net of as many blocks and layers as full-size SDXL has."""
    from diffusers import UNet2DConditionModel

    shutil.copytree(ROOT / "sdxl_nb" / "tiny" / "base", goal, dirs_exist_ok=True)
    config = UNet2DConditionModel.load_config(goal / "unet")
    torch.manual_seed(0)
    UNet2DConditionModel.from_config({**config, **BLOCKS}).save_pretrained(goal / "unet")


def draw(folder: Path) -> None:
    """openvino.json."""
    exported = folder / "exported"
    if not exported.exists():
        export(folder / "base", exported)
    plain = by_diffusers(folder / "base", None)
    found: dict[str, object] = {"base": differences(by_openvino(exported, None), plain)}
    for name, modes in MODES.items():
        ours = by_diffusers(folder / "base", folder / name / "pytorch_lora_weights.safetensors")
        row: dict[str, object] = {"what the LoRA changes in diffusers": differences(ours, plain)}
        found[name] = row
        for mode in modes:
            row[mode] = compared(exported, folder / name / f"{name}.safetensors", mode, ours)
        record(found)


def record(found: dict[str, object]) -> None:
    """openvino.json, of what was drawn so far."""
    packages = ("openvino-genai", "openvino", "optimum-intel", "diffusers", "transformers", "torch")
    data = {
        "reader": "OpenVINO GenAI",
        "repository": "openvinotoolkit/openvino.genai",
        "command": "tests/lora/readers/openvino_pictures.py draw FOLDER",
        "versions": {name: version(name).partition("+")[0] for name in packages},
        "largest_difference_of_each_picture": found,
    }
    (Path(__file__).parent / "openvino.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found), flush=True)


def export(base: Path, goal: Path) -> None:
    """The base as OpenVINO's own models, tokenizers among them."""
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from optimum.exporters.openvino import main_export
    from transformers import AutoTokenizer

    main_export(str(base), str(goal), task="text-to-image", library_name="diffusers")
    for part in ("tokenizer", "tokenizer_2"):
        tokenizer = AutoTokenizer.from_pretrained(base / part)
        openvino.save_model(convert_tokenizer(tokenizer), goal / part / "openvino_tokenizer.xml")


def compared(exported: Path, lora: Path, mode: str, ours: torch.Tensor) -> list[int] | str:
    """The differences of what one pipeline draws, picture after picture, or OpenVINO's error."""
    try:
        return differences(by_openvino(exported, lora, mode), ours)
    except RuntimeError as error:
        return str(error).strip().splitlines()[-1]


def differences(one: torch.Tensor, other: torch.Tensor) -> list[int]:
    """The largest difference of any pixel, for each picture."""
    return (one - other).abs().flatten(1).amax(1).tolist()


def by_openvino(exported: Path, lora: Path | None, mode: str = "AUTO") -> torch.Tensor:
    """(pictures, height, width, 3) as whole numbers, all by one pipeline."""
    import openvino_genai

    more: dict[str, object] = {}
    if lora is not None:
        modes = openvino_genai.AdapterConfig.Mode
        adapter = openvino_genai.Adapter(str(lora))
        more["adapters"] = openvino_genai.AdapterConfig(adapter, 1.0, getattr(modes, f"MODE_{mode}"))
    more |= {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    pipeline = openvino_genai.Text2ImagePipeline(str(exported), "CPU", **more)
    made = []
    for seed, prompt in enumerate(PROMPTS):
        drawn = pipeline.generate(prompt, generator=openvino_genai.TorchGenerator(seed), **SETTINGS)
        made.append(torch.from_numpy(drawn.data.copy())[0].int())
    return torch.stack(made)


def by_diffusers(base: Path, lora: Path | None) -> torch.Tensor:
    """The same by diffusers."""
    import numpy as np
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(base, torch_dtype=torch.float32, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name)
    made = []
    for seed, prompt in enumerate(PROMPTS):
        picture = pipeline(prompt, generator=torch.Generator("cpu").manual_seed(seed), **SETTINGS).images[0]
        made.append(torch.from_numpy(np.asarray(picture).copy()).int())
    return torch.stack(made)


if __name__ == "__main__":
    {"make": make, "draw": draw}[sys.argv[1]](Path(sys.argv[2]).resolve())
