"""Record which LoRA keys a reader accepts, by running the reader's own code over full-size SDXL on the meta device.

    python tests/lora/readers/record.py comfyui  CHECKOUT
    python tests/lora/readers/record.py forge    CHECKOUT --also HUGGINGFACE_GUESS
    python tests/lora/readers/record.py a1111    CHECKOUT --also GENERATIVE_MODELS
    python tests/lora/readers/record.py sdscripts CHECKOUT
    python tests/lora/readers/record.py diffusers
    ... --dora                       (comfyui, forge, a1111: also what it makes of a DoRA layer, into dora.json)

In: a checkout of the reader, and of the repository that it takes SDXL's U-Net from, at the commit that it pins
(Forge: huggingface_guess 84826248; A1111: generative-models 45c443b3). a1111, forge and sdscripts want a transformers
of their time on PYTHONPATH (4.54.1 was used), a1111 and comfyui also einops and open_clip_torch.
Out: sdxl_nb/lora/files/known_keys/READER.json. No code of a reader is in this file or in that one. A reader's imports
that have no part in reading LoRA files (web servers, image and audio libraries) are stood in for by empty modules where
they are not installed.

What is recorded is what the reader's loader did with a file that holds every key there could be: a key counts as
accepted when the loader used it, not when it overlooked or reported it.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import subprocess
import sys
import types
from collections import defaultdict
from pathlib import Path
from unittest.mock import MagicMock

import torch

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from sdxl_nb.lora.base import SDXL, Base  # noqa: E402
from sdxl_nb.lora.files.patterns import fold  # noqa: E402
from sdxl_nb.lora.names import KOHYA_PREFIXES, kohya_name  # noqa: E402

FAMILIES = [  # the tensors of one module, as one kind of file spells them
    ["lora_down.weight", "lora_up.weight", "alpha", "dora_scale"],
    ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"],
    ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight"],
    ["lora.down.weight", "lora.up.weight"],
]
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
LDM = {  # SDXL's U-Net in the names of Stability AI's code: sd_xl_base.yaml
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4],
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty stand-ins for packages that are not installed, or (listed by name) are not wanted."""

    def __init__(self, *names: str, always: tuple[str, ...] = ()):
        self.names, self.always = names, always
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if name in self.always or any(name.startswith(f"{n}.") for n in self.always) or top in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__path__ = []
        module.__getattr__ = lambda name: MagicMock(name=name) if not name.startswith("__") else _no(name)
        return module

    def exec_module(self, module):
        pass


def _no(name):
    raise AttributeError(name)


def stand_in(*names: str, always: tuple[str, ...] = ()) -> None:
    import diffusers.loaders  # noqa: F401, these ask what is installed, so they come first
    import transformers.models.clip.modeling_clip  # noqa: F401
    from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel  # noqa: F401

    Absent(*[name for name in names if importlib.util.find_spec(name) is None], always=always)


def every_name() -> list[str]:
    """Every module of full-size SDXL under kohya's sgm and diffusers-block names and under diffusers' own."""
    names = []
    for path in SDXL.inventory:
        component, _, inner = path.partition(".")
        names += [path, f"{KOHYA_PREFIXES[component]}_{inner.replace('.', '_')}"]
        names += filter(None, [kohya_name(path)])
    return list(dict.fromkeys(names))


def tensors(names, family) -> dict[str, torch.Tensor]:
    """A rank-1 file; loaders that look at widths get their own (`shaped`)."""
    return {
        f"{name}.{part}": torch.ones(()) if part == "alpha" else torch.ones(1, 1) for name in names for part in family
    }


def accepted(names, load) -> set[str]:
    """The keys of every family that `load` (tensors -> used keys) used."""
    return {key for family in FAMILIES for key in load(tensors(names, family))}


# ------------------------------------------------------------------------------------------------------- readers


