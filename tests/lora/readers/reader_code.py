"""How each reader's own code is asked which keys it uses: (checkout, what else to import from) -> keys, notes."""

import json
import sys
import types
from pathlib import Path

import torch
from probe_files import CLIP_G, CLIP_L, FAMILIES, LDM, accepted, every_name, stand_in, tensors

from sdxl_nb.lora.base import SDXL, Base
from sdxl_nb.lora.names import KOHYA_PREFIXES, kohya_name


def enter(reader: str, checkout: Path) -> None:
    """Let ComfyUI's or sd-scripts' own modules be imported."""
    sys.path.insert(0, str(checkout))
    if reader != "comfyui":
        stand_in("torchvision", "cv2", "toml", "voluptuous", "imagesize")
        return
    stand_in("torchvision", "torchaudio", "torchsde", "sentencepiece", "av", "aiohttp", "kornia", "spandrel", "yaml")
    sys.argv[1:] = ["--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()


def comfyui(checkout: Path, also) -> tuple[set[str], dict]:
    enter("comfyui", checkout)
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
    enter("sdscripts", checkout)
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
    for family in FAMILIES[:4]:
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
