"""Every setting of kohya's sdxl_train_network.py, and of kohya_ss's GUI where it has another name.

As kohya-ss/sd-scripts has them (library/train_util.py, library/custom_train_functions.py, train_network.py) at
48d368f, and bmaltais/kohya_ss (kohya_gui/lora_gui.py) at 45088f0. Data alone: kohya.py reads with it.
"""

from typing import Any

from .keys import Key, dropped, same, together

FEW = "it is about speed and memory of that program alone"
PLACED = "where another program publishes is not taken over: give --push_to_hub and --hub_model_id"
STATE = "checkpoints hold the whole state anyway"
BY_STEPS = "checkpoints are counted in steps: give --checkpointing_steps"
LIMITED = "how many are kept is a number of checkpoints: give --checkpoints_total_limit"
HEADER = "the file's header and the model card are written from the run"
DEEPSPEED = "a run has no DeepSpeed, and needs none for a LoRA"
SHAPES = "shapes follow resolution, with sides of at most 4 to 1"
AUGMENTED = "pictures are mirrored and cropped, and not changed otherwise"
NOT_GROWING = "all tags are there from the first step"
FP32 = "LoRA weights and their gradients are fp32, with any --mixed_precision"
ALWAYS = "it is so anyway"
TRACKERS = "the tracker is given the run folder's name"
RESUMED = "states of other programs are not resumed: give the LoRA with --lora_weights"
ATTENTION = "PyTorch's own attention is used; --enable_xformers_memory_efficient_attention asks for xformers"
RESIZED = {"linear": "bilinear", "cubic": "bicubic", "area": "box"}  # their names for what Pillow calls otherwise


def whole_text(value: Any) -> str:
    """A value as text."""
    return str(value)