def comfyui(checkout: Path, also) -> tuple[set[str], dict]:
    sys.path.insert(0, str(checkout))
    stand_in("torchvision", "torchaudio", "torchsde", "sentencepiece", "av", "aiohttp", "kornia", "spandrel", "yaml")
    sys.argv[1:] = ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.lora
    import comfy.model_base
    import comfy.model_detection
    import comfy.sdxl_clip

    def read(keys_of, model):
        key_map = keys_of(model, {})
        matrices = {k for k, v in model.state_dict().items() if v.ndim > 1}
        names = [name for name, key in key_map.items() if key in matrices]
        return accepted(
            names, lambda lora: {k for a in comfy.lora.load_lora(lora, key_map).values() for k in a.loaded_keys}
        )

    with torch.device("meta"):
        config = comfy.model_detection.model_config_from_diffusers_unet(diffusers_shapes())
        config.unet_config["dtype"] = torch.float32
        unet = comfy.model_base.SDXL(config, device="meta")
        clip = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float32)
    return read(comfy.lora.model_lora_keys_unet, unet) | read(comfy.lora.model_lora_keys_clip, clip), {}


def diffusers_shapes() -> dict:
    """The U-Net's state dict in diffusers' names, on the meta device."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**json.loads(SDXL.description)["unet"]).state_dict()


def forge(checkout: Path, also) -> tuple[set[str], dict]:
    sys.path[:0] = [str(checkout), str(checkout / "packages_3rdparty"), *also]
    stand_in("torchvision", "torchaudio", "torchsde", "spandrel", "cv2", "sentencepiece", "psutil")
    sys.argv[1:] = ["--always-cpu"]
    from backend.nn.clip import IntegratedCLIP
    from backend.nn.unet import IntegratedUNet2DConditionModel
    from backend.patcher import lora
    from huggingface_guess.model_list import SDXL as guess
    from transformers import CLIPTextConfig, CLIPTextModel

    class KModel(torch.nn.Module):  # what Forge wraps its U-Net in, as far as names go
        def __init__(self, unet):
            super().__init__()
            self.diffusion_model, self.config = unet, guess

    def read(keys_of, model):
        key_map = keys_of(model, {})
        matrices = {k for k, v in model.state_dict().items() if v.ndim > 1}
        names = [name for name, key in key_map.items() if key in matrices]

        def load(file):
            patches, remaining = lora.load_lora(file, key_map)
            return set(file) - set(remaining) if patches else set()

        return accepted(names, load)

    extra = {
        **guess.unet_config,
        "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    }
    config = {
        **LDM,
        **{k: v for k, v in extra.items() if k != "use_temporal_attention"},
        "use_spatial_transformer": True,
    }
    with torch.device("meta"):
        unet = KModel(IntegratedUNet2DConditionModel.from_config({**config, "num_res_blocks": [2, 2, 2]}))
        clip_l = IntegratedCLIP(CLIPTextModel, CLIPTextConfig(**CLIP_L))
        clip_g = IntegratedCLIP(CLIPTextModel, CLIPTextConfig(**CLIP_G), add_text_projection=True)
    clip = torch.nn.ModuleDict({"clip_l": clip_l, "clip_g": clip_g})
    return read(lora.model_lora_keys_unet, unet) | read(lora.model_lora_keys_clip, clip), {}


def a1111(checkout: Path, also) -> tuple[set[str], dict]:
    sys.path[:0] = [str(checkout / "extensions-builtin" / "Lora"), *also]
    stand_in(
        "pytorch_lightning", "omegaconf", "torchvision", "fsspec", "kornia", "open_clip", "gradio", always=("modules",)
    )
    import modules.devices
    import modules.models.sd3.mmdit

    modules.models.sd3.mmdit.QkvLinear = type("QkvLinear", (), {})  # SD3's; SDXL has none
    modules.devices.cpu, modules.devices.dtype = "cpu", torch.float32
    import networks
    import open_clip
    from sgm.modules.diffusionmodules.openaimodel import UNetModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNetModel(
            attention_resolutions=[4, 2], use_spatial_transformer=True, transformer_depth=[1, 2, 10], **LDM
        )
        first = CLIPTextModel(CLIPTextConfig(**CLIP_L))
        second = open_clip.model.CLIP(
            1280,
            vision_cfg={"layers": 1, "width": 64, "head_width": 64, "patch_size": 14, "image_size": 28},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 1280, "heads": 20, "layers": 32},
        )
    second.__dict__["_modules"].pop("visual", None)

    def holder(**parts):
        module = torch.nn.Module()
        for name, part in parts.items():
            setattr(module, name, part)
        return module

    embedders = [
        types.SimpleNamespace(wrapped=holder(transformer=first)),
        types.SimpleNamespace(wrapped=holder(model=second)),
    ]
    model = types.SimpleNamespace(
        is_sdxl=True,
        conditioner=types.SimpleNamespace(embedders=embedders),
        model=holder(diffusion_model=unet),
    )
    networks.shared.sd_model = model
    networks.assign_network_names_to_compvis_modules(model)
    on_disk = types.SimpleNamespace(filename=__file__)

    def load(file):
        """Accepted: its module was found and its tensors make the network module's change what it is."""
        networks.sd_models.read_state_dict = lambda _: dict(file)
        missed = []
        networks.logging = types.SimpleNamespace(debug=lambda text: missed.append(text))
        net = networks.load_network("x", on_disk)
        found = {
            name for name in {key.partition(".")[0] for key in file} if not any(f"'{name}." in text for text in missed)
        }
        used = {
            part
            for part in FAMILIES[0]
            if getattr(next(iter(net.modules.values())), _ATTRIBUTES[part], None) is not None
        }
        same = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
        parts = {part for part in {key.partition(".")[2] for key in file} if same.get(part, part) in used}
        return {f"{name}.{part}" for name in found for part in parts}

    names = [name for name in every_name() if "." not in name]
    note = {"dora": "dora_scale is used, but over the norms of the inputs' columns, not of the outputs' rows"}
    return set().union(*(load(tensors(names, family)) for family in (FAMILIES[0], FAMILIES[1][:2]))), note


