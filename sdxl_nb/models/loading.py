"""The frozen parts of SDXL, wherever they come from, and LoRA layers put on them.

In: a Source (see sources.py). Out: diffusers' and transformers' own classes, frozen, in the dtype asked for. Only
safetensors files are read; code from a repository is never run.
"""

import functools
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ..system.errors import ModelError
from ..system.importing import uncollected
from . import files as found_files
from .checkpoint_names import Place, place
from .inpainting import paint_everything
from .lock import ALONE
from .objective import base_objective
from .quiet import hushed as hushed
from .refusals.kinds import check_base, no_vocabulary
from .refusals.sentences import among, capital, lacking, reason
from .refusals.weights import check_weights
from .sources import (
    WEIGHTS,
    Source,
    checkpoint_configs,
    checkpoint_shapes,
    config_folder,
    find,
    locate,
    vae_subfolder,
)
from .stored import store_all
from .streaming import Change, Filling, Hollow, Weights
from .variants import only, taken

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionXLPipeline

    from .clip_text import ClipTextEncoder
    from .unet import SdxlUNet, UNet
    from .vae import VaeEncoder


def load(source: Source, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """One part of the base: unet, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2 or scheduler.

    Models come frozen and in eval mode. Raises ModelError when the part cannot be found or read.
    """
    _checked(source, part)
    if part == "vae":
        return load_vae(source, dtype)
    if part == "scheduler":
        return _guarded(lambda: base_objective.made(base_objective.of(source).scheduler), source, part)
    if part in TEXT and (encoder := _text_encoder(source, part, dtype)) is not None:
        return encoder
    read = _from_checkpoint if source.is_single_file else _from_folder
    return _guarded(lambda: read(source, part, dtype), source, part)


def load_vae(source: Source, dtype: torch.dtype) -> "AutoencoderKL":
    """The VAE named, or the base's own. One that is not known to be fp16-safe is loaded in fp32 whatever is asked.

    diffusers marks an unsafe VAE by `force_upcast`; SDXL's original is one, madebyollin/sdxl-vae-fp16-fix is not.
    Raises ModelError too for a VAE whose latents do not fit the base.
    """
    _checked(source, "vae")
    read = _another_vae if source.vae is not None else _from_checkpoint if source.is_single_file else _from_folder
    vae = _guarded(lambda: read(source, "vae", torch.float32), source, "vae")
    return vae if vae.config.force_upcast else _cast(vae, dtype)


def load_vae_encoder(source: Source, dtype: torch.dtype = torch.float32) -> "VaeEncoder | AutoencoderKL":
    """What of the VAE encodes, in the dtype that `load_vae` takes: that of vae.py, read without importing diffusers.

    The whole VAE of `load_vae` where vae.py does not cover it, or where it is under names of others.
    """
    from .vae import VaeEncoder, covers

    _checked(source, "vae")
    config = next((path for path in found_files.files(source, "vae") if path.suffix == ".json"), None)
    about = json.loads(config.read_text(encoding="utf-8")) if config else {}
    if not covers(about):
        return load_vae(source, dtype)
    wanted = torch.float32 if about.get("force_upcast", True) else dtype
    filling = to_fill(source, "vae", lambda: VaeEncoder(about), about, wanted)
    if filling is None:
        return load_vae(source, dtype)
    filling.fill()
    return cast(VaeEncoder, filling.model).requires_grad_(False).eval()


TILE = 512  # pixels a side, of which a quarter overlaps, as in diffusers


def in_tiles(vae: "AutoencoderKL") -> "AutoencoderKL":
    """The same VAE; what is larger than TILE is encoded and decoded in overlapping tiles, blended where they meet."""
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE
    vae.tile_latent_min_size = TILE // 2 ** (len(vae.config.block_out_channels) - 1)
    return vae


def scheduler_config(source: Source) -> Mapping[str, Any]:
    """The configuration of the base's noise schedule, complete; see base_objective.py."""
    return base_objective.of(source).scheduler


def load_unet(
    source: Source, dtype: torch.dtype = torch.float32, *, ours: bool = True, precision: str | None = None
) -> "UNet":
    """The U-Net for training: that of unet.py where it covers the base, else (or without `ours`) diffusers' own.

    With a `precision` its linear layers and convolutions store their weights so (stored.py). ModelError as in `load`.
    """
    unet, fill = open_unet(source, dtype, ours=ours, precision=precision)
    fill(None)
    return unet


def open_unet(
    source: Source, dtype: torch.dtype, *, ours: bool, precision: str | None = None, change: Change | None = None
) -> tuple["UNet", Callable[[torch.device | None], None]]:
    """The U-Net of `load_unet`, perhaps hollow, and what fills it, straight on a device; which is checked already.

    `change` makes other weights of those that are read.
    """
    from .unet import SdxlUNet, covers

    _checked(source, "unet")
    config = _config(source, "unet") if ours else None
    filling = None
    if config is not None and covers(config):
        filling = to_fill(source, "unet", lambda: SdxlUNet(config), config, dtype, precision, change)
    if filling is not None:
        return cast(SdxlUNet, filling.model).requires_grad_(False).eval(), filling.fill
    theirs = _changed(load(source, "unet", dtype), change)
    if ours and covers(theirs.config):
        theirs = _ours(theirs.config, theirs.state_dict(), source)
    store_all(theirs, precision)
    return theirs, lambda device: None


def load_text_encoder(
    source: Source,
    part: str,
    dtype: torch.dtype,
    precision: str | None = None,
    change: Change | None = None,
    whole: bool = True,
) -> Any:
    """text_encoder or text_encoder_2, with `precision` and `change` as in `open_unet`. ModelError as in `load`.

    One that need not be `whole`, as transformers has it, is that of clip_text.py where this covers it.
    """
    _checked(source, part)
    if not (whole or precision or change) and (lean := _lean_text_encoder(source, part, dtype)) is not None:
        return lean
    encoder = _text_encoder(source, part, dtype, precision, change) if precision or change else None
    if encoder is None:
        encoder = _changed(load(source, part, dtype), change)
        store_all(encoder, precision)
    return encoder


def _changed(model: Any, change: Change | None) -> Any:
    """A model that a library loaded, with other weights."""
    if change:
        for name, parameter in model.named_parameters():
            parameter.data = change(name, parameter.data).to(parameter.dtype)
    return model


def _text_encoder(
    source: Source, part: str, dtype: torch.dtype, precision: str | None = None, change: Change | None = None
) -> Any:
    """A text encoder read tensor by tensor; None where its files are not as this expects them."""
    config = next((path for path in found_files.files(source, part) if path.name == "config.json"), None)
    if config is None:
        return None
    with ALONE, hushed("transformers"):
        kind = _class(part)
        about = kind.config_class.from_pretrained(config.parent)
        filling = to_fill(source, part, lambda: kind(about), {}, dtype, precision, change)
    if filling is None:
        return None
    filling.fill()
    encoder = filling.model
    for module in encoder.modules():  # the one thing that files do not hold
        if getattr(module, "position_ids", None) is not None:
            module.position_ids = torch.arange(about.max_position_embeddings).expand((1, -1))
    return encoder.requires_grad_(False).eval()


def _lean_text_encoder(source: Source, part: str, dtype: torch.dtype) -> "ClipTextEncoder | None":
    """That of clip_text.py, read without importing transformers' models; None where that does not cover it."""
    from .clip_text import ClipTextEncoder, covers

    path = next((path for path in found_files.files(source, part) if path.name == "config.json"), None)
    about = json.loads(path.read_text(encoding="utf-8")) if path else {}
    if not covers(about):
        return None
    filling = to_fill(source, part, lambda: ClipTextEncoder(about, projects=part == TEXT[1]), {}, dtype)
    if filling is None:
        return None
    filling.fill()
    return cast(ClipTextEncoder, filling.model).requires_grad_(False).eval()


def to_fill(
    source: Source,
    part: str,
    make: Callable[[], Any],
    config: Mapping[str, Any],
    dtype: torch.dtype,
    precision: str | None = None,
    change: Change | None = None,
) -> Filling | None:
    """The model that `make` makes, hollow, with what fills it; None where the libraries must see what is wrong.

    That is where files are broken or lack tensors, or have them under names of other programs and versions.
    """
    from safetensors import SafetensorError

    try:
        weights = Weights(path for path in found_files.files(source, part) if path.suffix == ".safetensors")
        with ALONE, Hollow():
            model = make()
        if source.is_single_file and not (part == "vae" and source.vae is not None):
            return Filling(model, weights, lambda name: place(part, name, config), dtype, precision, change)
        return Filling(model, weights, lambda name: Place(_stored_name(name, weights)), dtype, precision, change)
    except (SafetensorError, OSError, KeyError, ModelError):
        return None


def _stored_name(name: str, weights: Weights) -> str:
    """A tensor's name in the files: transformers 5 leaves out a `text_model.` that older files have, and newer not."""
    others = (name, f"text_model.{name}", name.removeprefix("text_model."))
    return next((each for each in others if each in weights.files), name)


def _config(source: Source, part: str) -> Mapping[str, Any] | None:
    """A part's configuration: the base's own, or SDXL's for a checkpoint file."""
    return source.config(f"{part}/config.json")


def _ours(config: Mapping[str, Any], weights: dict[str, torch.Tensor], source: Source) -> "SdxlUNet":
    """Our U-Net around weights that are here already: no copy is made."""
    from .unet import SdxlUNet

    with ALONE, Hollow():
        unet = SdxlUNet(config)
    wrong = unet.load_state_dict(weights, strict=False, assign=True)
    _complete(unet, {"missing_keys": wrong.missing_keys}, f"the unet of {source.name}")
    return unet.requires_grad_(False).eval()


def load_pipeline(
    source: Source | str, dtype: torch.dtype = torch.float32, objective: base_objective.BaseObjective | None = None
) -> "StableDiffusionXLPipeline":
    """The whole base as diffusers' StableDiffusionXLPipeline, for making pictures; no watermark, no progress bar.

    It draws as `objective` says, by default as the base says of itself: its own kind of scheduler and empty prompt.
    """
    with hushed():
        from diffusers import StableDiffusionXLPipeline

    source = Source(source) if isinstance(source, str) else source
    objective = objective or base_objective.of(source)
    parts = {part: load(source, part, dtype) for part in CLASSES}
    parts["scheduler"] = base_objective.made(objective.scheduler)
    _cast(parts["vae"], dtype)  # the pipeline wants one dtype, and itself decodes in fp32 where the VAE needs that
    if objective.latents.mean:  # the pipeline knows statistics, and no shift_factor
        statistics = {"latents_mean": list(objective.latents.mean), "latents_std": list(objective.latents.std)}
        parts["vae"].register_to_config(scaling_factor=objective.latents.factor, **statistics)
    pipeline = StableDiffusionXLPipeline(
        **parts, force_zeros_for_empty_prompt=objective.zeros_for_empty, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    if objective.inpaints:
        paint_everything(pipeline, objective.latents)
    return pipeline


def _cast(model: Any, dtype: torch.dtype) -> Any:
    with hushed():  # diffusers notes that a VAE could keep some parts in fp32, and names none
        return model.to(dtype)


def _checked(source: Source, part: str) -> None:
    """Check a base on the hub once, and one on this machine each time: it may have changed."""
    (check_base if Path(source.location).exists() else _checked_once)(source)
    if part in WEIGHTS:
        check_weights(source, part)


_checked_once = functools.lru_cache(maxsize=8)(check_base)


def _from_folder(source: Source, part: str, dtype: torch.dtype) -> Any:
    """A part of a diffusers folder or repository."""
    kind, options = _class(part), source.options(part)
    if part not in WEIGHTS:
        return kind.from_pretrained(source.location, **options)
    options |= {"variant": taken(source, part), "use_safetensors": True, "output_loading_info": True}
    options["torch_dtype" if part in ("unet", "vae") else "dtype"] = dtype
    model, info = kind.from_pretrained(source.location, **options)
    return _complete(model, info, f"the {part} of {source.name}")


def _from_checkpoint(source: Source, part: str, dtype: torch.dtype) -> Any:
    """A part of one checkpoint file: its weights, with SDXL's configurations and tokenizers from the hub."""
    kind, configs = _class(part), str(checkpoint_configs(source.cache_dir))
    if part not in WEIGHTS:
        return kind.from_pretrained(configs, subfolder=part)
    if part in ("unet", "vae"):
        about = source.config("unet/config.json") or {}
        more = {"in_channels": about["in_channels"]} if part == "unet" else {}
        return kind.from_single_file(source.location, config=configs, subfolder=part, torch_dtype=dtype, **more)
    from diffusers import StableDiffusionXLPipeline

    others = {name: None for name in (*CLASSES, "scheduler") if name != part}  # not read at all
    options = {"config": configs, "torch_dtype": dtype, "add_watermarker": False}
    pipeline = StableDiffusionXLPipeline.from_single_file(source.location, **options, **others)
    return getattr(pipeline, part)


def _another_vae(source: Source, part: str, dtype: torch.dtype) -> "AutoencoderKL":
    """The VAE of another file, folder or repository, which may be a VAE or a whole model that has one in `vae/`."""
    from diffusers import AutoencoderKL

    name = source.vae or ""
    where = locate(name)
    if where.endswith(".safetensors"):
        checkpoint_shapes(where, name)
        # without config diffusers takes a lone VAE for that of Stable Diffusion 1, with its scaling factor
        options = {"config": str(config_folder(source)), "subfolder": "vae", "torch_dtype": dtype}
        return AutoencoderKL.from_single_file(where, **options)
    options = {"torch_dtype": dtype, "use_safetensors": True, "cache_dir": source.cache_dir}
    subfolder = vae_subfolder(source)
    stem = "/".join(filter(None, [subfolder, WEIGHTS["vae"]]))
    options["variant"] = only(lambda file: find(where, file, None, source.cache_dir), stem)
    vae, info = AutoencoderKL.from_pretrained(where, subfolder=subfolder or None, output_loading_info=True, **options)
    return _complete(vae, info, f"the VAE {name}")


def _complete(model: Any, info: dict[str, Any], what: str) -> Any:
    """The model, unless weights were missing: the libraries draw those at random and only log it."""
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(lacking(what, missing))
    return model


TEXT = ("text_encoder", "text_encoder_2")
CLASSES = {  # library and class of each part
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


def _class(part: str) -> Any:
    """The class of a part; only what is used is imported, for each costs a second or more."""
    library, name = CLASSES[part]
    with uncollected(), hushed(library):
        return getattr(importlib.import_module(library), name)


def _guarded(read: Callable[[], Any], source: Source, part: str) -> Any:
    """The part, frozen; whatever goes wrong becomes one ModelError with what to do."""
    other = part == "vae" and source.vae is not None
    library = CLASSES.get(part, ("diffusers", ""))[0]
    lean = library == "transformers" and not source.is_single_file  # diffusers is not needed then
    what = f"the VAE {source.vae}" if other else f"the {part} of {source.name}"
    try:
        with ALONE, hushed(*(["transformers"] if lean else [])):
            loaded = read()
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(reason(error, source, part, what, other)) from error
    except Exception as error:
        if among(error, "SafetensorError", "SingleFileComponentError"):
            raise ModelError(reason(error, source, part, what, other)) from error
        raise
    if part.startswith("tokenizer") and len(loaded) < 256:  # transformers makes one of 2 tokens without files
        raise ModelError(capital(no_vocabulary(what)))
    return loaded.requires_grad_(False).eval() if isinstance(loaded, torch.nn.Module) else loaded
