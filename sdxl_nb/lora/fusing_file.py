"""A checkpoint file with a LoRA inside: the same names, header and marker tensors, and other weights.

In: one file in the sgm layout, a LoRA file, a strength. Out: a file like it, written tensor by tensor, so that never
more than one of them is in memory.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from ..config.header import Objective, objective_flags
from ..models.objective.markers import V_MARKER, ZERO_MARKER
from ..models.refusals.kinds import check_base
from ..models.sources import Source, opened
from ..system.errors import ModelError
from .base import RELATIVE_FIELDS, TEXT_FIELDS, UNET_FIELDS, Base
from .files.reader import read_lora
from .layers import AnyLayer, delta
from .names import TE1, TE2, UNET, Layout, canonical_name

PREFIXES = {  # of a file's parts
    "model.diffusion_model.": UNET,
    "conditioner.embedders.0.transformer.": TE1,
    "conditioner.embedders.1.model.": TE2,
}
OPEN_CLIP = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
JOINED = "attn.in_proj"  # open_clip's q, k and v in one tensor
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
STALE = ("modelspec.hash", "sshs_")  # of the header: what describes the old weights
SMALL = ("F8", "I8", "U8")  # how the dtypes that lose a LoRA begin


def fuse_file(
    source: Source, lora: str | os.PathLike[str], goal: Path, scale: float, dtype: torch.dtype | None
) -> Path:
    """Write the checkpoint `source` with `lora` added at this strength; ModelError, and no file, if it does not fit."""
    if not source.is_single_file:
        raise ModelError(f"{source.name} is no checkpoint file, so it becomes a folder: give one as the goal.")
    if goal.exists():
        raise ModelError(f"{goal} is there already; give a new file for the fused model.")
    check_base(source)
    base = base_of(source)
    weights = read_lora(lora, base)
    layers = {path: layer.scaled(scale) for path, layer in weights.layers.items()} if scale else {}
    places = where(source, layers, base.layout)
    header = _header(source, set(places), dtype, objective_flags(weights.metadata))
    goal.parent.mkdir(parents=True, exist_ok=True)
    with _whole(goal) as file, opened(source.location, source.name, "pt") as old:
        file.write(_packed(header))
        for name, about in header.items():
            if name != "__metadata__" and name in old.keys():  # noqa: SIM118  (it is no mapping)
                _write(file, old.get_tensor(name), places.get(name, {}), layers, about, name)
    return goal


def base_of(source: Source) -> Base:
    """The shapes of a checkpoint file's base, by the configurations that go with it."""
    unet = source.config("unet/config.json") or {}
    parts = {UNET: {name: unet[name] for name in (*UNET_FIELDS, *RELATIVE_FIELDS) if name in unet}}
    for part in (TE1, TE2):
        config = source.config(f"{part}/config.json") or {}
        parts[part] = {name: config[name] for name in TEXT_FIELDS}
    parts[UNET] = {n: v for n, v in parts[UNET].items() if n not in RELATIVE_FIELDS or v != RELATIVE_FIELDS[n]}
    return Base(json.dumps(parts, sort_keys=True))


