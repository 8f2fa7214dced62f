"""kohya_ss's GUI: the JSON that it saves. It has names of its own for some settings of the script, and defaults.

In: what such a file says. Out: a Draft, by way of the script's names. As kohya_gui/lora_gui.py hands it to the script:
0 and an empty text are nothing; epochs count where max_train_epochs is empty; lr_warmup is a percentage of the run.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from . import kohya
from .command_line import flags, words
from .keys import EMPTY, Draft
from .kohya_keys import KOHYA

NAME = "kohya_ss"
RENAMED = {  # of the GUI: the script's name
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "lora_network_weights": "network_weights",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae",
    "caption_extention": "caption_extension",
}
LAUNCHING = (  # of accelerate, and of the GUI itself
    *("num_cpu_threads_per_process", "num_processes", "num_machines", "multi_gpu", "gpu_ids", "main_process_port"),
    *("dynamo_mode", "dynamo_use_fullgraph", "dynamo_use_dynamic", "model_list", "save_as_bool", "file_path"),
    *(
        "use_wandb",
        "logging_dir",
        "lowvram",
        "no_token_padding",
        "training_preset",
        "server",
        "gradio_analytics_enabled",
    ),
)
MODELS = {  # other models' switches
    "flux1_checkbox": "FLUX",
    "sd3_checkbox": "Stable Diffusion 3",
    "hunyuan_image_checkbox": "HunyuanImage",
    "anima_checkbox": "Anima",
    "lumina_checkbox": "Lumina",
}
OTHERS = (  # the beginnings of names of what concerns other models
    *("flux1_", "sd3_", "hunyuan_", "anima_", "lumina_", "t5xxl", "clip_g", "img_", "txt_", "single_", "double_"),
    *("train_double_", "train_single_", "train_t5", "logit_", "mode_scale", "pos_emb_", "save_clip", "save_t5"),
    *(
        "weighting_scheme",
        "discrete_flow_shift",
        "model_prediction_type",
        "timestep_sampling",
        "split_",
        "train_blocks",
    ),
    *("enable_all_linear", "guidance_scale", "mem_eff_save", "apply_t5", "blocks_to_swap", "in_dims", "ae", "clip_l"),
    *("show_timesteps", "model_type"),
)
KINDS = {  # LoRA_type: the script's network_module and, of LyCORIS, its algo
    "Standard": ("networks.lora", ""),
    "Kohya LoCon": ("networks.lora", "conv"),
    "LoRA-FA": ("networks.lora_fa", ""),
    "Kohya DyLoRA": ("networks.dylora", "conv"),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
}
ARGUMENTS = (  # that the GUI hands on as network_args
    *("rank_dropout", "module_dropout", "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold"),
    *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "loraplus_lr_ratio"),
    *("loraplus_text_encoder_lr_ratio", "loraplus_unet_lr_ratio"),
)
LYCORIS = (
    *("factor", "bypass_mode", "dora_wd", "use_cp", "use_tucker", "use_scalar", "rank_dropout_scale", "constrain"),
    *("rescaled", "train_norm", "decompose_both", "train_on_input", "unit"),
)
TOLD = {  # what is dropped, and why
    "stop_text_encoder_training": "give --train_text_encoder_frac, the share of the run",
    "stop_text_encoder_training_pct": "give --train_text_encoder_frac, the share of the run",
    "train_inpainting": "an inpainting base is known by its nine channels",
    "extra_accelerate_launch_args": "accelerate is given its flags when a run is launched",
    "train_lora_ggpo": "the weights are not disturbed",
}
QUIET = (
    "additional_parameters",
    "ggpo_sigma",
    "ggpo_beta",
    "epoch",
    "lr_warmup",
    "noise_offset_type",
    "LoRA_type",
    "LyCORIS_preset",
    "sdxl",
)


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = ()) -> Draft:
    """The Draft of what a file of the GUI says. Raises ConfigError."""
    said = {key: value for key, value in said.items() if value not in EMPTY}
    _check_model(said, path.name)
    handed = {RENAMED.get(key, key): value for key, value in said.items() if not _own(key)}
    for part in (_texts, _zeros, _network, _length, _noise, _encoders):
        part(said, handed)
    handed |= flags(words(str(said.get("additional_parameters", "")), path.name))  # which count before the rest there
    draft = kohya.read(handed, path, given, NAME)
    for key, why in TOLD.items():
        if said.get(key) not in (*EMPTY, 0, "0", False):
            draft.drop(key, why)
    return draft


def knows(key: str) -> bool:
    """Whether a key is one that the GUI writes."""
    return key in KOHYA or key in RENAMED or _own(key)


def _own(key: str) -> bool:
    """Whether a key is not one of the script's."""
    elsewhere = (*LAUNCHING, *MODELS, *QUIET, *ARGUMENTS, *LYCORIS, *TOLD, "conv_dim", "conv_alpha")
    return key in elsewhere or key.startswith(OTHERS)


