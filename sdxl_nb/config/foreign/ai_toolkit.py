"""ai-toolkit's jobs (YAML or JSON): one process of training, its parts by dotted names.

As ostris/ai-toolkit has it (toolkit/config_modules.py, optimizer.py, scheduler.py) at 27a03a9. In: what such a file
says. Out: a Draft. Conventions of that program that are not ours: linear_alpha is 1 where nothing is said; epsilon of
every Adam is 1e-6; cosine schedules fall once over all steps, without a warm-up; Prodigy's rate is at least 1.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from ..messages import shown
from . import optimizers, samples
from .keys import Draft, Key, dropped, same, together

NAME = "ai-toolkit"
PROCESSES = ("sd_trainer", "ui_trainer", "diffusion_trainer")
FEW = "it is about speed and memory of that program alone"
PLACED = "where another program publishes is not taken over: give --push_to_hub and --hub_model_id"
DRAWN = "samples are drawn from the start on"
OTHER = "SDXL has no such part"
EXTRA = "no such term is part of the loss"
CONVOLUTIONS = ("conv1", "conv2", "downsamplers.0.conv", "upsamplers.0.conv")
PRECISIONS = {"float16": "fp16", "fp16": "fp16", "bfloat16": "bf16", "bf16": "bf16", "float32": "fp32", "fp32": "fp32"}
COMPUTED = {name: "no" if precision == "fp32" else precision for name, precision in PRECISIONS.items()}
MODELS = ("is_flux", "is_v3", "is_pixart", "is_pixart_sigma", "is_auraflow", "is_lumina2", "is_v2", "is_ssd", "is_vega")
LOSSES = {"mse": "l2", "mae": "l1", "l1": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}

AI_TOOLKIT: dict[str, Key] = {
    "name": same("output_name"),
    "training_folder": same("output_dir"),
    "device": dropped("the device is the one that there is"),
    "performance_log_every": dropped("times are in the log"),
    "trigger_word": same("trigger_word"),
    "sqlite_db_path": dropped(FEW),
    # the LoRA
    "network.type": together("", "lora", "another kind than LoRA is trained as LoRA"),
    "network.linear": together("rank", 4),
    "network.rank": together("rank"),
    "network.linear_alpha": together("lora_alpha"),
    "network.alpha": together("lora_alpha", 1.0),
    "network.conv": together("rank_pattern"),
    "network.conv_alpha": together("alpha_pattern"),
    "network.dropout": same("lora_dropout"),
    "network.pretrained_lora_path": same("lora_weights", why="rank, alpha and layers are taken from that file"),
    "network.transformer_only": dropped("text encoders learn with train_text_encoder", True),
    "network.network_kwargs": dropped("layers are given with --target_modules"),
    "network.lokr_full_rank": together("", why="no LoKr is trained"),
    "network.lokr_factor": together("", why="no LoKr is trained"),
    # saving
    "save.dtype": same("save_precision", "float16", lambda value: PRECISIONS.get(value, value)),
    "save.save_every": same("checkpointing_steps", 1000),
    "save.max_step_saves_to_keep": same("checkpoints_total_limit", 5),
    "save.save_format": dropped("files for diffusers and for ComfyUI are both written", "safetensors", "diffusers"),
    "save.push_to_hub": dropped(PLACED),
    "save.hf_repo_id": dropped(PLACED),
    "save.hf_private": dropped(PLACED),
    # the run
    "train.batch_size": same("train_batch_size", 1),
    "train.steps": same("max_train_steps", 1000),
    "train.gradient_accumulation_steps": same("gradient_accumulation_steps", 1),
    "train.gradient_accumulation": together("gradient_accumulation_steps", 1),
    "train.train_unet": together("unet_lr", True),
    "train.train_text_encoder": same("train_text_encoder", False),
    "train.gradient_checkpointing": same("gradient_checkpointing", True),
    "train.noise_scheduler": together("", "ddpm", "the base says what it predicts"),
    "train.timestep_type": dropped("it is for bases that predict the flow: give --timestep_distribution", "sigmoid"),
    "train.content_or_style": dropped("timesteps are drawn evenly: give --timestep_distribution", "balanced"),
    "train.min_denoising_steps": same("min_timestep", 0),
    "train.max_denoising_steps": same("max_timestep", 999, lambda value: int(value) + 1),
    "train.optimizer": together("optimizer", "adamw"),
    "train.optimizer_params": together("optimizer_args", why="taken by name from a fixed list, each optimizer's own"),
    "train.lr": together("learning_rate", 1e-6),
    "train.unet_lr": together("unet_lr"),
    "train.text_encoder_lr": together("text_encoder_lr"),
    "train.lr_scheduler": together("lr_scheduler", "constant"),
    "train.lr_scheduler_params": together("lr_min_ratio lr_warmup_steps"),
    "train.max_grad_norm": same("max_grad_norm", 1.0),
    "train.dtype": same("mixed_precision", "fp32", lambda value: COMPUTED.get(value, value)),
    "train.ema_config": together("use_ema ema_decay"),
    "train.snr_gamma": same("snr_gamma"),
    "train.min_snr_gamma": same("snr_gamma"),
    "train.noise_offset": same("noise_offset", 0.0),
    "train.loss_type": same("loss_type", "mse", lambda value: LOSSES.get(value, value)),
    "train.prompt_dropout_prob": same("proportion_empty_prompts", 0.0),
    "train.cache_text_embeddings": dropped("prompt embeddings are cached anyway", False, True),
    "train.unload_text_encoder": dropped("what is not needed is not loaded", False, True),
    "train.xformers": dropped("PyTorch's own attention is used"),
    "train.sdp": dropped("PyTorch's own attention is used", False, True),
    "train.attention_backend": dropped("PyTorch's own attention is used", "native"),
    "train.skip_first_sample": dropped("the base is drawn before the first step anyway"),
    "train.force_first_sample": dropped("the base is drawn before the first step anyway", False, True),
    "train.disable_sampling": together("sample_prompts", False),
    "train.linear_timesteps": dropped("timesteps are drawn evenly, and weigh alike"),
    "train.linear_timesteps2": dropped("timesteps are drawn evenly, and weigh alike"),
    "train.diff_output_preservation": dropped("give --with_prior_preservation"),
    "train.diff_output_preservation_multiplier": dropped("give --with_prior_preservation", 1.0),
    "train.diff_output_preservation_class": dropped("give --with_prior_preservation"),
    "train.blank_prompt_preservation": dropped("give --with_prior_preservation"),
    "train.blank_prompt_preservation_multiplier": dropped("give --with_prior_preservation", 1.0),
    "train.reg_weight": dropped("give --with_prior_preservation and --prior_loss_weight", 1.0),
    "train.switch_boundary_every": dropped(OTHER, 1),
    "train.bypass_guidance_embedding": dropped(OTHER),
    "train.do_differential_guidance": dropped(EXTRA),
    "train.differential_guidance_scale": dropped(EXTRA, 3.0, 3),
    "train.random_noise_shift": dropped("noise has no other shift"),
    "train.noise_multiplier": dropped("noise has its own size", 1.0),
    "train.latent_multiplier": dropped("latents have their own size", 1.0),
    # the base
    "model.name_or_path": same("pretrained_model_name_or_path"),
    "model.is_xl": together("", why="SDXL alone; all else is refused"),
    "model.arch": together("", why="sdxl alone; all else is refused"),
    "model.is_v_pred": together("prediction_type", False),
    "model.vae_path": same("pretrained_vae_model_name_or_path"),
    "model.lora_path": same("base_lora"),
    "model.quantize": together("base_precision", False),
    "model.qtype": together("base_precision", "qfloat8"),
    "model.quantize_te": dropped("text encoders are kept as the U-Net is, see --base_precision", False, True),
    "model.qtype_te": dropped("text encoders are kept as the U-Net is, see --base_precision", "qfloat8"),
    "model.dtype": dropped("the base is kept as it computes, see --base_precision", "float16", "bf16", "fp16"),
    "model.low_vram": dropped("the base is read tensor by tensor, straight to its device", False, True),
    "model.model_kwargs": dropped(OTHER),
    "model.layer_offloading": dropped("layers are not moved; give --gradient_checkpointing or --base_precision"),
    "model.refiner_name_or_path": dropped("the refiner is not trained"),
    "model.use_text_encoder_1": dropped("both text encoders are used", True),
    "model.use_text_encoder_2": dropped("both text encoders are used", True),
    "model.compile": same("torch_compile", False),
    "model.assistant_lora_path": dropped("give --base_lora"),
    # looking at it
    "sample.sampler": together("sample_prompts", "ddpm", "of each prompt its --ss, where there is one of that name"),
    "sample.sample_every": together("validation_steps", 100),
    "sample.sample_start_step": dropped(DRAWN, 0),
    "sample.width": together("sample_prompts", 512, "of each prompt its --w"),
    "sample.height": together("sample_prompts", 512, "of each prompt its --h"),
    "sample.prompts": together("sample_prompts", why="with their flags --n --w --h --d --l --s, --seed --cfg --steps"),
    "sample.samples": together("sample_prompts", why="each with all it says"),
    "sample.neg": together("sample_prompts", None, "of each prompt its --n"),
    "sample.seed": together("sample_prompts", 0, "of each prompt its --d"),
    "sample.walk_seed": together("sample_prompts", False, "each prompt has the next seed"),
    "sample.guidance_scale": together("sample_prompts", 7, "of each prompt its --l"),
    "sample.sample_steps": together("sample_prompts", 20, "of each prompt its --s"),
    "sample.num_frames": dropped(OTHER, 1),
    "sample.fps": dropped(OTHER, 16, 1, 24),
    "sample.guidance_rescale": dropped("guidance is not rescaled", 0.0),
    "sample.network_multiplier": dropped("the LoRA draws at its full strength", 1),
    "sample.format": dropped("pictures are PNG", "jpg", "png"),
    # logs
    "logging.log_every": dropped("every step is logged", 100, 1),
    "logging.use_wandb": together("report_to", False),
    "logging.use_ui_logger": dropped("the run folder has the log", False, True),
    "logging.verbose": dropped("there is one level"),
    "logging.project_name": dropped("the tracker is given the run folder's name", "ai-toolkit"),
    "logging.run_name": dropped("the tracker is given the run folder's name"),
    "datasets": together("train_data_dir", why="one folder; several are given in a data file, see docs/data-files.md"),
    # of the one folder
    "datasets.folder_path": same("train_data_dir"),
    "datasets.dataset_path": same("train_data_dir"),
    "datasets.caption_ext": dropped("texts of any usual suffix are read", ".txt", "txt"),
    "datasets.default_caption": dropped("give a data file with a caption, see docs/data-files.md"),
    "datasets.trigger_word": same("trigger_word"),
    "datasets.caption_dropout_rate": same("proportion_empty_prompts", 0.0),
    "datasets.token_dropout_rate": same("caption_tag_dropout_rate", 0.0),
    "datasets.shuffle_tokens": same("shuffle_caption", False),
    "datasets.keep_tokens": same("keep_tokens", 0),
    "datasets.resolution": together("resolution", 512, "of several the largest"),
    "datasets.buckets": same("aspect_ratio_buckets", True),
    "datasets.bucket_tolerance": same("bucket_reso_steps", 64),
    "datasets.square_crop": together("aspect_ratio_buckets", False),
    "datasets.random_crop": together("center_crop", False),
    "datasets.random_scale": dropped("pictures are not scaled at random"),
    "datasets.flip_x": same("random_flip", False),
    "datasets.flip_y": dropped("pictures are not turned upside down"),
    "datasets.num_repeats": dropped("give a data file with repeats, see docs/data-files.md", 1),
    "datasets.cache_latents": together("cache_latents", False),
    "datasets.cache_latents_to_disk": together("cache_latents", False),
    "datasets.cache_text_embeddings": dropped("prompt embeddings are cached anyway", False, True),
    "datasets.alpha_mask": same("masked_loss", False),
    "datasets.mask_path": same("masked_loss", None, bool, "masks are found beside the pictures or in masks/"),
    "datasets.mask_min_value": same("unmasked_weight", 0.0),
    "datasets.invert_mask": dropped("a mask is white where it is trained"),
    "datasets.is_reg": dropped("give --with_prior_preservation"),
    "datasets.network_weight": dropped("the LoRA is trained at its full strength", 1.0, 1),
    "datasets.loss_multiplier": dropped("give a data file with a loss_weight", 1.0),
    "datasets.num_frames": dropped(OTHER, 1),
    "datasets.shrink_video_to_frames": dropped(OTHER, True),
    "datasets.do_i2v": dropped(OTHER, True),
    "datasets.controls": dropped("there is no training on conditioning pictures"),
    "datasets.control_path": dropped("there is no training on conditioning pictures"),
}
PARTS = tuple(dict.fromkeys(key.partition(".")[0] for key in AI_TOOLKIT if "." in key))


def is_its_own(said: Mapping[str, Any]) -> bool:
    """Whether this is a job of that program."""
    inner = said.get("config")
    return isinstance(inner, Mapping) and isinstance(inner.get("process"), list) and bool(inner["process"])


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = ()) -> Draft:
    """The Draft of a job. Raises ConfigError."""
    draft = Draft(path.name, NAME, AI_TOOLKIT, _flat(said, path.name, given))
    _check_base(draft)
    draft.take()
    for part in (_network, _base, _pictures, samples.of_ai_toolkit):
        part(draft)
    _optimizer(draft, given)
    _schedule(draft, given)
    return draft.finish(given)


def _flat(said: Mapping[str, Any], file: str, given: Collection[str]) -> dict[str, Any]:
    """The job's one process, by dotted names."""
    job, process = said["config"], said["config"]["process"][0]
    if not isinstance(process, Mapping) or process.get("type") not in PROCESSES:
        kind = process.get("type") if isinstance(process, Mapping) else process
        raise ConfigError(f"{file} is a job of type {shown(kind)}: a job that trains is {', '.join(PROCESSES)}")
    flat = {"name": job.get("name")} | {key: value for key, value in process.items() if key != "type"}
    for part in PARTS:
        inner = flat.pop(part, None)
        if part == "datasets":
            inner = _one_folder(inner, file, given)
        flat |= {f"{part}.{key}": value for key, value in inner.items()} if isinstance(inner, Mapping) else {}
    return flat