KOHYA: dict[str, Key] = {
    # the base
    "pretrained_model_name_or_path": same("pretrained_model_name_or_path"),
    "vae": same("pretrained_vae_model_name_or_path"),
    "v2": together("", why="a Stable Diffusion 2 base cannot be trained here"),
    "v_parameterization": together("prediction_type", False),
    "tokenizer_cache_dir": dropped("the tokenizers come with the base, or with this package"),
    "disable_mmap_load_safetensors": dropped(FEW),
    # optimizer and course of the learning rate
    "optimizer_type": together("optimizer", "AdamW"),
    "use_8bit_adam": together("optimizer"),
    "use_lion_optimizer": together("optimizer"),
    "learning_rate": same("learning_rate", 2.0e-6),
    "max_grad_norm": same("max_grad_norm", 1.0),
    "optimizer_args": together("optimizer_args", why="taken by name from a fixed list, each optimizer's own"),
    "lr_scheduler_type": together("", why="a class of another library is not imported: choose an lr_scheduler"),
    "lr_scheduler_args": together("", why="they are for lr_scheduler_type"),
    "lr_scheduler": together("lr_scheduler", "constant"),
    "lr_warmup_steps": together("lr_warmup_steps lr_warmup_ratio", 0, "a number below 1 is a share of the run"),
    "lr_decay_steps": together("lr_decay_ratio", 0, "with warmup_stable_decay, as a share of the run"),
    "lr_scheduler_num_cycles": together("lr_num_cycles", 1, "with cosine_with_restarts"),
    "lr_scheduler_power": together("lr_power", 1, "with polynomial"),
    "lr_scheduler_timescale": dropped("it is for lr_scheduler inverse_sqrt, which there is not"),
    "lr_scheduler_min_lr_ratio": together("lr_min_ratio", None, "with cosine_with_min_lr and warmup_stable_decay"),
    "fused_backward_pass": dropped(FEW),
    # where results go
    "output_dir": same("output_dir"),
    "output_name": same("output_name"),
    "huggingface_repo_id": dropped(PLACED),
    "huggingface_repo_type": dropped(PLACED),
    "huggingface_path_in_repo": dropped(PLACED),
    "huggingface_token": dropped("a token is taken from the environment alone: set HF_TOKEN"),
    "huggingface_repo_visibility": dropped(PLACED),
    "save_state_to_huggingface": dropped(PLACED),
    "resume_from_huggingface": dropped(RESUMED),
    "async_upload": dropped(PLACED),
    "save_precision": same("save_precision", how=lambda value: "fp32" if value == "float" else value),
    "save_every_n_epochs": dropped(BY_STEPS),
    "save_every_n_steps": same("checkpointing_steps"),
    "save_n_epoch_ratio": dropped(BY_STEPS),
    "save_last_n_epochs": dropped(LIMITED),
    "save_last_n_epochs_state": dropped(LIMITED),
    "save_last_n_steps": dropped(LIMITED),
    "save_last_n_steps_state": dropped(LIMITED),
    "save_state": dropped(STATE),
    "save_state_on_train_end": dropped(STATE),
    "save_model_as": dropped("LoRA files are .safetensors", "safetensors"),
    "resume": dropped(RESUMED),
    "no_metadata": dropped(HEADER),
    "training_comment": dropped(HEADER),
    **{
        f"metadata_{name}": dropped(HEADER)
        for name in (
            *("title", "author", "description", "license", "tags", "usage_hint", "thumbnail", "merged_from"),
            *("preprocessor", "is_negative_embedding"),
        )
    },
    "metadata_trigger_phrase": dropped("--trigger_word notes one, and puts it before captions that lack it"),
    # the run
    "train_batch_size": same("train_batch_size", 1),
    "max_token_length": same("max_token_length", 75),
    "max_train_steps": together("max_train_steps", 1600, "max_train_epochs counts before it"),
    "max_train_epochs": together("num_train_epochs"),
    "seed": same("seed"),
    "gradient_accumulation_steps": same("gradient_accumulation_steps", 1),
    "initial_epoch": dropped(RESUMED),
    "initial_step": dropped(RESUMED),
    "skip_until_initial_step": dropped(RESUMED),
    "config_file": dropped("a file reads no other one"),
    "output_config": dropped("save writes a configuration"),
    # memory and speed
    "mem_eff_attn": dropped(ATTENTION),
    "xformers": dropped(ATTENTION),
    "sdpa": dropped(ALWAYS, None, True),
    "torch_compile": same("torch_compile", False),
    "dynamo_backend": dropped("torch_compile uses inductor", "inductor", "no", "NO"),
    "max_data_loader_n_workers": dropped("no processes load pictures", 8, 0, "0"),
    "persistent_data_loader_workers": dropped("no processes load pictures"),
    "gradient_checkpointing": same("gradient_checkpointing", False),
    "cpu_offload_checkpointing": dropped("activations are computed again, and not kept in memory of the CPU"),
    "mixed_precision": same("mixed_precision", "no"),
    "full_fp16": dropped(FP32),
    "full_bf16": dropped(FP32),
    "fp8_base": together("base_precision", False),
    "fp8_base_unet": together("base_precision", False, "text encoders are kept in fp8 too"),
    "no_half_vae": dropped("the VAE computes in what it can stand anyway", None, True),
    "ddp_timeout": dropped("processes wait as long as PyTorch says"),
    "ddp_gradient_as_bucket_view": dropped(FEW),
    "ddp_static_graph": dropped(FEW),
    "lowram": dropped("the base is read tensor by tensor, straight to its device"),
    "highvram": dropped(FEW),
    "deepspeed": dropped(DEEPSPEED),
    "zero_stage": dropped(DEEPSPEED, 2),
    **dict.fromkeys(
        (
            *("offload_optimizer_device", "offload_optimizer_nvme_path", "offload_param_device"),
            *("offload_param_nvme_path", "zero3_init_flag", "zero3_save_16bit_model"),
            "fp16_master_weights_and_gradients",
        ),
        dropped(DEEPSPEED),
    ),
    # logs
    "logging_dir": dropped("logs lie in the run folder"),
    "log_with": same("report_to"),
    "log_prefix": dropped(TRACKERS),
    "log_tracker_name": dropped(TRACKERS),
    "wandb_run_name": dropped(TRACKERS),
    "log_tracker_config": dropped("trackers are set by their own variables of the environment"),
    "wandb_api_key": dropped("a key is taken from the environment alone: set WANDB_API_KEY"),
    "log_config": dropped(ALWAYS, None, True),
    "console_log_level": dropped("there is one level"),
    "console_log_file": dropped("what is printed is redirected by the shell"),
    "console_log_simple": dropped("what is printed is plain"),
    # the objective
    "noise_offset": same("noise_offset"),
    "noise_offset_random_strength": dropped("an offset has the same scale at every step"),
    "multires_noise_iterations": together("multires_noise_iterations"),
    "multires_noise_discount": together("multires_noise_discount", 0.3, "with multires_noise_iterations"),
    "ip_noise_gamma": same("input_perturbation"),
    "ip_noise_gamma_random_strength": dropped("a perturbation has the same scale at every step"),
    "adaptive_noise_scale": same("adaptive_noise_scale"),
    "zero_terminal_snr": same("rescale_betas_zero_snr", False),
    "min_timestep": same("min_timestep"),
    "max_timestep": same("max_timestep"),
    "loss_type": same("loss_type", "l2"),
    "huber_schedule": together("huber_schedule", "snr", "with loss_type huber and smooth_l1"),
    "huber_c": together("huber_c", 0.1, "with loss_type huber and smooth_l1"),
    "huber_scale": dropped("a Huber loss has one number, huber_c", 1.0),
    "min_snr_gamma": same("snr_gamma"),
    "scale_v_pred_loss_like_noise_pred": dropped("the loss of v-prediction is not rescaled; snr_gamma weighs it"),
    "v_pred_like_loss": dropped("no loss is added to that of the noise"),
    "debiased_estimation_loss": same("debiased_estimation_loss", False),
    "weighted_captions": dropped("brackets and weights in captions are read as they are written"),
    "prior_loss_weight": same("prior_loss_weight", 1.0),
    "masked_loss": together("masked_loss", False),
    "conditioning_data_dir": dropped(
        "masks are X-masklabel.png beside X, or lie in masks/, or are named by a data set configuration"
    ),
    "clip_skip": dropped(
        "SDXL's text encoders are read at the last layer but one, by that script too, whatever it says", None, 1, 2, "1"
    ),
    # pictures and captions
    "train_data_dir": together("train_data_dir"),
    "dataset_config": together("train_data_dir", why="read as it is, see docs/data-files.md"),
    "in_json": together("train_data_dir", why="read as it is, see docs/data-files.md"),
    "dataset_repeats": dropped("a data file says repeats of each folder", 1),
    "reg_data_dir": together("", why="give --with_prior_preservation --class_data_dir DIR --class_prompt TEXT"),
    "dataset_class": dropped("no class of another library is imported"),
    "debug_dataset": dropped("python -m sdxl_nb.audit looks at a data set"),
    "cache_info": dropped(FEW),
    "resolution": together("resolution"),
    "enable_bucket": same("aspect_ratio_buckets", False),
    "min_bucket_reso": dropped(SHAPES, 256),
    "max_bucket_reso": dropped(SHAPES, 1024),
    "bucket_reso_steps": same("bucket_reso_steps", 64),
    "bucket_no_upscale": same("bucket_no_upscale", False),
    "resize_interpolation": same("image_interpolation_mode", how=lambda value: RESIZED.get(value, value)),
    "random_crop": together("center_crop", False, "with enable_bucket, shapes leave little to crop"),
    "flip_aug": same("random_flip", False),
    "color_aug": dropped(AUGMENTED),
    "face_crop_aug_range": dropped(AUGMENTED),
    "alpha_mask": together("masked_loss", False),
    "cache_latents": same("cache_latents", False),
    "cache_latents_to_disk": together("cache_latents", False),
    "vae_batch_size": dropped(FEW, 1, 0),
    "skip_cache_check": dropped("a cache is known by what made it"),
    "cache_text_encoder_outputs": together("train_text_encoder", False),
    "cache_text_encoder_outputs_to_disk": together("train_text_encoder", False),
    "caption_extension": dropped("texts of any usual suffix are read", ".caption", ".txt", "txt", "caption"),
    "caption_extention": dropped("texts of any usual suffix are read", ".caption", ".txt"),
    "shuffle_caption": same("shuffle_caption", False),
    "caption_separator": same("caption_separator", ","),
    "keep_tokens": same("keep_tokens", 0),
    "keep_tokens_separator": same("keep_tokens_separator"),
    "secondary_separator": dropped("what it holds together is shuffled and dropped one by one"),
    "enable_wildcard": dropped("of several captions one is drawn, {alternatives|in braces} stay as they are written"),
    "caption_prefix": same("caption_prefix", why="it is not shuffled with the tags"),
    "caption_suffix": same("caption_suffix", why="it is not shuffled with the tags"),
    "caption_dropout_rate": same("proportion_empty_prompts", 0.0),
    "caption_dropout_every_n_epochs": dropped("captions are dropped at random, by --proportion_empty_prompts", 0),
    "caption_tag_dropout_rate": same("caption_tag_dropout_rate", 0.0),
    "token_warmup_min": dropped(NOT_GROWING, 1),
    "token_warmup_step": dropped(NOT_GROWING, 0),
    # the LoRA
    "network_module": together(
        "lora_kind", "networks.lora", "another kind than LoRA, LoHa and LoKr is trained as LoRA"
    ),
    "network_dim": same("rank", 4),
    "network_alpha": same("lora_alpha", 1.0),
    "network_dropout": same("lora_dropout"),
    "network_args": together(
        "lora_kind lokr_factor target_modules rank_pattern alpha_pattern use_dora loraplus_lr_ratio rank_dropout "
        "module_dropout",
        why="algo, factor, conv_dim, conv_alpha, dora_wd, loraplus_lr_ratio, rank_dropout, module_dropout and preset "
        "are taken",
    ),
    "network_weights": same("lora_weights", why="rank, alpha and layers are taken from that file"),
    "dim_from_weights": dropped("rank, alpha and layers are always taken from network_weights"),
    "base_weights": together("base_lora"),
    "base_weights_multiplier": together("base_lora"),
    "network_train_unet_only": together("train_text_encoder", False),
    "network_train_text_encoder_only": together("unet_lr", False),
    "unet_lr": same("unet_lr"),
    "text_encoder_lr": together("text_encoder_lr", None, "0 for both does not train them"),
    "scale_weight_norms": same("scale_weight_norms", how=lambda value: None if float(value) == 0 else value),
    # looking at it
    "sample_prompts": together("sample_prompts", None, "where the file can be read"),
    "sample_every_n_steps": together("validation_steps", None, "with sample_prompts"),
    "sample_every_n_epochs": together("validation_epochs", None, "with sample_prompts"),
    "sample_at_first": dropped("the base is drawn before the first step anyway"),
    "sample_sampler": dropped(
        "the base's own kind of scheduler draws, or --ss of a prompt", "ddim", "euler", "euler_a", "k_euler"
    ),
    "validation_split": same("validation_split", 0.0),
    "validation_seed": dropped("what is held out depends on the pictures alone"),
    "validate_every_n_steps": together("heldout_steps", why="with validation_split"),
    "validate_every_n_epochs": dropped("held-out pictures are measured with the drawings, or by --heldout_steps"),
    "max_validation_steps": dropped("all held-out pictures are measured"),
}
