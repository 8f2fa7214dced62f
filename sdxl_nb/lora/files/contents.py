"""What a LoRA file's keys stand for: parts of LoRA layers, of LyCORIS' other kinds, or nothing that is known.

In: keys and tensors; out: `Contents`, the tensors by canonical module path and part. LoHa and LoKr are read as LoRA is;
the other kinds are told from those and from each other, and not read.
"""

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ..kinds.factored import PARTS, WORDS
from ..names import PEFT_WRAPPER, SDXL, TE1, TE2, UNET, Layout, naming_of, path_of, split_key

KINDS = (  # the end of a key -> what it is called; the first three of a file's kinds name the file
    (re.compile(r"\.([ab][12]\.weight|bm)$"), "GLoRA"),
    (re.compile(r"\.(oft_blocks|oft_diag|oft_R(?:\.weight)?|rescale)$"), "OFT"),
    (re.compile(r"\.(on_input)$"), "IA3"),
    (re.compile(r"\.(vera_lambda_[bd])$"), "VeRA"),
    (re.compile(r"\.(diff|diff_b|set_weight)$"), "full weights"),
    (re.compile(r"\.(w_norm|b_norm)$"), "trained norms"),
    (re.compile(r"\.((?:lora_B|lora_up|lora\.up)\.bias)$"), "trained biases"),
    (re.compile(r"\.(scalar)$"), "a trained scale"),
)
ORDER = tuple(kind for _, kind in KINDS)
# Modules of SDXL that carry no LoRA but may be trained by other kinds, under either naming.
NORM = re.compile(
    r"(lora_(unet|te1|te2)|lycoris|unet|diffusion_model|text_encoder(_2)?|clip_[lg])[._].*"
    r"(norm\d?|norm_out|in_layers[._]0|out_layers[._]0|out[._]0|token_embedding|position_embedding)"
)
FEW = 3  # keys that are named
OVER_INPUTS = (
    "scales inputs ([1, in], as LyCORIS and OneTrainer have it by default), not outputs, which is another change that "
    "peft cannot run: draw with it in ComfyUI."
)

Parts = dict[str, torch.Tensor]


@dataclass
class Contents:
    """A file's tensors (canonical path -> part -> tensor) and unexplained keys.

    `layers` are those of LoRA, LoHa and LoKr, `others` those of kinds that are not read.
    """

    naming: str
    layers: dict[str, Parts] = field(default_factory=dict)
    others: dict[str, Parts] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)  # of the others: kind -> number of keys
    unknown: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)  # keys of a part that another key gave otherwise
    of_peft: bool = False  # whether keys have PEFT's wrapper in front

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor], layout: Layout = SDXL) -> "Contents":
        """Sort the tensors of a file by what their keys say."""
        found = cls(naming_of(tensors), of_peft=any(key.startswith(PEFT_WRAPPER) for key in tensors))
        for key, tensor in tensors.items():
            if other := other_kind(key, tensors, layout):
                path, part, kind = other
                found.others.setdefault(path, {})[part] = tensor
                found.kinds[kind] = found.kinds.get(kind, 0) + 1
            elif place := split_key(key, layout):
                known = found.layers.setdefault(place[0], {}).setdefault(place[1], tensor)
                if known is not tensor and not torch.equal(known, tensor):
                    found.doubled.append(key)
            else:
                found.unknown.append(key)
        for path in found.others.keys() & found.layers.keys():  # alpha and dora_scale are spelled alike in all kinds
            if not found.layers[path].keys() - {"alpha", "dora_scale"}:
                found.others[path] |= found.layers.pop(path)
        return found

    @property
    def kind(self) -> str:
        """LoRA, DoRA, LoKr, "LoRA with trained norms": for people."""
        dora = any("dora_scale" in parts for parts in (*self.layers.values(), *self.others.values()))
        kinds = sorted(self.kinds, key=ORDER.index)
        algos = Counter(algo_of(parts) for parts in self.layers.values())
        if self.layers or not kinds:
            own = [WORDS[algo] for algo, _ in algos.most_common()] or ["LoRA"]
            kinds = ["DoRA" if dora and own[0] == "LoRA" else own[0], *own[1:], *kinds]
        if any("mid" in parts for parts in self.layers.values()):
            kinds.insert(1, "lora_mid")
        if dora and kinds[0] != "DoRA":
            kinds.append("DoRA's magnitudes")
        return " with ".join(filter(None, [kinds[0], " and ".join(kinds[1:])]))

    @property
    def components(self) -> Counter[str]:
        """How many modules of unet, text_encoder and text_encoder_2 there are."""
        names = {TE1: ("text_encoder.", "lora_te1_", "clip_l."), TE2: ("text_encoder_2.", "lora_te2_", "clip_g.")}
        paths = (*self.layers, *(path for path in self.others if path not in self.layers))
        return Counter(next((c for c, begins in names.items() if path.startswith(begins)), UNET) for path in paths)


