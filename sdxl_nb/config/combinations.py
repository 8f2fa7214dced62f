"""Checks of settings that forbid, need or silence each other, whatever machine they meet.

In: a TrainConfig whose single values are right (checks.py). Out: nothing, or an error of one sentence with the remedy.
None can fail for defaults.
"""

from typing import TYPE_CHECKING

from .checks import EMBEDDED, MAX_LORA_NAME, is_data_file
from .messages import shown, wrong
from .precedence import DEFAULT_BASE

if TYPE_CHECKING:
    from .train_config import TrainConfig

# what LoHa and LoKr do not have -> their value there
KINDS_OF_LORA = {"use_dora": False, "use_rslora": False, "lora_dropout": 0.0, "loraplus_lr_ratio": None}
# what a concept slider does not learn from
NOT_OF_SLIDERS = ("with_prior_preservation", "masked_loss", "validation_split", "validation_data_dir")
# what computes otherwise from step to step, or waits for the device, or changes where things lie
NOT_OF_GRAPHS: tuple[str, ...] = ("torch_compile", "train_text_encoder", "slider_positive", "slider_negative_dir")
NOT_OF_GRAPHS += ("prior_without_pictures", "tlora_min_rank", "lora_dropout", "rank_dropout", "module_dropout")
NOT_OF_GRAPHS += ("debug_loss", "enable_xformers_memory_efficient_attention", "enable_npu_flash_attention")
EPSILON_BASES = (DEFAULT_BASE, "embedded:tiny-sdxl")  # bases known to predict the noise


def check_combinations(config: "TrainConfig") -> None:
    """Raise the sentence of the first combination that cannot work."""
    for check in (
        _check_sources,
        _check_embedded,
        _check_resolution,
        _check_crops,
        _check_objective,
        _check_loss,
        _check_timesteps,
        _check_rates,
        _check_kinds,
        _check_timestep_ranks,
        _check_masks,
        _check_heldout,
        _check_attention,
        _check_cuda_graphs,
        _check_prior_preservation,
        _check_slider,
        _check_pairs,
        _check_output,
    ):
        check(config)


def _check_sources(config: "TrainConfig") -> None:
    if config.dataset_name is not None and config.train_data_dir is not None:
        raise wrong("train_data_dir", "dataset_name and train_data_dir are both given: keep one of them")
    if config.dataset_name is None and config.train_data_dir is None:
        raise wrong("dataset_name", "there are no training pictures: give dataset_name or train_data_dir")
    if config.dataset_config_name is not None and config.dataset_name is None:
        raise wrong(
            "dataset_config_name", "dataset_config_name needs dataset_name: drop it, a folder has no such thing"
        )


def _check_embedded(config: "TrainConfig") -> None:
    for field, names in EMBEDDED.items():
        value = getattr(config, field)
        if value is not None and value.startswith("embedded:") and value not in names:
            raise wrong(field, f"{field} {shown(value)} does not exist: use {' or '.join(names)}")


def _check_resolution(config: "TrainConfig") -> None:
    below = config.resolution // 8 * 8
    if config.resolution != below:
        near = f"{below} or {below + 8}"
        raise wrong("resolution", f"resolution must be a multiple of 8, not {config.resolution}: use {near}")


def _check_crops(config: "TrainConfig") -> None:
    if config.cached_variants > 1 and config.center_crop:
        raise wrong(
            "cached_variants",
            "cached_variants keeps other crops than the middle, which center_crop asks for: drop one of them",
        )


def _check_objective(config: "TrainConfig") -> None:
    epsilon = config.prediction_type == "epsilon" or (
        config.prediction_type is None and config.pretrained_model_name_or_path in EPSILON_BASES
    )
    if epsilon and config.debiased_estimation_loss and config.rescale_betas_zero_snr:
        raise wrong(
            "debiased_estimation_loss",
            "debiased_estimation_loss divides by zero with rescale_betas_zero_snr and epsilon prediction: "
            "drop one of them, or use prediction_type v_prediction",
        )
    if epsilon and config.snr_gamma is not None and config.rescale_betas_zero_snr:
        raise wrong(
            "snr_gamma",
            "snr_gamma divides by zero with rescale_betas_zero_snr and epsilon prediction: "
            "drop one of them, or use prediction_type v_prediction",
        )