def where(source: Source, layers: Mapping[str, AnyLayer], layout: Layout) -> dict[str, dict[str, int]]:
    """Of each tensor that changes the modules in it, and which third of it is theirs (-1: the whole).

    ModelError for a module that no tensor holds.
    """
    with opened(source.location, source.name, "pt") as file:
        found = {name: modules_in(name, layout) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    places = {name: {m: at for m, at in held.items() if m in layers} for name, held in found.items()}
    places = {name: held for name, held in places.items() if held}
    for lost in layers.keys() - {module for held in places.values() for module in held}:
        raise ModelError(f"{source.name} has no tensor for the LoRA's module {lost}: it was made for another base.")
    return places


def modules_in(name: str, layout: Layout) -> dict[str, int]:
    """The canonical paths of the modules whose weights a tensor of a checkpoint holds, and which third is each's."""
    prefix = next((each for each in PREFIXES if name.startswith(each)), None)
    if prefix is None:
        return {}
    component, inner = PREFIXES[prefix], name.removeprefix(prefix)
    if component == TE2 and inner in ("text_projection", "text_projection.weight"):
        return {f"{TE2}.text_projection": -1}
    joined = inner.endswith(f"{JOINED}_weight")
    if not joined and not inner.endswith(".weight"):
        return {}
    inner = inner.removesuffix("_weight" if joined else ".weight")
    if component == UNET:
        path = canonical_name(f"lora_unet_{inner.replace('.', '_')}", layout)
        return {path: -1} if path else {}
    if component == TE1:
        return {f"{TE1}.{inner}": -1}
    layer, _, tail = inner.removeprefix("transformer.resblocks.").partition(".")
    path = f"{TE2}.text_model.encoder.layers.{layer}"
    if joined:
        return {f"{path}.self_attn.{letter}_proj": third for third, letter in enumerate("qkv")}
    return {f"{path}.{OPEN_CLIP[tail]}": -1} if tail in OPEN_CLIP else {}


def changed(tensor: torch.Tensor, held: Mapping[str, int], layers: Mapping[str, AnyLayer], name: str) -> torch.Tensor:
    """A checkpoint's tensor in fp32 with the changes of its modules."""
    made = tensor.float().clone()
    turned = name.endswith("text_projection")  # open_clip multiplies by it from the other side
    for module, third in held.items():
        part = made.T if turned else made if third < 0 else made.chunk(3)[third]
        part += delta(layers[module], part).reshape(part.shape)
    return made


def _write(
    file: IO[bytes],
    tensor: torch.Tensor,
    held: Mapping[str, int],
    layers: Mapping[str, AnyLayer],
    about: Mapping[str, Any],
    name: str,
) -> None:
    made = changed(tensor, held, layers, name) if held else tensor
    wanted = next((dtype for dtype, word in DTYPES.items() if word == about["dtype"]), tensor.dtype)
    made = made.to(wanted).contiguous()
    if held and not torch.isfinite(made).all():
        raise ModelError(f"{name} is not finite in {about['dtype']} with the LoRA: fuse with --dtype float32.")
    file.write(made.flatten().view(torch.uint8).numpy().tobytes() if made.numel() else b"")


def _header(
    source: Source, moved: set[str], dtype: torch.dtype | None, flags: Objective | None
) -> dict[str, dict[str, Any]]:
    """The new file's header: the old one's, with other offsets where dtypes change and markers that the LoRA wants."""
    with open(source.location, "rb") as file:
        old: dict[str, dict[str, Any]] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = {key: value for key, value in old.pop("__metadata__", {}).items() if not key.startswith(STALE)}
    entries = dict(sorted(old.items(), key=lambda item: item[1]["data_offsets"]))
    if flags and flags.prediction_type:
        metadata["modelspec.prediction_type"] = {"v_prediction": "v"}.get(flags.prediction_type, flags.prediction_type)
        for name in (V_MARKER, ZERO_MARKER) if flags.prediction_type == "epsilon" else ():
            entries.pop(name, None)
        for name, wanted in ((V_MARKER, True), (ZERO_MARKER, flags.rescale_betas_zero_snr)):
            if flags.prediction_type == "v_prediction" and wanted:
                entries.setdefault(name, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    header: dict[str, dict[str, Any]] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, about in entries.items():
        word, size = about["dtype"], about["data_offsets"][1] - about["data_offsets"][0]
        if name in moved and dtype is None and word.startswith(SMALL):
            raise ModelError(f"{source.name} holds weights of 8 bits, which would lose the LoRA: add --dtype float16.")
        if dtype is not None and name.startswith(tuple(PREFIXES)) and (word in DTYPES.values() or word[0] == "F"):
            count = 1
            for side in about["shape"]:
                count *= side
            word, size = DTYPES[dtype], count * dtype.itemsize
        header[name] = {"dtype": word, "shape": about["shape"], "data_offsets": [end, end + size]}
        end += size
    return header


def _packed(header: Mapping[str, Any]) -> bytes:
    """A safetensors header whose data start at a multiple of 64 bytes."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def _whole(goal: Path) -> Iterator[IO[bytes]]:
    """A file that is complete or absent."""
    draft = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(goal)
    finally:
        draft.unlink(missing_ok=True)
