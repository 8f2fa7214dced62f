"""The frozen parts of SDXL, wherever they come from, and LoRA layers put on them.

In: the name of a base model (a hub id, a diffusers folder, one .safetensors checkpoint, or embedded:tiny-sdxl) and
perhaps of another VAE. Out: diffusers' and transformers' own classes, frozen, in the dtype asked for. Only
safetensors files are read; code from a repository is never run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import ModelError

EMBEDDED = {"embedded:tiny-sdxl": Path(__file__).parent / "tiny" / "base"}
SAFE_VAE = "madebyollin/sdxl-vae-fp16-fix"


@dataclass(frozen=True)
class Source:
    """Where a base model comes from: a folder or hub id with `revision` and `variant`, or one checkpoint file."""

    name: str
    vae: str | None = None
    revision: str | None = None
    variant: str | None = None
    cache_dir: str | None = None

    @classmethod
    def of(cls, config) -> "Source":
        """The source that a TrainConfig names."""
        return cls(
            config.pretrained_model_name_or_path,
            config.pretrained_vae_model_name_or_path,
            config.revision,
            config.variant,
            config.cache_dir,
        )

    @property
    def location(self) -> str:
        """What diffusers is given: an embedded name becomes its folder, `~` the home folder."""
        return locate(self.name)

    @property
    def is_single_file(self) -> bool:
        return self.location.endswith(".safetensors")

    def options(self, part: str) -> dict[str, Any]:
        """Keyword arguments of `from_pretrained` for a subfolder."""
        return {"subfolder": part, "revision": self.revision, "cache_dir": self.cache_dir}


def locate(name: str) -> str:
    """The folder of an embedded model, a path with the home folder put in, or the hub id as it is."""
    if name.startswith("embedded:"):
        if name not in EMBEDDED:
            raise ModelError(f"There is no embedded model {name}: the one there is, is {', '.join(EMBEDDED)}.")
        return str(EMBEDDED[name])
    return str(Path(name).expanduser()) if name.startswith("~") else name


def load(source: Source, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """One part of the base: unet, vae, text_encoder, text_encoder_2, tokenizer, tokenizer_2 or scheduler.

    Models come frozen and in eval mode. Raises ModelError when the part cannot be found or read.
    """
    if part == "vae":
        return load_vae(source, dtype)
    if source.is_single_file:
        return _frozen(getattr(load_pipeline(source, dtype), part))
    options = source.options(part)
    classes = _classes()
    if part in ("unet", "text_encoder", "text_encoder_2"):
        options |= {"variant": source.variant, "use_safetensors": True}
        options["torch_dtype" if part == "unet" else "dtype"] = dtype
    with_reason = f"the {part} of {source.name}"
    return _frozen(_guarded(lambda: classes[part].from_pretrained(source.location, **options), with_reason))


def load_vae(source: Source, dtype: torch.dtype) -> Any:
    """The VAE named, or the base's own. One that is not known to be fp16-safe is loaded in fp32 whatever is asked.

    diffusers marks an unsafe VAE by `force_upcast`; SDXL's original is one, madebyollin/sdxl-vae-fp16-fix is not.
    """
    from diffusers import AutoencoderKL

    def load_it() -> Any:
        if source.vae is not None:
            where = locate(source.vae)
            vae = AutoencoderKL.from_single_file(where) if where.endswith(".safetensors") else _vae_of(where, source)
        elif source.is_single_file:
            vae = load_pipeline(source, torch.float32).vae
        else:
            options = source.options("vae") | {"variant": source.variant, "use_safetensors": True}
            options["torch_dtype"] = torch.float32
            vae = AutoencoderKL.from_pretrained(source.location, **options)
        return _frozen(vae if vae.config.force_upcast or vae.dtype == dtype else vae.to(dtype))

    return _guarded(load_it, f"the VAE {source.vae}" if source.vae else f"the VAE of {source.name}")


def _vae_of(where: str, source: Source) -> Any:
    """A repository or folder that is a VAE, or a whole model that has one in `vae/`."""
    from diffusers import AutoencoderKL

    subfolder = "vae" if Path(where, "vae", "config.json").is_file() else None
    options = {"torch_dtype": torch.float32, "use_safetensors": True, "cache_dir": source.cache_dir}
    return AutoencoderKL.from_pretrained(where, subfolder=subfolder, **options)


def load_pipeline(source: Source | str, dtype: torch.dtype = torch.float32) -> Any:
    """The whole base as diffusers' StableDiffusionXLPipeline, for making pictures; no watermark, no progress bar."""
    from diffusers import StableDiffusionXLPipeline

    source = Source(source) if isinstance(source, str) else source
    if source.is_single_file:
        load_all = lambda: StableDiffusionXLPipeline.from_single_file(  # noqa: E731
            source.location, torch_dtype=dtype, cache_dir=source.cache_dir, add_watermarker=False
        )
        return _quiet(_guarded(load_all, f"the checkpoint {source.name}"))
    parts = {part: load(source, part, dtype) for part in _classes()}
    return _quiet(StableDiffusionXLPipeline(**parts, add_watermarker=False))


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _classes() -> dict[str, type]:
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    return {
        "tokenizer": CLIPTokenizer,
        "tokenizer_2": CLIPTokenizer,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "scheduler": EulerDiscreteScheduler,
    }


