"""Which model a LoRA file was made for: names and shapes decide, headers are remarks.

In: a file's `Contents` and its header; out: the reason why it is no SDXL LoRA, if there is one, and remarks on a header
that says otherwise. Headers are spelled in as many ways as there are programs: they count only where shapes are silent.
"""

import re
from collections.abc import Mapping

from ..base import Base
from ..names import TE2
from .contents import NORM, Contents, Parts, algo_of, inputs
from .metadata import BASE_KEY

OTHER_MODELS = (
    "lora_te_",
    "lora_te3_",
    "lora_transformer_",
    "transformer.",
    "lora_unet_double_blocks_",
    "lora_unet_single_blocks_",
    "lora_unet_joint_blocks_",
    "diffusion_model.",
)
NO_LORA = {  # beginnings of keys of files that lie among LoRAs -> what they are
    "lllite_": "a ControlNet-LLLite",
    "bundle_emb.": "a LoRA with embeddings in it",
    "emb_params": "a textual-inversion embedding",
    "clip_l": "a textual-inversion embedding",
    "clip_g": "a textual-inversion embedding",
    "ip_adapter.": "an IP-Adapter",
    "image_proj.": "an IP-Adapter",
    "conditioner.": "a whole model",
    "first_stage_model.": "a whole model",
    "cond_stage_model.": "a whole model",
}
TEXT_MODULE = re.compile(r"attn2\.to_[kv]$")
TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 1280: "SDXL's refiner"}
SDXL_NAMES = re.compile(r"xl|pony|illustrious|noob|animagine|playground|ssd-?1b|segmind", re.IGNORECASE)
OTHER_NAMES = re.compile(r"sd[\s_.-]*v?[123]|stable[\s_-]*diffusion[\s_-]*v?[123]|flux|pixart|wan|qwen", re.IGNORECASE)
SAME_SHAPES = "kolors"  # another model with another text encoder in an SDXL-shaped U-Net


def said_base(metadata: Mapping[str, str]) -> str:
    """What a header calls the base model, empty if it does not."""
    return metadata.get("ss_base_model_version") or metadata.get("modelspec.architecture") or ""


def names_sdxl(said: str) -> bool:
    """Whether a header's word for the base is one of SDXL's many, or none at all."""
    return not said or bool(SDXL_NAMES.search(said))


def why_not_sdxl(found: Contents, metadata: Mapping[str, str], base: Base) -> str | None:
    """What shows that the file was made for another model than SDXL; None if nothing does."""
    said = said_base(metadata)
    if key := next((key for key in found.unknown if key.startswith(OTHER_MODELS)), None):
        return f"it holds {key}"
    for path, parts in {**found.layers, **found.others}.items() if BASE_KEY not in metadata else ():
        width = inputs(parts) if TEXT_MODULE.search(path) else None
        module = base.inventory.get(path) if width in TEXT_WIDTHS else None
        if width in TEXT_WIDTHS and (module is None or module.inputs != width):
            return f"its text width is {width}, that of {TEXT_WIDTHS[width]}"
    factored = [path for path, parts in found.layers.items() if algo_of(parts) != "lora"]
    for path in (*found.others, *factored) if BASE_KEY not in metadata else ():
        if path not in base.inventory and not NORM.fullmatch(path):
            return f"it changes {path}, which SDXL does not have"
    if SAME_SHAPES in said.lower():
        return f"its header says {said}, whose shapes are SDXL's"
    if names_sdxl(said) or (_fits(found, base) and (_distinct(found) or not OTHER_NAMES.search(said))):
        return None
    return f"its header says {said}"


def what_else(found: Contents) -> str | None:
    """What the first unexplained key belongs to, where it is a known kind of file that is no LoRA."""
    kinds = (kind for key in found.unknown for begin, kind in NO_LORA.items() if key.startswith(begin))
    return next(kinds, None)


def _fits(found: Contents, base: Base) -> bool:
    """Whether every module is one of the base's, and every LoRA layer as wide as its module."""
    others = all(path in base.inventory or NORM.fullmatch(path) for path in found.others)
    return others and all(_as_wide(parts, base, path) for path, parts in found.layers.items())


def _as_wide(parts: Parts, base: Base, path: str) -> bool:
    module = base.inventory.get(path)
    if module is None or algo_of(parts) != "lora":
        return module is not None
    if not {"down", "up"} <= parts.keys():
        return False
    down, up = parts["down"].shape, parts["up"].shape
    return len(down) > 1 and len(up) > 1 and (down[1], up[0]) == (module.inputs, module.outputs)


def _distinct(found: Contents) -> bool:
    """Whether a module shows SDXL that Stable Diffusion 1 and 2 do not have, or have in another width."""
    marks = re.compile(rf"^{TE2}\.|transformer_blocks\.[1-9]|add_embedding|{TEXT_MODULE.pattern}")
    return any(marks.search(path) for path in (*found.layers, *found.others))


def remarks(found: Contents, metadata: Mapping[str, str]) -> list[str]:
    """What programs that go by the header will make of it."""
    said, version = said_base(metadata), metadata.get("ss_base_model_version")
    told = []
    if not names_sdxl(said):
        told.append(f"Its header calls the base {said}; its names and shapes are SDXL's, and decide.")
    if found.naming == "kohya" and metadata and not (version or "").startswith("sdxl_"):
        says = f"calls the base {version}" if version else "names no base in ss_base_model_version"
        told.append(
            f"Its header {says}, so AUTOMATIC1111 and Forge hide it beside SDXL: convert writes sdxl_base_v1-0."
        )
    return told