def algo_of(parts: Mapping[str, torch.Tensor]) -> str:
    """lora, loha or lokr, by the names of a layer's parts."""
    return next((algo for algo, names in PARTS.items() if parts.keys() & set(names)), "lora")


def other_kind(key: str, keys: Container[str], layout: Layout = SDXL) -> tuple[str, str, str] | None:
    """(path, part, kind) of a key of a kind other than LoRA in a module of SDXL's names, else None."""
    for pattern, kind in KINDS:
        if match := pattern.search(key):
            module = key[: match.start()]
            path = path_of(module, layout) or (module if NORM.fullmatch(module) else None)
            return (path, match[1], kind) if path else None
    module = key.removesuffix(".weight")
    path = path_of(module, layout) if f"{module}.on_input" in keys else None
    return (path, "weight", "IA3") if path and module != key else None


def first_few(keys: Iterable[str]) -> str:
    """The first keys, for a sentence."""
    keys = sorted(keys)
    return ", ".join(keys[:FEW]) + " ..." * (len(keys) > FEW)


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The keys of tensors that hold NaN or infinity; those of 8 bits are asked as fp32, which torch can."""
    return [key for key, t in tensors.items() if t.is_floating_point() and not torch.isfinite(t.float()).all()]


def said_not_finite(tensors: Mapping[str, torch.Tensor], name: str) -> str | None:
    """The sentence about NaN and infinity in a file, if there are any."""
    keys = not_finite(tensors)
    if not keys:
        return None
    hold = "holds" if len(keys) == 1 else "hold"
    return (
        f"{name}: {len(keys)} of {len(tensors)} tensors {hold} NaN or infinity ({first_few(keys)}), which draws black: "
        "get the file again, or take an earlier checkpoint."
    )


def said_doubled(found: Contents, name: str) -> str | None:
    """The sentence about weights that a file holds twice, if there are any."""
    if not found.doubled:
        return None
    return (
        f"{name}: {first_few(found.doubled)} gives weights that the file holds under another name too, and otherwise; "
        "one of them has to go."
    )


def inputs(parts: Mapping[str, torch.Tensor]) -> int | None:
    """The width of what a linear module with these parts reads, as far as their shapes say."""
    for name in ("down", "hada_w1_b", "diff"):
        if name in parts and parts[name].ndim > 1:
            return parts[name].shape[1]
    factors = [parts.get(f"lokr_w{n}", parts.get(f"lokr_w{n}_b")) for n in (1, 2)]  # LoKr: a Kronecker product
    sides = [factor.shape[1] for factor in factors if factor is not None and factor.ndim > 1]
    return sides[0] * sides[1] if len(sides) == 2 else None


def said_kind(found: Contents) -> str:
    """The end of the sentence about a file with other kinds than LoRA in it: what it is, and who reads it."""
    article = "an" if found.kind[0] in "IO" else "a"
    what = found.kind if found.layers else f"{found.kind} file"
    return f"{article} {what} of SDXL, which is not read here yet: draw with it in ComfyUI."


def dora_over_inputs(
    found: Contents, keys: Iterable[str], metadata: Mapping[str, str], layout: Layout = SDXL
) -> list[str]:
    """The modules whose `dora_scale` is a norm per input: LyCORIS' and OneTrainer's [1, in], where peft has [out].

    In a square weight the shape decides, [1, in] or [out, 1]; a flat one does not say, and then the header does, or
    the file's other layers. peft's own magnitudes (`lora_magnitude_vector`) are per output, whatever their shape.
    """
    scaled = {place[0] for key in keys if key.endswith(".dora_scale") and (place := split_key(key, layout))}
    sides = {path: _side(parts) for path, parts in found.layers.items() if path in scaled}
    over = [path for path, side in sides.items() if side == "inputs"]
    unsaid = [path for path, side in sides.items() if side is None]
    return over + (unsaid if over or _says_inputs(metadata) else [])


def _side(parts: Parts) -> str | None:
    """inputs or outputs, by shape; None where that does not say."""
    if not {"down", "up"} <= parts.keys() or parts["down"].ndim < 2:
        return "outputs"
    scale, wide, high = parts["dora_scale"], parts["down"].shape[1], parts["up"].shape[0]
    if wide != high:
        return "inputs" if scale.numel() == wide else "outputs"
    if scale.ndim < 2:
        return None
    return "inputs" if scale.shape[0] == 1 < scale.numel() else "outputs"


def _says_inputs(metadata: Mapping[str, str]) -> bool:
    """Whether LyCORIS' or OneTrainer's settings in a header say that norms are taken over inputs."""
    for key, name in (("ss_network_args", "wd_on_output"), ("ot_config", "lora_decompose_output_axis")):
        try:
            settings = json.loads(metadata.get(key, "{}"))
            said = settings.get(name) if isinstance(settings, dict) else None
        except (ValueError, RecursionError):
            continue
        if said is not None:
            return str(said).lower() in ("false", "0", "no")
    return False