def _one_folder(inner: Any, file: str, given: Collection[str]) -> Any:
    folders = inner if isinstance(inner, list) else [inner]
    if len(folders) > 1 and not {"train_data_dir", "dataset_name"} & set(given):
        raise ConfigError(
            f"{file} lists {len(folders)} folders of pictures: write a data file of them (docs/data-files.md), and "
            "give it as --train_data_dir beside --config"
        )
    return folders[0] if folders else {}


def _check_base(draft: Draft) -> None:
    kind = draft.text("model.arch") or next(
        (name for name in MODELS if draft.said.get(f"model.{name}")),
        "sdxl" if draft.switch("model.is_xl") else "Stable Diffusion 1.5",
    )
    if kind != "sdxl":
        raise ConfigError(f"{draft.file} is for {kind.removeprefix('is_')}: this package trains SDXL alone")


def _network(draft: Draft) -> None:
    kind = draft.text("network.type")
    if kind not in ("lora", "locon"):
        draft.differs(f"network.type {kind}", "a LoRA is trained")
    key = "network.rank" if "network.rank" in draft.said else "network.linear"
    draft.set("rank", draft.get(key), key)
    key = "network.linear_alpha" if "network.linear_alpha" in draft.said else "network.alpha"
    draft.set("lora_alpha", draft.get(key), key)
    draft.set("target_modules", "attention+ff", "network.type")
    if (conv := draft.whole("network.conv")) is not None:
        alpha = draft.number("network.conv_alpha")
        draft.set("target_modules", "all", "network.conv")
        draft.set("rank_pattern", dict.fromkeys(CONVOLUTIONS, conv), "network.conv")
        draft.set("alpha_pattern", dict.fromkeys(CONVOLUTIONS, conv if alpha is None else alpha), "network.conv_alpha")