def _frozen(part: Any) -> Any:
    return part.requires_grad_(False).eval() if isinstance(part, torch.nn.Module) else part


def _guarded(load_it: Callable[[], Any], what: str) -> Any:
    """Run a loader; whatever goes wrong becomes one ModelError with what to do."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from safetensors import SafetensorError

    try:
        with hushed():
            return load_it()
    except GatedRepoError as error:
        raise ModelError(f"Access to {what} is gated: ask for it on its hub page, then set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"Cannot find {what} on the hub: check the name, or set HF_TOKEN if it is private.") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"Cannot find that revision of {what}: check --revision.") from error
    except HFValidationError as error:
        raise ModelError(f"Cannot find {what}: it is neither a folder here nor a hub id.") from error
    except SafetensorError as error:
        raise ModelError(f"Cannot read {what}: the file is truncated or not safetensors; download it again.") from error
    except (OSError, ValueError) as error:
        raise ModelError(_load_advice(error, what)) from error


def _load_advice(error: Exception, what: str) -> str:
    text = str(error)
    if "safetensors" in text and any(word in text for word in (".bin", "use_safetensors", "not find")):
        return f"Cannot load {what}: it has no safetensors weights (check --variant; pickled .bin files are not read)."
    if any(word in text for word in ("connect", "offline", "LocalEntryNotFound", "resolve", "Connection")):
        return f"Cannot reach the hub for {what}: check the network and HF_ENDPOINT, or give a local folder."
    return f"Cannot load {what}: {text.splitlines()[0] if text else type(error).__name__}"


class hushed:
    """Silence transformers' and diffusers' shard bars and notices while parts are loaded."""

    def __enter__(self):
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging

        self.kept = []
        for module in (diffusers_logging, transformers_logging):
            self.kept.append((module, module.get_verbosity(), module.is_progress_bar_enabled()))
            module.set_verbosity_error()
            module.disable_progress_bar()

    def __exit__(self, *exception):
        for module, verbosity, bar in self.kept:
            module.set_verbosity(verbosity)
            if bar:
                module.enable_progress_bar()


def add_lora(config, unet: Any, text_encoders: tuple[Any, ...] = ()) -> list[str]:
    """Put peft LoRA layers on the U-Net, and with `train_text_encoder` on the text encoders; weights in fp32.

    Returns the names of the models that got them. peft draws the first values from torch's global generator, which
    is seeded with `config.seed` here, so that the same config always starts from the same weights. Layers start as
    zero (B = 0), so the first picture is the base's own (arXiv 2106.09685).
    """
    from peft import LoraConfig, inject_adapter_in_model

    from .lora import target_modules, text_target_modules

    common = {
        "r": config.rank,
        "lora_alpha": config.alpha(),
        "lora_dropout": config.lora_dropout,
        "init_lora_weights": "gaussian",
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
    }
    torch.manual_seed(config.seed)
    models = {"unet": (unet, target_modules(config.target_modules, unet))}
    if config.train_text_encoder:
        for name, encoder in zip(("text_encoder", "text_encoder_2"), text_encoders, strict=True):
            models[name] = (encoder, text_target_modules(config.target_modules))
    for model, targets in models.values():
        inject_adapter_in_model(LoraConfig(target_modules=targets, **common), model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return list(models)