_ATTRIBUTES = {
    "lora_down.weight": "down_model",
    "lora_up.weight": "up_model",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
}


def sdscripts(checkout: Path, also) -> tuple[set[str], dict]:
    sys.path.insert(0, str(checkout))
    stand_in("torchvision", "cv2", "toml", "voluptuous", "imagesize")
    from library.sdxl_original_unet import SdxlUNet2DConditionModel
    from networks import lora
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        unet = SdxlUNet2DConditionModel()
        encoders = [CLIPTextModel(CLIPTextConfig(**CLIP_L)), CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G))]
    widest = lora.LoRANetwork(encoders, unet, lora_dim=1, conv_lora_dim=1, alpha=1, conv_alpha=1, is_sdxl=True)
    shapes = {}
    for module in widest.text_encoder_loras + widest.unet_loras:
        shapes |= {f"{module.lora_name}.{k}": v for k, v in module.state_dict().items()}
    # its converter renames diffusers' block names onto these, so that one file cannot hold both
    names = {key.partition(".")[0] for key in shapes} | {*filter(None, map(kohya_name, SDXL.inventory))}
    used = set()
    for family in FAMILIES:
        file = {key: shapes.get(key, value) for key, value in tensors(names, family).items()}
        network, read = lora.create_network_from_weights(1.0, None, None, encoders, unet, weights_sd=file)
        network.apply_to(encoders, unet)
        result = network.load_state_dict(read, strict=False)
        if network.unet_loras:
            used |= set(read) - set(result.unexpected_keys)
    return used, {"dora": "dora_scale is overlooked: the layers act as plain LoRA"}