def _base(draft: Draft) -> None:
    if draft.switch("model.is_v_pred"):
        draft.set("prediction_type", "v_prediction", "model.is_v_pred")
    if draft.switch("model.quantize"):
        kind = draft.text("model.qtype")
        draft.set("base_precision", "int8" if "int8" in kind or kind == "uint8" else "fp8", "model.quantize")
        if kind not in ("qfloat8", "float8", "qint8", "int8", "uint8"):
            draft.differs(f"model.qtype {kind}", "the base is kept in 8 bits")
    if draft.switch("logging.use_wandb"):
        draft.set("report_to", "wandb", "logging.use_wandb")
    ema = draft.get("train.ema_config")
    if isinstance(ema, Mapping) and ema.get("use_ema"):
        draft.set("use_ema", True, "train.ema_config")
        draft.set("ema_decay", ema.get("ema_decay", 0.999), "train.ema_config")
    if "train.gradient_accumulation" in draft.said:
        steps = "train.gradient_accumulation"
        draft.set("gradient_accumulation_steps", draft.get(steps), steps)


def _pictures(draft: Draft) -> None:
    sizes = draft.get("datasets.resolution")
    sizes = sizes if isinstance(sizes, list) else [sizes]
    if len(sizes) > 1:
        draft.differs("datasets.resolution", f"of several the largest is used, {max(map(str, sizes), key=len)}")
    draft.set("resolution", max(sizes, key=lambda size: float(size) if _is_number(size) else 0), "datasets.resolution")
    if draft.switch("datasets.square_crop"):
        draft.set("aspect_ratio_buckets", False, "datasets.square_crop")
    draft.set("center_crop", not draft.switch("datasets.random_crop"), "datasets.random_crop")
    kept = draft.switch("datasets.cache_latents") or draft.switch("datasets.cache_latents_to_disk")
    draft.set("cache_latents", kept, "datasets.cache_latents")
    if not draft.values.get("masked_loss"):
        draft.values.pop("unmasked_weight", None)
    else:
        draft.set("masked_loss", True, "datasets.alpha_mask")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdecimal())


