"""SimpleTuner's config.json (or TOML), with or without dashes before its names.

As bghira/SimpleTuner has it (its field registry, helpers/training/custom_schedule.py and optimizer_param.py) at
bc8e6ab. In: what such a file says. Out: a Draft. Conventions of that program that are not ours: lora_alpha is lora_rank
where nothing is said, lora_dropout 0.1; a polynomial ends at lr_end with power 0.8; cosine_with_restarts begins anew
every lr_warmup_steps and has no warm-up; gradients are clipped by value.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from ..messages import shown
from . import optimizers, samples
from .keys import Draft, Key, dropped, same, together

NAME = "SimpleTuner"
FEW = "it is about speed and memory of that program alone"
PLACED = "where another program publishes is not taken over: give --push_to_hub and --hub_model_id"
NAMED = "the tracker is given the run folder's name"
FOLDERS = "the data file says it of each folder"
DRAWN = "pictures are drawn with each checkpoint"
SIZE = "of each prompt its --w and --h, all of several; where nothing is said --resolution, and not 256"
NOT_BIASED = "give --timestep_distribution, --min_timestep and --max_timestep"
TRACKERS = ("tensorboard", "wandb", "comet_ml", "all", "none")
SCHEDULERS = ("constant", "constant_with_warmup", "linear", "polynomial", "cosine", "cosine_with_restarts")
EPSILON = ("adamw_bf16", "bnb-adamw8bit", "bnb-adamw8bit-paged", "optimi-adamw")  # whose epsilon is 1e-6

SIMPLETUNER: dict[str, Key] = {
    # what is trained
    "model_type": together("", "full", "lora alone; all else is refused"),
    "model_family": together("", None, "sdxl alone; all else is refused"),
    "model_flavour": dropped("the base is named by pretrained_model_name_or_path"),
    "controlnet": together("", False, "no ControlNet is trained"),
    "control": together("", False, "no control LoRA is trained"),
    "lora_type": together("", "standard", "a LoRA of lora_rank is trained"),
    "lycoris_config": together("", why="it is for another kind than LoRA"),
    "pretrained_model_name_or_path": same("pretrained_model_name_or_path"),
    "pretrained_vae_model_name_or_path": same("pretrained_vae_model_name_or_path", "madebyollin/sdxl-vae-fp16-fix"),
    "pretrained_unet_model_name_or_path": dropped("a base is one folder or file"),
    "revision": same("revision"),
    "variant": same("variant"),
    "prediction_type": same("prediction_type"),
    "vae_dtype": dropped("the VAE computes in what it can stand", "bf16", "fp32", "fp16"),
    "base_model_precision": together("base_precision", "no_change"),
    "base_model_default_dtype": dropped("the base is kept as it computes, see --base_precision", "bf16"),
    "lora_rank": same("rank", 16),
    "lora_alpha": same("lora_alpha"),
    "lora_dropout": same("lora_dropout", 0.1),
    "use_dora": same("use_dora", False),
    "lora_init_type": dropped("a LoRA begins with a random matrix and zeros", "default", "gaussian"),
    "lora_format": dropped("files for diffusers and for ComfyUI are both written", "diffusers", "comfyui"),
    "init_lora": same("lora_weights", why="rank, alpha and layers are taken from that file"),
    "train_text_encoder": same("train_text_encoder", False),
    "text_encoder_lr": together("text_encoder_lr"),
    # pictures
    "data_backend_config": same("train_data_dir", why="its folders are read as docs/data-files.md says"),
    "resolution": together("resolution", 1024),
    "resolution_type": together("resolution", "pixel_area"),
    "aspect_bucket_alignment": same("bucket_reso_steps", 64),
    "aspect_bucket_rounding": dropped("shapes follow the pictures", 2),
    "minimum_image_size": dropped("the audit names pictures that are too small, and none is left out", 0),
    "maximum_image_size": dropped("large pictures are made smaller before they are cropped"),
    "target_downsample_size": dropped("large pictures are made smaller before they are cropped"),
    "caption_dropout_probability": same("proportion_empty_prompts"),
    "caption_strategy": dropped(FOLDERS, "filename", "textfile"),
    "instance_prompt": dropped(FOLDERS),
    "prepend_instance_prompt": dropped(FOLDERS),
    "only_instance_prompt": dropped(FOLDERS),
    "tokenizer_max_length": dropped("captions are read in chunks: give --max_token_length", 77),
    "delete_unwanted_images": dropped("pictures are never deleted"),
    "delete_problematic_images": dropped("pictures are never deleted"),
    "skip_file_discovery": dropped(FEW),
    "preserve_data_backend_cache": dropped("a cache is known by what made it", False, True),
    "vae_cache_ondemand": dropped("latents are computed before the first step"),
    "vae_cache_scan_behaviour": dropped("a cache is known by what made it", "recreate"),
    "vae_batch_size": dropped(FEW, 4, 1),
    "cache_dir": same("cache_dir"),
    "cache_dir_vae": dropped("caches are shared by all runs: give --latents_cache_dir"),
    "cache_dir_text": dropped("caches are shared by all runs: give --latents_cache_dir", "cache"),
    "write_batch_size": dropped(FEW, 128),
    "read_batch_size": dropped(FEW, 25),
    "image_processing_batch_size": dropped(FEW, 32),
    "text_encoder_batch_size": dropped(FEW, 1),
    "max_workers": dropped(FEW, 32),
    "dataloader_prefetch": dropped(FEW),
    "dataloader_prefetch_qlen": dropped(FEW, 10),
    "metadata_update_interval": dropped(FEW, 3600),
    "allow_dataset_oversubscription": dropped("folders of any size are trained on", False, True),
    # the run
    "output_dir": same("output_dir", "simpletuner-results"),
    "seed": same("seed"),
    "train_batch_size": same("train_batch_size", 4),
    "num_train_epochs": together("num_train_epochs", 1),
    "max_train_steps": together("max_train_steps", None, "0 counts epochs"),
    "gradient_accumulation_steps": same("gradient_accumulation_steps", 1),
    "checkpoint_step_interval": same("checkpointing_steps", 500),
    "checkpointing_steps": same("checkpointing_steps"),
    "checkpoint_epoch_interval": dropped("checkpoints are counted in steps: give --checkpointing_steps"),
    "checkpoints_total_limit": same("checkpoints_total_limit", 5),
    "resume_from_checkpoint": dropped(
        "states of other programs are not resumed: give the LoRA with --lora_weights", "latest"
    ),
    "gradient_checkpointing": same("gradient_checkpointing", True),
    "gradient_checkpointing_interval": dropped("give --gradient_checkpointing_policy selective"),
    "mixed_precision": same("mixed_precision", "bf16"),
    "attention_mechanism": dropped("PyTorch's own attention is used", "diffusers"),
    "disable_tf32": together("allow_tf32", False),
    "enable_xformers_memory_efficient_attention": dropped("PyTorch's own attention is used"),
    "use_ema": same("use_ema", False),
    "ema_decay": together("ema_decay", 0.995, "its root by ema_update_interval, as every step counts"),
    "ema_update_interval": together("ema_decay", 1),
    "ema_device": dropped(FEW, "cpu", "accelerator"),
    "num_processes": dropped("several processes are launched with accelerate or torchrun", 1),
    "num_machines": dropped("several processes are launched with accelerate or torchrun", 1),
    "dynamo_backend": together("torch_compile", "no"),
    "i_know_what_i_am_doing": dropped("nothing is hidden behind it", False, True),
    "disable_benchmark": dropped("the base is drawn before the first step anyway", False, True),
    "set_grads_to_none": dropped(FEW, False, True),
    # optimizer and course of the learning rate
    "optimizer": together("optimizer", "adamw_bf16"),
    "optimizer_config": together("optimizer_args", why="taken by name from a fixed list, each optimizer's own"),
    "optimizer_beta1": together("adam_beta1"),
    "optimizer_beta2": together("adam_beta2"),
    "adam_beta1": together("adam_beta1"),
    "adam_beta2": together("adam_beta2"),
    "adam_weight_decay": together("adam_weight_decay"),
    "adam_epsilon": together("adam_epsilon"),
    "prodigy_steps": together("optimizer_args"),
    "learning_rate": same("learning_rate", 4e-7),
    "lr_scheduler": together("lr_scheduler", "sine"),
    "lr_warmup_steps": together("lr_warmup_steps", 0),
    "lr_end": together("lr_min_ratio", 4e-7, "with polynomial and the cosines"),
    "lr_num_cycles": together("lr_num_cycles", 1),
    "lr_power": together("lr_power", 0.8, "with polynomial"),
    "lr_scale": same("scale_lr", False),
    "lr_scale_sqrt": dropped("scale_lr multiplies, and takes no root"),
    "max_grad_norm": same("max_grad_norm", 2.0, why="it bounds the norm of the gradients"),
    "grad_clip_method": dropped("gradients are bounded by their norm", "value", "norm"),
    # the objective
    "snr_gamma": together("snr_gamma soft_snr_gamma"),
    "use_soft_min_snr": together("soft_snr_gamma", False),
    "loss_type": same("loss_type", "l2"),
    "huber_schedule": together("huber_schedule", "snr"),
    "huber_c": together("huber_c", 0.1),
    "rescale_betas_zero_snr": same("rescale_betas_zero_snr", False),
    "offset_noise": together("noise_offset", False),
    "noise_offset": together("noise_offset", 0.1, "with offset_noise"),
    "noise_offset_probability": together("noise_offset", 0.25, "an offset is always there"),
    "input_perturbation": same("input_perturbation", 0.0),
    "input_perturbation_steps": dropped("a perturbation has the same scale at every step", 0),
    "masked_loss_probability": together("unmasked_probability", 1.0),
    **dict.fromkeys(
        ("timestep_bias_strategy", "timestep_bias_begin", "timestep_bias_end", "timestep_bias_multiplier"),
        dropped(NOT_BIASED, None, 0, 1000, 1.0, "none"),
    ),
    "timestep_bias_portion": dropped(NOT_BIASED, 0.25),
    "training_scheduler_timestep_spacing": dropped("all timesteps are trained", "trailing"),
    "inference_scheduler_timestep_spacing": dropped("the base's own scheduler draws", "trailing"),
    # looking at it
    "validation_disable": together("sample_prompts", False),
    "validation_prompt": together("sample_prompts"),
    "validation_prompt_library": dropped("that program's own prompts are not here: give --sample_prompts"),
    "user_prompt_library": together("sample_prompts", why="where the file can be read"),
    "validation_step_interval": together("validation_steps", 100),
    "validation_steps": together("validation_steps", 100, "its name in older versions"),
    "validation_epoch_interval": dropped(DRAWN),
    "validation_resolution": together("sample_prompts", None, SIZE),
    "validation_guidance": together("sample_prompts", 7.5, "of each prompt its --l"),
    "validation_guidance_rescale": dropped("guidance is not rescaled", 0.0, "0.0"),
    "validation_num_inference_steps": together("sample_prompts", 30, "of each prompt its --s"),
    "validation_negative_prompt": together("sample_prompts", "blurry, cropped, ugly", "of each prompt its --n"),
    "validation_seed": together("sample_prompts", None, "of each prompt its --d; seed where nothing is said"),
    "num_validation_images": together("sample_prompts", 1, "of each prompt so many, with the next seeds"),
    "validation_noise_scheduler": together("sample_prompts", None, "of each prompt its --ss, but for perflow"),
    "validation_torch_compile": dropped("what draws is not compiled"),
    "validation_disable_unconditional": dropped("the base is drawn before the first step anyway"),
    "validation_on_startup": dropped("the base is drawn before the first step anyway", False, True),
    "validation_randomize": dropped("seeds are fixed, so that pictures can be compared"),
    "eval_steps_interval": dropped("give --heldout_steps"),
    "num_eval_images": dropped("all held-out pictures are measured", 4),
    "evaluation_type": dropped("pictures are not scored while training", "none"),
    # reports
    "report_to": together("report_to", "none"),
    "tracker_run_name": dropped(NAMED, "simpletuner-testing"),
    "tracker_project_name": dropped(NAMED, "simpletuner"),
    "logging_dir": dropped("logs lie in the run folder", "logs", "./logs"),
    "webhook_config": dropped("nothing is posted"),
    "push_to_hub": dropped(PLACED, False, "false"),
    "push_checkpoints_to_hub": dropped(PLACED, False, "false"),
    "hub_model_id": dropped(PLACED),
    "model_card_private": dropped(PLACED, True),
    "model_card_note": dropped("the model card is written from the run"),
    "model_card_safe_for_work": dropped("the model card is written from the run"),
}


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = ()) -> Draft:
    """The Draft of a configuration of SimpleTuner. Raises ConfigError."""
    draft = Draft(path.name, NAME, SIMPLETUNER, {name(key): value for key, value in said.items()})
    _check_kind(draft)
    draft.take()
    for part in (_base, _length, _objective):
        part(draft)
    samples.of_simpletuner(draft, path)
    _optimizer(draft, given)
    _schedule(draft, given)
    return draft.finish(given)


def knows(key: str) -> bool:
    """Whether a key, perhaps with the dashes of a flag, is one of its configuration."""
    return name(key) in SIMPLETUNER


def name(key: Any) -> str:
    """A name without the dashes of a flag."""
    return str(key).lstrip("-").replace("-", "_")


def _check_kind(draft: Draft) -> None:
    family, kind = draft.text("model_family"), draft.text("model_type")
    if family != "sdxl":
        raise ConfigError(f"model_family of {draft.file} is {shown(family)}: this package trains SDXL alone")
    if kind != "lora" or draft.switch("controlnet") or draft.switch("control"):
        what = "a ControlNet" if kind == "lora" else shown(kind)
        raise ConfigError(f"{draft.file} trains {what}: this package trains a LoRA alone")


def _base(draft: Draft) -> None:
    if draft.text("lora_type") != "standard":
        draft.differs(
            f"lora_type {draft.text('lora_type')}", "a LoRA of lora_rank is trained, and no lycoris_config read"
        )
    stored = draft.text("base_model_precision")
    if stored != "no_change":
        known = "int8" if "int8" in stored else "fp8" if "fp8" in stored else ""
        if known:
            draft.set("base_precision", known, "base_model_precision")
        else:
            draft.drop("base_model_precision", "a base is kept in 32, 16 or 8 bits: give --base_precision", stored)
    draft.set("target_modules", "attention", "lora_type")
    draft.set("allow_tf32", not draft.switch("disable_tf32"), "disable_tf32")
    if draft.text("dynamo_backend") != "no":
        draft.set("torch_compile", True, "dynamo_backend")
    tracker = draft.text("report_to")
    draft.set("report_to", tracker if tracker in TRACKERS else "none", "report_to")
    if tracker not in TRACKERS:
        draft.drop("report_to", f"there are {', '.join(TRACKERS)}", tracker)
    side, way = draft.number("resolution") or 1024.0, draft.text("resolution_type")
    if way == "area":
        side = round((side * 1e6) ** 0.5 / 8) * 8
    elif way == "pixel":
        draft.differs("resolution_type pixel", "resolution is the side of a square of the area, not the shorter side")
    draft.set("resolution", int(side) if side == int(side) else side, "resolution")
    if draft.switch("train_text_encoder") and draft.get("text_encoder_lr") is not None:
        draft.set("text_encoder_lr", draft.get("text_encoder_lr"), "text_encoder_lr")


def _length(draft: Draft) -> None:
    steps, epochs = draft.whole("max_train_steps") or 0, draft.whole("num_train_epochs") or 0
    if steps > 0:
        draft.set("max_train_steps", steps, "max_train_steps")
    else:
        draft.set("num_train_epochs", epochs, "num_train_epochs")
    if draft.switch("use_ema"):
        decay, interval = draft.number("ema_decay") or 0.995, max(1, draft.whole("ema_update_interval") or 1)
        draft.set("ema_decay", decay ** (1 / interval), "ema_decay")
        if interval > 1:
            draft.differs("ema_update_interval", f"the average is taken at every step, with {decay}^(1/{interval})")


def _objective(draft: Draft) -> None:
    if draft.number("snr_gamma"):
        ours = "soft_snr_gamma" if draft.switch("use_soft_min_snr") else "snr_gamma"
        draft.set(ours, draft.get("snr_gamma"), "snr_gamma")
    if draft.text("loss_type") in ("huber", "smooth_l1"):
        for key in ("huber_schedule", "huber_c"):
            draft.set(key, draft.get(key), key)
    if draft.switch("offset_noise"):
        draft.set("noise_offset", draft.get("noise_offset"), "noise_offset")
        draft.differs("noise_offset_probability", "an offset is always there")
    elif "noise_offset" in draft.said:
        draft.drop("noise_offset", "it is for offset_noise", draft.get("noise_offset"))


def _optimizer(draft: Draft, given: Collection[str]) -> None:
    spelled = draft.text("optimizer")
    config = draft.get("optimizer_config")
    items = config.split(",") if isinstance(config, str) else draft.items("optimizer_config")
    arguments = optimizers.pairs(draft, "optimizer_config", items)
    ours = optimizers.named(spelled)
    usual: dict[str, Any] = {"eps": 1e-6} if spelled in EPSILON else {}
    if spelled == "optimi-adamw":
        usual |= {"betas": (0.9, 0.99), "weight_decay": 0.0}
    for key, argument in (("adam_weight_decay", "weight_decay"), ("adam_epsilon", "eps")):
        if key in draft.said and ours in optimizers.ADAMS:
            usual[argument] = draft.number(key)
    betas = [draft.number(f"optimizer_{beta}") or draft.number(f"adam_{beta}") for beta in ("beta1", "beta2")]
    if all(beta is not None for beta in betas):
        usual["betas"] = betas
    if "prodigy_steps" in draft.said and ours == "prodigy_schedulefree":
        usual["prodigy_steps"] = draft.whole("prodigy_steps")
    optimizers.read(draft, "optimizer", spelled, {**usual, **arguments}, "optimizer_config", given)


def _schedule(draft: Draft, given: Collection[str]) -> None:
    """polynomial and the generic ones as they are; the cosines there swing with a period of lr_warmup_steps."""
    spelled = draft.text("lr_scheduler")
    if str(draft.values.get("optimizer", "")).endswith("_schedulefree"):
        draft.set("lr_scheduler", "constant", "lr_scheduler")
        return
    if spelled not in SCHEDULERS:
        return draft.no_schedule("lr_scheduler", spelled, given)
    warm, rate = draft.whole("lr_warmup_steps") or 0, float(draft.values.get("learning_rate") or 1)
    least = (draft.number("lr_end") or 0.0) / rate if rate else 0.0
    draft.set("lr_scheduler", spelled, "lr_scheduler")
    draft.set("lr_warmup_steps", 0 if spelled.startswith("cosine") else warm, "lr_warmup_steps")
    if spelled == "polynomial":
        draft.set("lr_power", draft.get("lr_power"), "lr_power")
    if spelled == "polynomial" or spelled.startswith("cosine"):
        draft.set("lr_min_ratio", min(1.0, least), "lr_end")
    if spelled == "cosine":
        draft.differs("lr_scheduler cosine", "the rate falls once over the run, without a warm-up, and does not swing")
    if spelled == "cosine_with_restarts":
        steps = draft.values.get("max_train_steps")
        cycles = max(1, round(int(steps) / warm)) if steps and warm else 1
        draft.set("lr_num_cycles", cycles, "lr_warmup_steps")
        draft.differs("lr_warmup_steps", f"it is the length of a cycle there, so that there are {cycles}")