def _check_loss(config: "TrainConfig") -> None:
    names = ("debiased_estimation_loss", "snr_gamma", "p2_gamma", "soft_snr_gamma")
    given = [name for name in names if getattr(config, name)]
    if len(given) > 1:
        raise wrong(given[0], f"{given[0]} and {given[1]} are two loss weights: drop one of them")
    for name, default in (("huber_c", 0.1), ("huber_schedule", "snr")):
        if config.loss_type not in ("huber", "smooth_l1") and getattr(config, name) != default:
            raise wrong(name, f"{name} needs loss_type huber or smooth_l1: give it, or drop {name}")
    if config.use_dora and config.optimizer == "muon":
        raise wrong("use_dora", "optimizer muon learns matrices alone, and DoRA has magnitudes too: drop use_dora")
    if config.use_ema and config.optimizer.endswith("_schedulefree"):
        raise wrong("use_ema", f"optimizer {config.optimizer} averages the weights by itself: drop use_ema")
    if config.ema_decay != 0.9999 and not config.use_ema:
        raise wrong("ema_decay", "ema_decay needs use_ema: add it, or drop ema_decay")


def _check_timesteps(config: "TrainConfig") -> None:
    if config.max_timestep is not None and config.max_timestep <= config.min_timestep:
        raise wrong(
            "max_timestep",
            f"max_timestep {config.max_timestep} leaves no timestep from {config.min_timestep} on: raise it",
        )
    if config.timestep_shape is not None:
        first, second = config.timestep_shape
        kind = config.timestep_distribution
        if kind in ("uniform", "stratified"):
            raise wrong("timestep_shape", f"timestep_shape is nothing for timestep_distribution {kind}: drop it")
        if (kind == "logit_normal" and second <= 0) or (kind == "beta" and min(first, second) <= 0):
            raise wrong("timestep_shape", f"timestep_shape of {kind} must be greater than 0: raise it")
    if config.multires_noise_discount != 0.3 and not config.multires_noise_iterations:
        raise wrong("multires_noise_discount", "multires_noise_discount needs multires_noise_iterations: give it too")


def _check_rates(config: "TrainConfig") -> None:
    encoders = (("text_encoder_lr", None), ("train_text_encoder_frac", 1.0), ("adam_weight_decay_text_encoder", None))
    for name, default in encoders:
        if not config.train_text_encoder and getattr(config, name) != default:
            raise wrong(name, f"{name} needs train_text_encoder: add it, or drop {name}")
    if config.unet_lr == 0 and config.lr_pattern is None and config.train_text_encoder_frac < 1:
        raise wrong(
            "train_text_encoder_frac",
            "train_text_encoder_frac stops the text encoders, and with unet_lr 0 nothing else learns: drop one of them",
        )
    if config.unet_lr == 0 and config.lr_pattern is None and not config.train_text_encoder:
        raise wrong("unet_lr", "unet_lr 0 leaves nothing to learn: raise it, or add train_text_encoder")


def _check_kinds(config: "TrainConfig") -> None:
    if config.lora_kind != "lokr" and config.lokr_factor is not None:
        raise wrong("lokr_factor", "lokr_factor needs lora_kind lokr: give it, or drop lokr_factor")
    for name, default in KINDS_OF_LORA.items() if config.lora_kind != "lora" else ():
        if getattr(config, name) != default:
            raise wrong(name, f"{name} is of lora_kind lora, and this one is {config.lora_kind}: drop {name}")

    if config.lora_kind != "lora" and config.torch_compile:
        raise wrong(
            "torch_compile",
            f"torch_compile is for lora_kind lora alone, and this one is {config.lora_kind}: drop torch_compile",
        )
    drops = [name for name in ("rank_dropout", "module_dropout") if getattr(config, name)]
    if config.use_dora and drops:
        raise wrong(drops[0], f"{drops[0]} leaves DoRA's magnitudes without their layer: drop it, or use_dora")
    if config.scale_weight_norms is not None and config.use_dora:
        raise wrong("scale_weight_norms", "scale_weight_norms knows no magnitudes: drop it, or use_dora")
    if config.scale_weight_norms is not None and config.optimizer.endswith("_schedulefree"):
        raise wrong(
            "scale_weight_norms",
            f"scale_weight_norms moves weights that optimizer {config.optimizer} averages: take another optimizer",
        )


