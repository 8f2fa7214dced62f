"""Writing a LoRA: one set of weights under the names of every reader, checked before it is put in place.

In: `LoraWeights` and a header; out: `pytorch_lora_weights.safetensors` (diffusers, PEFT spelling) and
`<output_name>.safetensors` (kohya sgm names, for ComfyUI, A1111, Forge and sd-scripts) with the same weights.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...config.layout import LORA, lora_stem
from ...system.errors import ModelError
from ..base import Module
from ..kinds.factored import Factored, has_rank
from ..layers import AnyLayer, LoraWeights, fit, peft_fields
from ..names import COMPONENTS, UNET, Layout, diffusers_key, kohya_key
from .metadata import ADAPTER_KEY, BASE_KEY, PRECISION_KEY, data_hashes
from .reader import read_file
from .readers import key_table

Contents = tuple[dict[str, torch.Tensor], dict[str, str]]  # of a file: its tensors and its header
LOST = 0.05  # share of a layer's weights that rounding may take unsaid: fp16's own is 0.0005


def save_lora(
    weights: LoraWeights,
    folder: str | os.PathLike[str],
    output_name: str,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    kohya_dtype: torch.dtype | None = None,
) -> tuple[Path, Path]:
    """Write the diffusers and the kohya file, re-open both, check every key and tensor, then put them in place.

    The second in `kohya_dtype`, by default that of the first. Returns (diffusers path, kohya path). ModelError, and
    nothing written, if a module is not the base model's or has no kohya name, if a weight is not finite in the dtype,
    or if what was written does not read back equal.
    """
    output_name = lora_stem(output_name)
    if not output_name or Path(output_name).name != output_name or f"{output_name}.safetensors" == LORA:
        raise ModelError(f"{output_name!r} cannot name the kohya file; use a plain file name such as 'my_style'.")
    _refuse_unknown(weights)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    diffusers, kohya = folder / LORA, folder / f"{output_name}.safetensors"
    other = kohya_dtype or dtype
    files = {
        diffusers: _contents(weights, "diffusers", metadata, dtype),
        kohya: _contents(weights, "kohya", metadata, other),
    }
    _write_checked(files, weights, {diffusers: dtype, kohya: other})
    return diffusers, kohya


def fits(weights: LoraWeights, dtype: torch.dtype) -> bool:
    """Whether all weights are finite in this dtype."""
    most = torch.finfo(dtype).max
    parts = (part for layer in weights.layers.values() for part in layer.parts.values())
    return all(bool((part.abs() <= most).all()) for part in parts)


def save_one(
    weights: LoraWeights,
    path: str | os.PathLike[str],
    naming: str = "kohya",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write one file under diffusers or kohya names, checked as `save_lora` does."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path.name} must end in .safetensors.")
    _refuse_unknown(weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_checked({path: _contents(weights, naming, metadata, dtype)}, weights, {path: dtype})
    return path


def check_names(weights: LoraWeights) -> None:
    """Raise ModelError now for what writing these layers would raise it for later: a module without a known name."""
    _refuse_unknown(weights)
    for naming in ("diffusers", "kohya"):
        _check_keys(_contents(weights, naming, None, torch.float32)[0], f"The LoRA's {naming} file", weights)


def _contents(weights: LoraWeights, naming: str, metadata: Mapping[str, str] | None, dtype: torch.dtype) -> Contents:
    precision = str(dtype).removeprefix("torch.")
    header = {**(metadata or {}), **_network_header(weights), PRECISION_KEY: precision}
    if naming == "diffusers":
        adapter = _adapter_header(weights) if weights.algo == "lora" else {"format": "pt"}
        return diffusers_tensors(weights, dtype), header | adapter
    return kohya_tensors(weights, dtype), header


def _refuse_unknown(weights: LoraWeights) -> None:
    for path in unknown_modules(weights):
        if path in weights.base.inventory:
            fit(weights.layers[path], weights.base.inventory[path], path)
        raise ModelError(f"The LoRA's module {path} is not one of the base model's; nothing was written.")


def unknown_modules(weights: LoraWeights, inventory: Mapping[str, Module] | None = None) -> list[str]:
    """Canonical paths that the base model's inventory does not have, or has with other widths."""
    inventory = weights.base.inventory if inventory is None else inventory
    return [
        path for path, layer in weights.layers.items() if path not in inventory or not _fits(layer, inventory[path])
    ]