def _check_model(said: Mapping[str, Any], file: str) -> None:
    models = [model for key, model in MODELS.items() if said.get(key) is True]
    models += ["Stable Diffusion 2"] if said.get("v2") is True else []
    if not models and said.get("sdxl") is False:
        models = ["Stable Diffusion 1.5"]
    if models:
        raise ConfigError(f"{file} is for {models[0]}: this package trains SDXL alone")


def _texts(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """Lists are one text, perhaps with quotes around each."""
    for key in ("optimizer_args", "lr_scheduler_args"):
        if isinstance(handed.get(key), str):
            handed[key] = handed[key].replace('"', "").replace("'", "").split()


def _zeros(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """Where 0 is nothing for the GUI."""
    for key in (
        *("max_train_epochs", "max_train_steps", "save_every_n_epochs", "save_every_n_steps", "seed", "unet_lr"),
        *("min_snr_gamma", "noise_offset", "ip_noise_gamma", "multires_noise_iterations", "v_pred_like_loss"),
        *("max_timestep", "min_timestep", "network_dropout", "scale_weight_norms", "adaptive_noise_scale"),
        *("save_last_n_epochs", "save_last_n_steps", "sample_every_n_steps", "sample_every_n_epochs", "clip_skip"),
    ):
        if str(handed.get(key)) in ("0", "0.0"):
            handed.pop(key)
    if "max_timestep" in handed and str(handed["max_timestep"]) == "1000":
        handed.pop("max_timestep")
    handed["lr_scheduler_num_cycles"] = said.get("lr_scheduler_num_cycles") or said.get("epoch") or 1


def _network(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """LoRA_type as network_module and network_args."""
    kind = str(said.get("LoRA_type", "Standard"))
    module, algorithm = KINDS.get(kind) or ("lycoris.kohya", kind.rpartition("/")[2].lower())
    arguments = [f"{key}={said[key]}" for key in ARGUMENTS if said.get(key) not in (*EMPTY, 0, "0", False)]
    if algorithm:
        names = ("conv_dim", "conv_alpha") if algorithm == "conv" else ("conv_dim", "conv_alpha", *LYCORIS)
        arguments += [f"{key}={said[key]}" for key in names if said.get(key) not in EMPTY]
    if module == "lycoris.kohya":
        arguments += [f"algo={algorithm}", f"preset={said.get('LyCORIS_preset', 'full')}"]
    handed["network_module"] = module
    handed["network_args"] = [argument.replace(" ", "") for argument in arguments]


def _length(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """Epochs where neither max_train_epochs nor max_train_steps is given; warm-up from a percentage."""
    if "max_train_epochs" not in handed and "max_train_steps" not in handed and said.get("epoch"):
        handed["max_train_epochs"] = said["epoch"]
    share = _number(said.get("lr_warmup"))
    if _number(handed.get("lr_warmup_steps")) <= 0 and share:
        steps = _number(handed.get("max_train_steps")) if "max_train_epochs" not in handed else 0
        handed["lr_warmup_steps"] = round(share * steps / 100) if steps else share / 100


def _noise(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """Of the offset and the pyramid only what noise_offset_type names is used."""
    pyramid = said.get("noise_offset_type", "Original") == "Multires"
    for key in ("noise_offset", "adaptive_noise_scale") if pyramid else ("multires_noise_iterations",):
        handed.pop(key, None)


def _encoders(said: Mapping[str, Any], handed: dict[str, Any]) -> None:
    """A rate of 0 says that they do not learn, or that nothing is said."""
    encoders, unet = _number(said.get("text_encoder_lr")), _number(said.get("unet_lr"))
    if not encoders:
        handed.pop("text_encoder_lr", None)
        if unet and "text_encoder_lr" in said:
            handed["network_train_unet_only"] = True
    elif not unet and "unet_lr" in said:
        handed["network_train_text_encoder_only"] = True


def _number(value: Any) -> float:
    """A number of the GUI, which may be text; what is none is left to the script's own check."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
