"""Every setting of OneTrainer's default configuration, parts of it by dotted names.

As Nerogar/OneTrainer has them (modules/util/config/TrainConfig.py) at 23df383. Data alone: onetrainer.py reads with it.
"""

from typing import Any

from .keys import Key, dropped, same, together

FEW = "it is about speed and memory of that program alone"
OTHER = "SDXL has no such part"
TIMED = "what is saved is counted in steps: give --checkpointing_steps"
HEADER = "the file's header is written from the run"
EMBEDDING = "no embeddings are trained"
ANOTHER = "another kind than LoRA is not trained"
DRAWN = "when samples are drawn is given with --validation_steps, _share or _epochs"
SEVERAL = "several processes are launched with accelerate or torchrun"
STORED = "text encoders are kept as the U-Net is, see --base_precision"
SECRETS = "tokens and keys are taken from the environment alone"
CLOUD = "a run on SageMaker is started from this package, other clouds are not"
TENSORBOARD = "TensorBoard is started apart, from the run folder's logs"
PART = (  # of each part of a model
    *("model_name", "include", "train", "stop_training_after", "stop_training_after_unit", "learning_rate"),
    *("weight_dtype", "dropout_probability", "train_embedding", "attention_mask", "guidance_scale"),
    *("gradient_checkpointing", "offload_fraction", "activation_offloading"),
)
OTHER_PARTS = (
    *("prior", "transformer", "unconditional_transformer", "text_encoder_3", "text_encoder_4", "effnet_encoder"),
    *("decoder", "decoder_text_encoder", "decoder_vqgan"),
)
ARGUMENTS = (  # of optimizers, those that are taken where an optimizer of ours has them
    *("beta1", "beta2", "beta3", "eps", "weight_decay", "decouple", "use_bias_correction", "safeguard_warmup"),
    *("d0", "d_coef", "growth_rate", "slice_p", "scale_parameter", "relative_step", "warmup_init", "clip_threshold"),
    *("decay_rate", "r", "weight_lr_power", "amsgrad", "d_limiter", "prodigy_steps", "schedulefree_c", "use_speed"),
    *("split_groups", "split_groups_mean", "factored", "factored_fp32", "use_stableadamw", "use_cautious"),
    *("use_grams", "use_adopt", "use_orthograd"),
)
PASSED_OVER = (  # of optimizers that there are not, and of how theirs are computed
    *("adam_w_mode", "alpha", "bias_correction", "block_wise", "capturable", "centered", "dampening"),
    *("differentiable", "eps2", "foreach", "fsdp_in_use", "fused", "fused_back_pass", "initial_accumulator_value"),
    *("initial_accumulator", "is_paged", "log_every", "lr_decay", "max_unorm", "maximize", "min_8bit_size"),
    *("quant_block_size", "momentum", "nesterov", "no_prox", "optim_bits", "percentile_clipping"),
    *("stochastic_rounding", "use_triton", "decoupled_decay", "fixed_decay", "rectify", "degenerated_to_sgd", "k"),
    *("xi", "n_sma_threshold", "ams_bound", "adanorm", "adam_debias", "cautious", "weight_decay_by_lr"),
    *("use_schedulefree", "nnmf_factor", "orthogonal_gradient", "use_atan2", "use_AdEMAMix", "beta3_ema"),
    *("alpha_grad", "beta1_warmup", "min_beta1", "Simplified_AdEMAMix", "kourkoutas_beta", "ns_steps"),
    *("MuonWithAuxAdam", "muon_hidden_layers", "muon_adam_regex", "muon_adam_lr", "muon_te1_adam_lr"),
    *("muon_te2_adam_lr", "muon_adam_config", "rms_rescaling", "normuon_variant", "beta2_normuon", "low_rank_ortho"),
    *("ortho_rank", "accelerated_ns", "cautious_wd", "approx_mars", "auto_kappa_p", "compile"),
)
VARIANTS = ("cautious", "use_atan2", "use_AdEMAMix", "Simplified_AdEMAMix", "kourkoutas_beta", "orthogonal_gradient")
DTYPES = {"FLOAT_32": "fp32", "FLOAT_16": "fp16", "BFLOAT_16": "bf16", "TFLOAT_32": "fp32"}


def stem(path: Any) -> str:
    """The name of a file without folders and suffix."""
    name = str(path).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return name.removesuffix(".safetensors").removesuffix(".ckpt").removesuffix(".pt")