def _fits(layer: AnyLayer, module: Module) -> bool:
    try:
        fit(layer, module, "")
    except ModelError:
        return False
    return True


def diffusers_tensors(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors under diffusers' names; alpha travels in the header, as diffusers reads it from nowhere else.

    LoHa and LoKr, which its `load_lora_weights` does not read, have their alpha among the tensors.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path, layer in weights.layers.items():
        if isinstance(layer, Factored):
            tensors |= {diffusers_key(path, part): _cast(each, dtype, path) for part, each in layer.parts.items()}
            tensors[diffusers_key(path, "alpha")] = torch.tensor(layer.alpha, dtype=torch.float32)
            continue
        tensors[diffusers_key(path, "down")] = _cast(layer.down, dtype, path)
        tensors[diffusers_key(path, "up")] = _cast(layer.up, dtype, path)
        if layer.dora_scale is not None:
            shape = (1, -1, 1, 1) if layer.kind == "conv" else (-1,)  # peft's shapes
            tensors[diffusers_key(path, "dora_scale")] = _cast(layer.dora_scale.view(shape), dtype, path)
    return tensors


def kohya_tensors(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Tensors under kohya's sgm names, alpha always among them (fp32, so that any alpha survives exactly)."""
    tensors, layout = {}, weights.base.layout
    for path, layer in weights.layers.items():
        for part, tensor in layer.parts.items():
            if part == "dora_scale":  # per output row, as LyCORIS' wd_on_out writes it
                tensor = tensor.view(-1, *(1,) * (layer.parts["down"].ndim - 1))
            tensors[_kohya(path, part, layout)] = _cast(tensor, dtype, path)
        tensors[_kohya(path, "alpha", layout)] = torch.tensor(layer.alpha, dtype=torch.float32)
    return tensors


def _kohya(path: str, part: str, layout: Layout) -> str:
    key = kohya_key(path, part, layout)
    if key is None:
        raise ModelError(f"The LoRA's module {path} has no name that ComfyUI or A1111 knows; leave it out.")
    return key


def _cast(tensor: torch.Tensor, dtype: torch.dtype, path: str) -> torch.Tensor:
    tensor = tensor.to(dtype).contiguous()
    if not torch.isfinite(tensor).all():
        raise ModelError(
            f"The LoRA's weights of {path} are not finite as {dtype}; write them as float32, or train at a lower rate."
        )
    return tensor


def said_lost(weights: LoraWeights, dtype: torch.dtype, name: str) -> str | None:
    """The sentence about layers whose weights are too small for `dtype`, which has rounded them away, if any are."""
    lost = {}
    for path, layer in weights.layers.items():
        parts = [part for part in layer.parts.values() if part.any()]
        lost[path] = max((float((part.to(dtype).float() - part).norm() / part.norm()) for part in parts), default=0.0)
    many = sum(share > LOST for share in lost.values())
    if not many:
        return None
    path, share = max(lost.items(), key=lambda item: item[1])
    short = str(dtype).removeprefix("torch.")
    return (
        f"{name}: the weights of {many} of {len(lost)} layers are too small for {short}, which rounds away up to "
        f"{share:.0%} of them (most in {path}): write float32 or bfloat16."
    )


def _adapter_header(weights: LoraWeights) -> dict[str, str]:
    """What `load_lora_weights` builds its LoraConfig from; without it alpha would be taken for the rank."""
    fields = {"format": "pt"}
    adapters: dict[str, Any] = {}
    for component in COMPONENTS:
        layers = weights.component(component)
        if component != UNET:  # the end of the name, which is the same in either layout of CLIPTextModel
            layers = {path.removeprefix("text_model."): layer for path, layer in layers.items()}
        if layers:
            config = peft_fields(layers, anchor="^" if component == UNET else "")
            adapters |= {f"{component}.{name}": value for name, value in config.items()}
    return fields | {ADAPTER_KEY: json.dumps(adapters, indent=2, sort_keys=True)}


def _network_header(weights: LoraWeights) -> dict[str, str]:
    """The minimum that AUTOMATIC1111, Forge and sd-scripts ask for, and the base's shapes for our own reader."""
    fields = peft_fields({path: layer for path, layer in weights.layers.items() if has_rank(layer)} or weights.layers)
    lycoris = weights.algo != "lora"
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "lycoris.kohya" if lycoris else "networks.lora",
        "ss_network_dim": str(fields["r"]),
        "ss_network_alpha": str(fields["lora_alpha"]),
        "ss_network_args": json.dumps({"algo": weights.algo}) if lycoris else "{}",
        BASE_KEY: weights.base.description,
    }


def _write_checked(files: Mapping[Path, Contents], weights: LoraWeights, dtypes: Mapping[Path, torch.dtype]) -> None:
    """Write beside the goal, fsync, re-open and compare; only when all are right, rename."""
    from safetensors.torch import save

    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, (tensors, header) in files.items():
            blob = save(tensors, {k: v for k, v in header.items() if k.startswith("ss_")})  # what sd-scripts hashes
            _write_synced(temporary[path], *aligned(blob, {**header, **data_hashes(blob)}))
            _check_written(temporary[path], path.name, weights, dtypes[path])
            _check_keys(tensors, path.name, weights)
        for path in files:
            os.replace(temporary[path], path)
        _sync_folder(path.parent)
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


def _check_keys(keys: Iterable[str], name: str, weights: LoraWeights) -> None:
    """ModelError for a key that the base, or a reader that the file is meant for, does not know."""
    table = key_table(keys, weights.base, weights.base.inventory)
    for row in table.rows:
        for key in set(row.unknown) & set(table.unknown) if row.meant else ():
            raise ModelError(f"{name}: {row.reader} does not know the key {key}; leave its module out of the LoRA.")


def aligned(blob: bytes, metadata: Mapping[str, str]) -> tuple[bytes, memoryview]:
    """A safetensors file with another header, filled up so that its data starts at a multiple of 64 bytes; its data.

    The data is not copied: a LoRA of rank 16 on SDXL takes 93 MB each time, at the end of a run and at its peak.
    diffusers computes on the mapped file itself, and products of memory that is not aligned to vector registers differ
    in the last bit from those of the trained model.
    """
    length = int.from_bytes(blob[:8], "little")
    header = {**json.loads(blob[8 : 8 + length]), "__metadata__": dict(metadata)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text, memoryview(blob)[8 + length :]


def _write_synced(path: Path, *parts: bytes | memoryview) -> None:
    with open(path, "wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a rename is durable only once its folder is
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_written(path: Path, name: str, weights: LoraWeights, dtype: torch.dtype) -> None:
    """ModelError if the file, read as a stranger's would be, does not hold exactly these weights."""
    found = read_file(path, name, None).layers
    for lost in weights.layers.keys() ^ found.keys():
        raise ModelError(f"The written file {name} does not read back: {lost} is missing or unknown.")
    for module, layer in weights.layers.items():
        again, ours = found[module], layer.parts
        same = again.parts.keys() == ours.keys() and all(
            torch.equal(ours[part].to(dtype).float(), theirs) for part, theirs in again.parts.items()
        )
        if not (same and abs(layer.alpha - again.alpha) <= 1e-6 * abs(layer.alpha)):
            raise ModelError(f"The written file {name} does not read back: {module} differs from the trained layer.")