def diffusers(checkout, also) -> tuple[set[str], dict]:
    """SDXL's whole tree of modules, each of them narrow: diffusers loads no LoRA onto the meta device."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from diffusers.utils import logging as diffusers_logging
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    diffusers_logging.set_verbosity_error()
    narrow = {"block_out_channels": [8, 16, 32], "attention_head_dim": [1, 2, 4], "cross_attention_dim": 64}
    narrow |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80, "norm_num_groups": 4}
    clip = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "projection_dim": 32,
        "vocab_size": 99,
    }

    def pipeline():
        return StableDiffusionXLPipeline(
            vae=None,
            text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP_L | clip)),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**CLIP_G | clip)),
            tokenizer=None,
            tokenizer_2=None,
            unet=UNet2DConditionModel(**json.loads(SDXL.description)["unet"] | narrow),
            scheduler=None,
        )

    pipe = pipeline()
    inventory = Base.of(pipe.unet, pipe.text_encoder, pipe.text_encoder_2).inventory
    assert inventory.keys() == SDXL.inventory.keys()

    def load(paths, family, name_of):
        """The keys whose tensors arrived on a layer of the model; one component at a time, as files differ."""
        file, wanted = {}, {}
        for path in paths:
            module = inventory[path]
            conv = (1, 1) if module.kind == "conv" else ()
            shapes = [(1, *module.down_shape), (module.outputs, 1, *conv), (), (module.outputs,)]
            for part, shape in zip(
                family if len(family) == 4 else [*family[:2], None, *family[2:]], shapes, strict=False
            ):
                if part:
                    if part == "alpha":
                        shape = ()
                    elif part.startswith("lora_magnitude") and conv:
                        shape = (1, module.outputs, 1, 1)
                    file[f"{name_of(path)}.{part}"] = torch.ones(shape)
                    wanted[f"{name_of(path)}.{part}"] = (path, part)
        pipe = pipeline()
        try:
            pipe.load_lora_weights(dict(file), adapter_name="x")
        except (ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
            print(f"  refused with {family}: {type(error).__name__}: {str(error)[:120]}")
            return set()
        modules = {c: dict(getattr(pipe, c).named_modules()) for c in KOHYA_PREFIXES}
        return {key for key, (path, part) in wanted.items() if _arrived(modules, path, part)}

    used = set()
    for component in KOHYA_PREFIXES:
        paths = [path for path in inventory if path.startswith(f"{component}.") and "text_projection" not in path]
        for family in (FAMILIES[1 if component == "unet" else 2], FAMILIES[3], FAMILIES[1][:2]):
            used |= load(paths, family, lambda path: path)
        used |= load([path for path in paths if kohya_name(path)], FAMILIES[0][:3], kohya_name)
    return used, {}


def _arrived(modules, path: str, part: str) -> bool:
    component, _, inner = path.partition(".")
    module = modules[component].get(inner) or modules[component].get(inner.removeprefix("text_model."))
    if not hasattr(module, "lora_A") or "x" not in module.lora_A:
        return False
    if part == "alpha":
        return True  # it scales the two weights, which are looked at
    if "magnitude" in part:
        held = module.lora_magnitude_vector
    else:
        held = module.lora_A if part.endswith(("down.weight", "A.weight")) else module.lora_B
    return "x" in held and bool((held["x"].weight != 0).all())


def dora_layer() -> dict[str, torch.Tensor]:
    """A small DoRA layer: weight (4, 6), alpha 3, rank 2, magnitudes a tenth off the norms of the rows."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator)
    down, up = torch.randn(2, 6, generator=generator), torch.randn(4, 2, generator=generator) * 0.1
    scale = weight.norm(dim=1, keepdim=True) * (1 + 0.1 * torch.randn(4, 1, generator=generator))
    return {
        "weight": weight,
        "lora_down.weight": down,
        "lora_up.weight": up,
        "alpha": torch.tensor(3.0),
        "dora_scale": scale,
    }