def _check_timestep_ranks(config: "TrainConfig") -> None:
    if config.tlora_min_rank is None:
        if config.tlora_alpha != 1:
            raise wrong("tlora_alpha", "tlora_alpha needs tlora_min_rank: give it, or drop tlora_alpha")
        return
    if config.lora_kind != "lora":
        raise wrong("tlora_min_rank", f"tlora_min_rank masks ranks of LoRA, not of {config.lora_kind}: drop it")
    if config.use_dora:
        raise wrong("use_dora", "use_dora has magnitudes of whole layers, which tlora_min_rank masks: drop one of them")
    largest = max([config.rank, *(config.rank_pattern or {}).values()])
    if config.tlora_min_rank >= largest:
        raise wrong(
            "tlora_min_rank",
            f"tlora_min_rank {config.tlora_min_rank} masks none of {largest} ranks: lower it, or drop it",
        )


def _check_masks(config: "TrainConfig") -> None:
    for name, default in (("mask_column", None), ("unmasked_weight", 0.0), ("unmasked_probability", 0.0)):
        if not config.masked_loss and getattr(config, name) != default:
            raise wrong(name, f"{name} needs masked_loss: add it, or drop {name}")
    if config.masked_loss and config.unmasked_weight == 1:
        raise wrong("unmasked_weight", "unmasked_weight 1 makes every mask white: lower it, or drop masked_loss")
    if config.masked_loss and config.unmasked_probability == 1:
        raise wrong("unmasked_probability", "unmasked_probability 1 uses no mask: lower it, or drop masked_loss")


def _check_heldout(config: "TrainConfig") -> None:
    if config.validation_data_dir is not None and config.validation_split:
        raise wrong(
            "validation_split", "validation_data_dir and validation_split both hold pictures out: keep one of them"
        )
    # a data file may hold folders out; data/split.py looks
    listed = is_data_file(config.train_data_dir) or is_data_file(config.dataset_name)
    if config.validation_data_dir is None and not config.validation_split and not listed:
        for name, default in (
            ("heldout_steps", None),
            ("early_stopping_patience", None),
            ("load_best_model_at_end", False),
        ):
            if getattr(config, name) != default:
                raise wrong(name, f"{name} needs held-out pictures: give validation_data_dir or validation_split")
    if config.early_stopping_threshold and config.early_stopping_patience is None:
        raise wrong(
            "early_stopping_threshold",
            "early_stopping_threshold needs early_stopping_patience: give it, or drop early_stopping_threshold",
        )


def _check_attention(config: "TrainConfig") -> None:
    if config.enable_xformers_memory_efficient_attention and config.enable_npu_flash_attention:
        raise wrong(
            "enable_npu_flash_attention",
            "enable_xformers_memory_efficient_attention and enable_npu_flash_attention exclude each other: drop one",
        )


def _check_cuda_graphs(config: "TrainConfig") -> None:
    forbids = next((name for name in NOT_OF_GRAPHS if getattr(config, name)), None)
    if config.cuda_graphs and forbids:
        raise wrong(
            "cuda_graphs", f"cuda_graphs repeats what was recorded once, which {forbids} forbids: drop one of them"
        )


