"""Whether the weights of a base are whole, and those that its configurations describe, told from the files' headers.

In: a Source and a part. Out: nothing, or ModelError with one sentence. The libraries draw a tensor that is missing at
random, take whole numbers for weights, and say other faults in sentences of their own when the pictures are encoded.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...system.errors import ModelError
from ..checkpoint_names import Place, place
from ..files import files, shards
from ..lock import ALONE
from ..sources import WEIGHTS, Source, locate, opened, read_json
from .sentences import capital, lacking, misfit, no_weights, quantised

Shape = tuple[int, ...]
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
QUANTISED = (".scale_weight", ".weight_scale", ".scale_input", ".comfy_quant", ".absmax", ".quant_map", "scaled_fp8")
OLDER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}  # a VAE's attention
CLIP = {  # what transformers takes for what a configuration leaves out
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
}


class Kept(NamedTuple):
    """A tensor in a file: its kind of number and its shape."""

    dtype: str
    shape: Shape


class Part(NamedTuple):
    """A part of a base: `what` sentences call it, whose it is, and whether one file holds it beside all others."""

    name: str
    what: str
    owner: str
    single: bool


def check_local(source: Source) -> None:
    """Check every part whose weights are on this machine; others when they are loaded."""
    for part in WEIGHTS:
        where = source.location if part != "vae" or source.vae is None else locate(source.vae)
        if Path(where).exists():
            check_weights(source, part)


def check_weights(source: Source, part: str) -> None:
    """Raise ModelError unless this part has every tensor that its configuration asks for, as floating point.

    Its files are found, and downloaded if need be. Looked at once as long as they do not change.
    """
    other = part == "vae" and source.vae is not None
    single = source.is_single_file and not other
    what = f"the VAE {source.vae}" if other else f"the {part} of {source.name}"
    found = files(source, part)
    _check_shards(what, found)
    weights = [path for path in found if path.suffix == ".safetensors"]
    config = next((path for path in found if path.name == "config.json"), None)
    if not other and not Path(source.location).exists() and not (weights and config):
        return  # the hub may be out of reach, which the loader says
    if not weights:
        raise ModelError(no_weights(source, what))
    if config is None:
        raise ModelError(capital(f"{what} has no config.json: download it again, or give a whole SDXL model."))
    about = source.config(f"{part}/config.json") if single else read_json(config, source.name)
    named = other and str(weights[0]) == locate(source.vae or "")  # a VAE in one file: names of many programs
    if named:
        header(str(weights[0]), source.vae or "")
    stamps = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in weights)
    owner = source.vae or "" if other else source.name
    _check(Part(part, what, owner, single), stamps, None if named else json.dumps(about, sort_keys=True))


def check_numbers(name: str, has: str, tensors: Mapping[str, Kept]) -> None:
    """Raise ModelError for codes in the place of weights: there are scales beside them, or they are whole numbers."""
    for key in tensors:
        if key.endswith(QUANTISED) or ".quant_state." in key:
            raise ModelError(quantised(name, f"{has} the tensor {key}"))
    for key, kept in tensors.items():
        if key.endswith("weight") and len(kept.shape) > 1 and kept.dtype not in FLOATS:
            raise ModelError(quantised(name, f"{has} {key} of {kept.dtype}"))


def header(path: str, name: str) -> dict[str, Kept]:
    """What a safetensors file holds, by name; ModelError when it is broken."""
    with opened(path, name) as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (it is no mapping)
        return {key: Kept(each.get_dtype(), tuple(each.get_shape())) for key, each in slices.items()}


def _check_shards(what: str, found: list[Path]) -> None:
    """An index may name shards that are not there."""
    there = {path.name for path in found}
    for index in (path for path in found if ".index" in path.suffixes):
        for shard in shards(index, what):
            if Path(shard).name not in there:
                raise ModelError(capital(f"{what} lacks {shard}, which {index.name} names: download it again."))


@functools.lru_cache(maxsize=64)
def _check(part: Part, stamps: tuple[tuple[str, int, int], ...], config: str | None) -> None:
    tensors: dict[str, Kept] = {}
    for path, _, _ in stamps:
        tensors |= header(path, capital(part.what))
    if not part.single:  # of one file it was asked before what it holds
        check_numbers(part.owner, f"its {part.name} has", tensors)
    if config is None:
        return
    try:
        expected = expected_shapes(part.name, config)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(capital(f"{part.what} cannot be as its config.json says: download it again.")) from error
    if expected:
        _check_shapes(part, tensors, expected, json.loads(config))


def _check_shapes(
    part: Part, tensors: Mapping[str, Kept], expected: Mapping[str, Shape], config: Mapping[str, Any]
) -> None:
    missing = []
    for name, wanted in expected.items():
        where = place(part.name, name, config) if part.single else Place(_stored_name(part.name, name, tensors))
        kept = tensors.get(where.key)
        if kept is None:
            missing.append(where.key)
        elif (shape := where.inner(kept.shape)) != wanted:
            raise ModelError(misfit(part.what, where.key, shape, wanted, part.single))
    if missing:
        raise ModelError(lacking(part.what, missing))


def _stored_name(part: str, name: str, tensors: Mapping[str, Kept]) -> str:
    """A tensor's name in a folder's files, which transformers and diffusers have changed over the years."""
    others = [name, f"text_model.{name}"] if part.startswith("text") else [name]
    others += [name.replace(new, old) for new, old in OLDER.items() if part == "vae" and new in name]
    return next((each for each in others if each in tensors), name)


@functools.lru_cache(maxsize=16)
def expected_shapes(part: str, config: str) -> Mapping[str, Shape] | None:
    """Name -> shape of every tensor that a part of this configuration (JSON) needs; None where that is not known here.

    Of the VAE its encoder: nothing else is needed to train.
    """
    about = json.loads(config)
    if part.startswith("text"):
        return _text_shapes(about.get("text_config") or about, projects=part == "text_encoder_2")
    from ..streaming import Hollow
    from ..unet import SdxlUNet
    from ..unet import covers as covers_unet
    from ..vae import VaeEncoder, covers

    if not (covers_unet(about) if part == "unet" else covers(about)):
        return None
    with ALONE, Hollow():
        model = SdxlUNet(about) if part == "unet" else VaeEncoder(about)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _text_shapes(about: Mapping[str, Any], projects: bool) -> dict[str, Shape]:
    """CLIP's text encoder (arXiv 2103.00020), as transformers names it in new files."""
    vocabulary, width, inner, projection, layers, tokens = (int(about.get(name, usual)) for name, usual in CLIP.items())
    shapes: dict[str, Shape] = {
        "embeddings.token_embedding.weight": (vocabulary, width),
        "embeddings.position_embedding.weight": (tokens, width),
    }
    for layer in (f"encoder.layers.{number}" for number in range(layers)):
        linear = {f"self_attn.{each}_proj": (width, width) for each in "qkv"}
        linear |= {"self_attn.out_proj": (width, width), "mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        shapes |= {f"{layer}.layer_norm{n}.{leaf}": (width,) for n in (1, 2) for leaf in ("weight", "bias")}
    shapes |= {f"final_layer_norm.{leaf}": (width,) for leaf in ("weight", "bias")}
    return shapes | ({"text_projection.weight": (projection, width)} if projects else {})