def _part(name: str, **rows: Key) -> dict[str, Key]:
    """The rows of a part of the model: those given, the others without effect."""
    why = {"weight_dtype": STORED, "gradient_checkpointing": "the U-Net's says it for all parts"}
    why |= {"activation_offloading": "activations are computed again, and not kept in memory of the CPU"}
    why |= {"offload_fraction": why["activation_offloading"], "train_embedding": EMBEDDING}
    usual: dict[str, Any] = {"include": True, "stop_training_after_unit": "NEVER", "weight_dtype": "FLOAT_32"}
    usual |= {"train_embedding": True, "guidance_scale": 1.0, "gradient_checkpointing": True, "train": True}
    nothing: dict[str, tuple[Any, ...]] = {"weight_dtype": ("FLOAT_16", "BFLOAT_16", "TFLOAT_32", "NONE")}
    made = {}
    for part in PART:
        row = dropped(why.get(part, OTHER), usual.get(part), *nothing.get(part, ()))
        made[f"{name}.{part}"] = rows.get(part, row)
    return made


ONETRAINER: dict[str, Key] = {
    # what is trained
    "training_method": together("", "FINE_TUNE", "LORA alone; all else is refused"),
    "model_type": together("", "STABLE_DIFFUSION_15", "STABLE_DIFFUSION_XL_10_BASE (_INPAINTING); all else is refused"),
    "peft_type": together("", "LORA", "another kind than LoRA is trained as LoRA"),
    "base_model_name": same("pretrained_model_name_or_path"),
    "lora_model_name": same("lora_weights", why="rank, alpha and layers are taken from that file"),
    "lora_rank": same("rank", 16),
    "lora_alpha": same("lora_alpha", 1.0),
    "lora_decompose": same("use_dora", False, why="DoRA's magnitudes are over outputs, there over inputs by default"),
    "lora_decompose_norm_epsilon": dropped("norms are never 0 here", True),
    "lora_decompose_output_axis": dropped("it is so anyway", False, True),
    "lora_weight_dtype": dropped("LoRA weights are fp32", "FLOAT_32"),
    "bundle_additional_embeddings": dropped(EMBEDDING, True),
    "layer_filter": together("target_modules", "", "of layer_filter_preset full, attn-mlp and attn-only"),
    "layer_filter_preset": together("target_modules", "full"),
    "layer_filter_regex": together("target_modules", False),
    "dropout_probability": same("lora_dropout", 0.0),
    # where results go
    "workspace_dir": same("output_dir", "workspace/run"),
    "output_model_destination": same("output_name", None, stem, "the file of that name lies in output_dir"),
    "output_dtype": same("save_precision", "FLOAT_32", lambda value: DTYPES.get(value, value)),
    "output_model_format": dropped(
        "files for diffusers and for ComfyUI are both written", "SAFETENSORS", "KOHYA_LORA", "COMFY_LORA", "DIFFUSERS"
    ),
    "include_train_config": dropped(HEADER, "NONE", "SETTINGS", "ALL"),
    "cache_dir": dropped("caches are shared by all runs: give --latents_cache_dir", "workspace-cache/run"),
    "huggingface_cache_dir": same("cache_dir"),
    "offline_mode": dropped("HF_HUB_OFFLINE=1 says so"),
    "continue_last_backup": dropped("states of other programs are not resumed: give the LoRA with --lora_weights"),
    "prevent_overwrites": dropped(
        "a run that there is is never overwritten without --overwrite_output_dir", False, True
    ),
    "clear_cache_before_training": dropped("a cache is known by what made it", True),
    "backup_after": dropped(TIMED, 30),
    "backup_after_unit": dropped(TIMED, "MINUTE"),
    "rolling_backup": dropped("how many are kept is said by --checkpoints_total_limit"),
    "rolling_backup_count": dropped("how many are kept is said by --checkpoints_total_limit", 3),
    "backup_before_save": dropped(TIMED, True),
    "save_every": together("checkpointing_steps", 0, "with save_every_unit STEP"),
    "save_every_unit": together("checkpointing_steps", "NEVER"),
    "save_skip_first": dropped(TIMED, 0),
    "save_filename_prefix": dropped("checkpoints are named by their step"),
    "tensorboard": same("report_to", True, lambda value: "tensorboard" if value else "none"),
    "tensorboard_expose": dropped(TENSORBOARD),
    "tensorboard_always_on": dropped(TENSORBOARD),
    "tensorboard_port": dropped(TENSORBOARD, 6006),
    "debug_mode": dropped("pictures of what is trained are in the audit"),
    "debug_dir": dropped("pictures of what is trained are in the audit", "debug"),
    # pictures
    "concept_file_name": together("train_data_dir", "training_concepts/concepts.json", "see docs/data-files.md"),
    "concepts": together("train_data_dir", why="the file itself lists them, see docs/data-files.md"),
    "resolution": together("resolution", "512", "of several the first"),
    "frames": dropped(OTHER, "25", 25),
    "aspect_ratio_bucketing": same("aspect_ratio_buckets", True),
    "latent_caching": same("cache_latents", True),
    "only_cache": dropped("a run trains"),
    "custom_conditioning_image": dropped("there is no training on conditioning pictures"),
    "masked_training": same("masked_loss", False),
    "unmasked_probability": together("unmasked_probability", 0.1, "with masked_training"),
    "unmasked_weight": together("unmasked_weight", 0.1, "with masked_training"),
    "normalize_masked_area_loss": dropped("the loss of a masked picture is its mean over the whole picture"),
    "masked_prior_preservation_weight": dropped("outside of a mask the base's own prediction is not asked for"),
    # the run
    "epochs": same("num_train_epochs", 100),
    "batch_size": same("train_batch_size", 1),
    "gradient_accumulation_steps": same("gradient_accumulation_steps", 1),
    "ema": together("use_ema", "OFF"),
    "ema_decay": together("ema_decay", 0.999, "with ema, its root by ema_update_step_interval, as every step counts"),
    "ema_update_step_interval": together("ema_decay", 5),
    "non_ema_sampling": dropped("with use_ema the average is drawn", True, False),
    "dataloader_threads": dropped("threads are as many as there are cores", 2, 1),
    "train_device": dropped("the device is the one that there is", "cuda", "cpu", "mps"),
    "temp_device": dropped("what is not needed is not loaded", "cpu"),
    "train_dtype": together("mixed_precision allow_tf32", "FLOAT_16"),
    "fallback_train_dtype": dropped("the VAE computes in what it can stand", "BFLOAT_16", "FLOAT_32"),
    "enable_autocast_cache": dropped(FEW, True),
    "attention_mechanism": dropped("PyTorch's own attention is used", "SDP", "DEFAULT"),
    "async_offloading": dropped(FEW, True),
    "compile": same("torch_compile", False),
    "force_circular_padding": dropped("pictures do not repeat at their sides"),
    "multi_gpu": dropped(SEVERAL),
    "device_indexes": dropped(SEVERAL),
    "gradient_reduce_precision": dropped(SEVERAL, "FLOAT_32_STOCHASTIC"),
    "fused_gradient_reduce": dropped(SEVERAL, True),
    "async_gradient_reduce": dropped(SEVERAL, True),
    "async_gradient_reduce_buffer": dropped(SEVERAL, 100),
    # optimizer and course of the learning rate
    "learning_rate": together("learning_rate", 3e-6),
    "learning_rate_scaler": together("learning_rate", "NONE", "the rate is multiplied by the root of that number"),
    "learning_rate_scheduler": together("lr_scheduler", "CONSTANT"),
    "custom_learning_rate_scheduler": together("", why="a class of another library is not imported"),
    "scheduler_params": dropped("they are for a class of another library"),
    "learning_rate_warmup_steps": together(
        "lr_warmup_steps lr_warmup_ratio", 200.0, "up to 1 it is a share of the run"
    ),
    "learning_rate_cycles": together("lr_num_cycles", 1.0, "with COSINE_WITH_HARD_RESTARTS"),
    "learning_rate_min_factor": together("lr_min_ratio", 0.0),
    "clip_grad_norm": same("max_grad_norm", 1.0),
    "optimizer.optimizer": together("optimizer", "ADAMW"),
    **{
        f"optimizer.{name}": together("optimizer_args", why="where the optimizer has it, from a fixed list")
        for name in ARGUMENTS
    },
    **{
        f"optimizer.{name}": together("", why="it is of how that program computes, or of others")
        for name in PASSED_OVER
    },
    "optimizer_defaults": together("", why="they are that program's memory of other choices"),
    # the objective
    "mse_strength": together("loss_type", 1.0, "one loss alone"),
    "mae_strength": together("loss_type", 0.0),
    "log_cosh_strength": together("loss_type", 0.0),
    "huber_strength": together("loss_type", 0.0),
    "huber_delta": together("huber_c", 1.0, "with huber_strength, at all timesteps alike"),
    "vb_loss_strength": dropped(OTHER, 1.0),
    "loss_weight_fn": together("snr_gamma p2_gamma debiased_estimation_loss", "CONSTANT"),
    "loss_weight_strength": together("snr_gamma p2_gamma", 5.0),
    "loss_scaler": dropped("a loss is the mean over its pictures, and is not multiplied", "NONE"),
    "offset_noise_weight": same("noise_offset", 0.0),
    "generalized_offset_noise": dropped("an offset has the same scale at every timestep"),
    "perturbation_noise_weight": same("input_perturbation", 0.0),
    "rescale_noise_scheduler_to_zero_terminal_snr": together("rescale_betas_zero_snr prediction_type", False),
    "force_v_prediction": together("prediction_type", False),
    "force_epsilon_prediction": together("prediction_type", False),
    "min_noising_strength": together("min_timestep", 0.0),
    "max_noising_strength": together("max_timestep", 1.0),
    "timestep_distribution": together("timestep_distribution", "UNIFORM", "UNIFORM, LOGIT_NORMAL, SIGMOID and BETA"),
    "noising_weight": together("timestep_shape", 0.0),
    "noising_bias": together("timestep_shape", 0.0),
    "timestep_shift": together("", 1.0, "timesteps are not shifted"),
    "dynamic_timestep_shifting": dropped("timesteps are not shifted"),
    # parts of the base
    **_part(
        "unet",
        train=together("unet_lr", True),
        stop_training_after=dropped("the U-Net learns to the end", None, 0),
        stop_training_after_unit=dropped("the U-Net learns to the end", "NEVER", "EPOCH", "STEP"),
        learning_rate=together("unet_lr"),
        weight_dtype=together("base_precision", "FLOAT_32"),
        gradient_checkpointing=same("gradient_checkpointing", True),
    ),
    **{
        name: row
        for part, number in (("text_encoder", "first"), ("text_encoder_2", "second"))
        for name, row in _part(
            part,
            train=together("train_text_encoder text_encoder_lr", True, f"a rate of 0 where the {number} stands still"),
            stop_training_after=together("train_text_encoder_frac", 30),
            stop_training_after_unit=together("train_text_encoder_frac", "EPOCH"),
            learning_rate=together("text_encoder_lr"),
            dropout_probability=together("proportion_empty_prompts", 0.0, "for both encoders together"),
            attention_mask=dropped("SDXL's text encoders see whole chunks"),
        ).items()
    },
    "text_encoder_layer_skip": together("clip_skip", 0, "counted from the end, SDXL's own is 2"),
    "text_encoder_2_layer_skip": together("clip_skip", 0, "where it is that of the first encoder too"),
    "text_encoder_sequence_length": dropped("captions are read in chunks: give --max_token_length", 512, 77),
    "text_encoder_2_sequence_length": dropped("captions are read in chunks: give --max_token_length", 77),
    "text_encoder_3_layer_skip": dropped(OTHER, 0),
    "text_encoder_4_layer_skip": dropped(OTHER, 0),
    **_part(
        "vae",
        model_name=same("pretrained_vae_model_name_or_path"),
        weight_dtype=dropped("the VAE computes in what it can stand", "FLOAT_32", "FLOAT_16", "BFLOAT_16"),
    ),
    **{name: together("", why=OTHER) for part in OTHER_PARTS for name in _part(part)},
    **{
        f"quantization.{name}": dropped(
            "all linear layers and convolutions are kept alike, see --base_precision", usual
        )
        for name, usual in (
            *(("layer_filter", None), ("layer_filter_preset", "full"), ("layer_filter_regex", None)),
            *(("svd_dtype", "NONE"), ("svd_rank", 16), ("cache_dir", None)),
        )
    },
    # other kinds than LoRA
    "embedding": together("", why=EMBEDDING),
    "additional_embeddings": dropped(EMBEDDING),
    "embedding_learning_rate": dropped(EMBEDDING),
    "preserve_embedding_norm": dropped(EMBEDDING),
    "embedding_weight_dtype": dropped(EMBEDDING, "FLOAT_32"),
    **{
        name: together("", why=ANOTHER)
        for name in (
            *("oft_block_size", "oft_block_share", "oft_scaled", "lokr_dim", "lokr_decompose_both"),
            *("lokr_decompose_factor", "lokr_use_tucker", "lokr_weight_decompose", "lokr_dora_on_output"),
            *("lokr_full_matrix", "lokr_vec_trick"),
        )
    },
    # looking at it
    "validation": dropped("concepts of type VALIDATION are held out and measured anyway", False, True),
    "validate_after": together("heldout_steps", 1, "with validate_after_unit STEP"),
    "validate_after_unit": together("heldout_steps", "EPOCH"),
    "sample_definition_file_name": together("sample_prompts", None, "where the file can be read"),
    "samples": together("sample_prompts", why="those that are enabled, each with all it says"),
    "sample_after": together("validation_epochs validation_steps", 10, "in epochs or steps"),
    "sample_after_unit": together("validation_epochs validation_steps", "MINUTE", "no clock says when"),
    "sample_skip_first": dropped(DRAWN, 0),
    "sample_image_format": dropped("pictures are PNG", "JPG", "PNG"),
    "sample_video_format": dropped(OTHER, "MP4"),
    "sample_audio_format": dropped(OTHER, "MP3"),
    "samples_to_tensorboard": dropped("pictures are shown by the trackers anyway", True),
    "cloud": together("", why=CLOUD),
    "secrets": together("", why=SECRETS),
}