def _optimizer(draft: Draft, given: Collection[str]) -> None:
    name, arguments = draft.text("train.optimizer"), draft.get("train.optimizer_params") or {}
    ours = optimizers.named(name)
    usual = {"eps": 1e-6} if ours in optimizers.ADAMS else {}
    if ours == "adafactor":
        usual = {"scale_parameter": False}
    found = {**usual, **(arguments if isinstance(arguments, Mapping) else {})}
    optimizers.read(draft, "train.optimizer", name, found, "train.optimizer_params", given)
    rate = draft.number("train.lr") or 0.0
    if ours == "prodigy" and rate < 0.1:
        draft.differs(f"train.lr {rate}", "Prodigy's is 1, as that program makes it too")
        rate = 1.0
    draft.set("learning_rate", rate, "train.lr")
    for key, ours_name in (("train.unet_lr", "unet_lr"), ("train.text_encoder_lr", "text_encoder_lr")):
        if key in draft.said and (ours_name == "unet_lr" or draft.switch("train.train_text_encoder")):
            draft.set(ours_name, draft.get(key), key)
    if not draft.switch("train.train_unet"):
        draft.set("unet_lr", 0.0, "train.train_unet")


def _schedule(draft: Draft, given: Collection[str]) -> None:
    name, said = draft.text("train.lr_scheduler"), draft.get("train.lr_scheduler_params") or {}
    said = dict(said) if isinstance(said, Mapping) else {}
    known = {"constant": "constant", "constant_with_warmup": "constant_with_warmup", "polynomial": "polynomial"}
    known |= {"cosine": "cosine", "cosine_with_restarts": "cosine"}
    if name not in known:
        return draft.no_schedule("train.lr_scheduler", name, given)
    if name == "cosine_with_restarts":
        draft.differs(
            "train.lr_scheduler cosine_with_restarts", "over all steps it falls once, there too: it is a cosine"
        )
    draft.set("lr_scheduler", known[name], "train.lr_scheduler")
    warm = said.pop("num_warmup_steps", 1000 if name == "constant_with_warmup" else 0)
    draft.set("lr_warmup_steps", warm, "train.lr_scheduler_params")
    least, rate = said.pop("eta_min", 0.0), draft.values["learning_rate"]
    if least and known[name] == "cosine":
        draft.set("lr_min_ratio", float(least) / rate if rate else 0.0, "train.lr_scheduler_params")
    for key in said:
        draft.drop(f"train.lr_scheduler_params {key}", f"lr_scheduler {name} has no such thing here")