def _check_prior_preservation(config: "TrainConfig") -> None:
    if config.prior_without_pictures and config.with_prior_preservation:
        raise wrong(
            "prior_without_pictures",
            "prior_without_pictures and with_prior_preservation both keep the rest as it was: drop one of them",
        )
    if config.prior_prompts is not None and not config.prior_without_pictures:
        raise wrong("prior_prompts", "prior_prompts needs prior_without_pictures: add it, or drop prior_prompts")
    if config.prior_without_pictures and config.prior_loss_weight == 0:
        raise wrong("prior_loss_weight", "prior_loss_weight 0 keeps nothing: raise it, or drop prior_without_pictures")
    if config.with_prior_preservation:
        for name in ("class_data_dir", "class_prompt"):
            if getattr(config, name) is None:
                raise wrong(name, f"with_prior_preservation needs {name}: give it, or drop with_prior_preservation")
        return
    others = (("class_data_dir", None), ("class_prompt", None), ("num_class_images", 100))
    for name, default in others:
        if config.prior_without_pictures and name == "class_prompt":
            continue
        if getattr(config, name) != default:
            raise wrong(name, f"{name} needs with_prior_preservation: add it, or drop {name}")


def _check_slider(config: "TrainConfig") -> None:
    for name, default in (("slider_negative", None), ("slider_target", None), ("slider_guidance", 1.0)):
        if config.slider_positive is None and getattr(config, name) != default:
            raise wrong(name, f"{name} needs slider_positive: say what the slider adds, or drop {name}")
    if config.slider_positive is None:
        return
    if config.slider_positive == (config.slider_negative or ""):
        raise wrong("slider_negative", "slider_positive and slider_negative are the same: a slider needs a difference")
    for name in NOT_OF_SLIDERS:
        if getattr(config, name):
            raise wrong(name, f"{name} means pictures and captions, which a slider does not learn: drop {name}")


def _check_pairs(config: "TrainConfig") -> None:
    if config.slider_negative_dir is None:
        if config.slider_strength != 1:
            raise wrong("slider_strength", "slider_strength needs slider_negative_dir: give it too")
        return
    if config.slider_positive is not None:
        raise wrong(
            "slider_negative_dir",
            "slider_positive trains a slider from prompts, slider_negative_dir one from pictures: drop one of them",
        )
    if config.train_data_dir == config.slider_negative_dir:
        raise wrong("slider_negative_dir", "slider_negative_dir and train_data_dir are the same: give two folders")
    if is_data_file(config.train_data_dir) or is_data_file(config.dataset_name):
        raise wrong("slider_negative_dir", "slider_negative_dir pairs the pictures of one folder, not of a data file")
    for name in NOT_OF_SLIDERS:
        if getattr(config, name):
            raise wrong(name, f"{name} knows single pictures, and a slider from pairs learns two at once: drop {name}")
    for name, least in (("cached_variants", 1), ("adaptive_noise_scale", 0.0)):
        if getattr(config, name) != least:
            raise wrong(name, f"{name} is another thing for each picture of a slider's pair: drop {name}")
    if config.alpha_background == "random":
        raise wrong("alpha_background", "alpha_background random tells a slider's pictures apart: choose one colour")
    if config.use_dora:
        raise wrong("use_dora", "use_dora has magnitudes, which no negative strength turns: drop it, or the slider")
    if config.torch_compile:
        raise wrong("torch_compile", "torch_compile keeps one strength, and a slider from pairs has two: drop it")


def _check_output(config: "TrainConfig") -> None:
    if config.validation_steps is not None and config.validation_share is not None:
        raise wrong("validation_share", "validation_steps and validation_share both say when to draw: keep one of them")
    if config.num_validation_images != 4 and config.validation_prompt is None:
        raise wrong("num_validation_images", "num_validation_images needs validation_prompt: say what to draw")
    if config.hub_model_id is not None and not config.push_to_hub:
        raise wrong("hub_model_id", "hub_model_id needs push_to_hub: add it, or drop hub_model_id")
    if len(config.lora_name().encode()) > MAX_LORA_NAME:  # so it comes from output_dir
        raise wrong(
            "output_name",
            f"output_name is null, and the run folder's name has more than {MAX_LORA_NAME} bytes: give a shorter one",
        )
    if config.lora_name() == "pytorch_lora_weights":
        raise wrong("output_name", "output_name pytorch_lora_weights is the diffusers file's own name: choose another")
