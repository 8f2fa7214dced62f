"""LoRA files that hold every key there could be, the shapes of full-size SDXL, and what readers need not import."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from unittest.mock import MagicMock

import torch

from sdxl_nb.lora.base import SDXL
from sdxl_nb.lora.kinds.factored import PARTS
from sdxl_nb.lora.names import KOHYA_PREFIXES, kohya_name

FAMILIES = [  # the tensors of one module, as one kind of file spells them
    ["lora_down.weight", "lora_up.weight", "alpha", "dora_scale"],
    ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"],
    ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight"],
    ["lora.down.weight", "lora.up.weight"],
    *([*names, "alpha"] for names in PARTS.values()),  # LoHa and LoKr
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