def merged_by(reader: str, checkout: Path, also) -> torch.Tensor:
    """The layer's weight with the LoRA, computed by the reader's own code."""
    layer = dora_layer()
    weight = layer.pop("weight").clone()
    file = {f"x.{part}": tensor for part, tensor in layer.items()}
    if reader == "comfyui":
        import comfy.lora

        patch = comfy.lora.load_lora(file, {"x": "x.weight"})["x.weight"]
        return comfy.lora.calculate_weight([(1.0, patch, 1.0, None, lambda a: a)], weight, "x.weight")
    if reader == "forge":
        from backend.patcher import lora

        patch = lora.load_lora(file, {"x": "x.weight"})[0]["x.weight"]
        return lora.merge_lora_to_weight([(1.0, patch, 1.0, None, None)], weight, "x.weight")
    import network
    import network_lora

    module = torch.nn.Linear(6, 4, bias=False)
    module.weight.data.copy_(weight)
    net = network.Network("x", None)
    net.te_multiplier = net.unet_multiplier = 1.0
    weights = network.NetworkWeights(network_key="x", sd_key="x", w=layer, sd_module=module)
    change, _ = network_lora.NetworkModuleLora(net, weights).calc_updown(module.weight.data)
    return weight + change


def record_dora(reader: str, label: str, commit: str, checkout: Path, also) -> None:
    goal = Path(__file__).with_name("dora.json")
    data = json.loads(goal.read_text()) if goal.exists() else {}
    layer = {name: tensor.tolist() for name, tensor in dora_layer().items()}
    merged = data.get("merged", {}) | {label: {"commit": commit, "weight": merged_by(reader, checkout, also).tolist()}}
    goal.write_text(json.dumps({"layer": layer, "merged": merged}) + "\n")
    print(goal.name, label)


READERS = {
    "comfyui": ("ComfyUI", "Comfy-Org/ComfyUI", comfyui),
    "forge": ("Forge", "lllyasviel/stable-diffusion-webui-forge", forge),
    "a1111": ("AUTOMATIC1111", "AUTOMATIC1111/stable-diffusion-webui", a1111),
    "sdscripts": ("sd-scripts", "kohya-ss/sd-scripts", sdscripts),
    "diffusers": ("diffusers", "huggingface/diffusers", diffusers),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("checkout", nargs="?", type=Path)
    parser.add_argument("--also", action="append", default=[], help="a checkout that the reader imports from")
    parser.add_argument("--dora", action="store_true", help="also merge a DoRA layer, into dora.json")
    parser.add_argument("--commit", help="COMMIT DATE; git is asked by default")
    arguments = parser.parse_args()
    label, repository, record = READERS[arguments.reader]
    versions = {"torch": torch.__version__.partition("+")[0]}
    if arguments.checkout:
        asked = ["git", "-C", str(arguments.checkout), "log", "-1", "--format=%H %cs"]
        commit, date = (arguments.commit or subprocess.check_output(asked, text=True)).split()
    else:
        import diffusers as installed

        commit, date = f"v{installed.__version__}", ""
    logging.disable(logging.INFO)
    keys, notes = record(arguments.checkout, arguments.also)
    if arguments.dora:
        record_dora(arguments.reader, label, commit, arguments.checkout, arguments.also)
    import transformers

    versions["transformers"] = transformers.__version__
    parts = defaultdict(set)
    for key in keys:
        name, part = next((key[: -len(p) - 1], p) for f in FAMILIES for p in f if key.endswith(f".{p}"))
        parts[name].add(part)
    groups = defaultdict(list)
    for name, suffixes in parts.items():
        groups[tuple(sorted(suffixes))].append(name)
    also = [Path(path).name for path in arguments.also]
    data = {
        "reader": label,
        "repository": repository,
        "commit": commit,
        "date": date,
        "command": " ".join(
            [
                "tests/lora/readers/record.py",
                arguments.reader,
                *(["CHECKOUT"] if arguments.checkout else []),
                *(f"--also {name}" for name in also),
            ]
        ),
        "versions": versions,
        "notes": notes,
        "keys": [{"parts": list(group), "modules": fold(names)} for group, names in sorted(groups.items())],
    }
    goal = ROOT / "sdxl_nb" / "lora" / "files" / "known_keys" / f"{arguments.reader}.json"
    goal.parent.mkdir(exist_ok=True)
    goal.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    print(f"{label}: {len(parts)} modules, {len(keys)} keys, {goal.stat().st_size} bytes")


if __name__ == "__main__":
    main()
