"""Hypothesis strategy for valid configurations: any subset of fields, each anywhere within its bounds."""

from pathlib import PurePath
from typing import Any
from unicodedata import category

from hypothesis import strategies as st

from sdxl_nb.config.checks import OPTIMIZERS
from sdxl_nb.config.combinations import NOT_OF_GRAPHS
from sdxl_nb.config.train_config import TrainConfig

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30),
    st.sampled_from(
        ['say "hi"', "it's", "-x", "--rank=3", "a\nb", "ein süßer Drache 龍 🐉", "null", "no", "1e-4", " ", "{}"]
    ),
    st.sampled_from(
        ["true", "0", "# not a comment", "- item", "a: b", "\ufeffbom", "\u2028", "\x85", "$(rm x)", "\t", "%s"]
    ),
).filter(lambda text: text != "--")
NAMES = TEXTS.filter(lambda text: text not in (".", "..") and not any(c in "/\\" or category(c) == "Cc" for c in text))
INSIDE = TEXTS.filter(lambda text: not PurePath(text).is_absolute() and ".." not in PurePath(text).parts)
RATES = st.floats(0, 10)
LAYERS = st.sampled_from(["to_q", "attn2.to_k", r"mid_block\..*", "down_blocks.1.*to_v"])
SPECIAL = {
    "resolution": st.integers(4, 512).map(lambda eighths: eighths * 8),
    "max_token_length": st.integers(1, 5).map(lambda chunks: chunks * 75),
    "bucket_reso_steps": st.integers(1, 64).map(lambda eighths: eighths * 8),
    "base_lora": st.lists(st.sampled_from(["a.safetensors", "b c.safetensors:0.5", "/d/e:-1"]), max_size=3) | st.none(),
    "folder_weights": st.dictionaries(TEXTS, st.floats(0, 1e9), max_size=2) | st.none(),
    "output_dir": TEXTS.filter(lambda text: "://" not in text),
    "logging_dir": INSIDE,
    "output_name": NAMES | st.none(),
    "prior_prompts": st.lists(TEXTS, max_size=3) | TEXTS | st.none(),
    "validation_prompt": st.lists(TEXTS, max_size=3) | TEXTS | st.none(),
    "sample_prompts": st.lists(
        st.sampled_from(["a cup --w 832 --h 1216", "b --n c, d --d 3 --l 0.5 --ss euler_a", "ü 龍"]), max_size=2
    )
    | st.none(),
    "target_modules": st.sampled_from(
        ["attention", "attention+ff", "all", r".*attn2\.to_[qk]", ["to_q"], ["to_k", "ff.net.2"]]
    ),
    "dataset_name_mapping": st.dictionaries(TEXTS, st.tuples(TEXTS, TEXTS), max_size=2) | st.none(),
    "rank_pattern": st.dictionaries(LAYERS, st.integers(1, 1024), max_size=2) | st.none(),
    "alpha_pattern": st.dictionaries(LAYERS, st.floats(0, 1e9, exclude_min=True), max_size=2) | st.none(),
    "lr_pattern": st.dictionaries(LAYERS | st.sampled_from(["style", "content"]), RATES, max_size=2) | st.none(),
    "text_encoder_lr": st.lists(RATES, max_size=2) | RATES | st.none(),
    "unet_lr": st.floats(0, 10, exclude_min=True) | st.none(),
    "timestep_shape": st.lists(st.floats(0.5, 100), min_size=2, max_size=2) | st.none(),
    "optimizer": st.sampled_from([*OPTIMIZERS, "torch.optim.RAdam", "a.b_1.C"]),
    "optimizer_args": st.lists(st.sampled_from(["d0=1e-5", "betas=(0.9, 0.99)", "x=", "y= a b=c"]), max_size=3)
    | st.none(),
    "alpha_background": st.from_regex("#[0-9A-Fa-f]{6}", fullmatch=True)
    | st.sampled_from(["white", "black", "random"]),
    "dataset_name": TEXTS,
    "pretrained_model_name_or_path": TEXTS | st.sampled_from(["embedded:tiny-sdxl", "a/b"]),
}


NOT_OF_SLIDERS = (  # what is refused with a slider, of prompts or of pairs, or means nothing without what is
    *("with_prior_preservation", "masked_loss", "validation_split", "validation_data_dir"),
    *("mask_column", "unmasked_weight", "unmasked_probability"),
    *("heldout_steps", "early_stopping_patience", "load_best_model_at_end", "early_stopping_threshold"),
)
SCHEMA, TYPES = TrainConfig.model_json_schema()["properties"], TrainConfig.json_types()


def field_values(name: str) -> st.SearchStrategy[Any]:
    """Valid values of one field."""
    if name in SPECIAL:
        return SPECIAL[name]
    schema, types = SCHEMA[name], TYPES[name]
    choices = [part["enum"] for part in schema.get("anyOf", [schema]) if "enum" in part]
    bounds = {
        key: getattr(bound, key)
        for bound in TrainConfig.model_fields[name].metadata
        for key in ("ge", "gt", "le", "lt")
        if hasattr(bound, key)
    }
    if choices:
        values: st.SearchStrategy[Any] = st.sampled_from(choices[0])
    elif "boolean" in types:
        values = st.booleans()
    elif "integer" in types:
        values = st.integers(bounds.get("ge"), bounds.get("le", 10**9))
    elif "number" in types:
        values = st.floats(
            bounds.get("ge", bounds.get("gt")),
            bounds.get("le", bounds.get("lt", 1e9)),
            exclude_min="gt" in bounds,
            exclude_max="lt" in bounds,
        )
    else:
        values = TEXTS
    return values | st.none() if "null" in types else values


def _reconciled(values: dict[str, Any]) -> dict[str, Any]:
    """Values without the combinations that are refused."""
    if values.get("train_data_dir") is not None:
        values.pop("dataset_name", None)
        values.pop("dataset_config_name", None)
    if values.get("hub_model_id") is not None:
        values["push_to_hub"] = True
    if not values.get("validation_prompt"):
        values.pop("num_validation_images", None)
    for name in [n for n in ("snr_gamma", "p2_gamma", "soft_snr_gamma") if values.get(n) is not None][1:]:
        values.pop(name)
    if any(values.get(name) is not None for name in ("snr_gamma", "p2_gamma", "soft_snr_gamma")):
        values.pop("rescale_betas_zero_snr", None)
        values.pop("debiased_estimation_loss", None)
    if values.get("center_crop"):
        values.pop("cached_variants", None)
    if (values.get("max_timestep") or 10_000) <= values.get("min_timestep", 0):
        values.pop("max_timestep")
    if values.get("timestep_distribution", "uniform") in ("uniform", "stratified"):
        values.pop("timestep_shape", None)
    if not values.get("multires_noise_iterations"):
        values.pop("multires_noise_discount", None)
    if not values.get("train_text_encoder"):
        for name in ("text_encoder_lr", "train_text_encoder_frac", "adam_weight_decay_text_encoder"):
            values.pop(name, None)
    if values.get("debiased_estimation_loss"):
        values.pop("rescale_betas_zero_snr", None)
    if values.get("loss_type", "l2") not in ("huber", "smooth_l1"):
        values.pop("huber_c", None)
        values.pop("huber_schedule", None)
    for name in ("mask_column", "unmasked_weight", "unmasked_probability"):
        if not values.get("masked_loss") or values.get(name) == 1:
            values.pop(name, None)
    if values.get("optimizer") == "muon":
        values.pop("use_dora", None)
    if values.get("optimizer", "").endswith("_schedulefree"):
        values.pop("use_ema", None)
    if not values.get("use_ema"):
        values.pop("ema_decay", None)
    if values.get("validation_steps") is not None:
        values.pop("validation_share", None)
    if values.get("validation_data_dir") is not None:
        values.pop("validation_split", None)
    elif not values.get("validation_split"):
        for name in ("heldout_steps", "early_stopping_patience", "load_best_model_at_end"):
            values.pop(name, None)
    if values.get("early_stopping_patience") is None:
        values.pop("early_stopping_threshold", None)
    if values.get("enable_xformers_memory_efficient_attention"):
        values.pop("enable_npu_flash_attention", None)
    if values.get("lora_kind", "lora") != "lora":
        for name in ("use_dora", "use_rslora", "lora_dropout", "loraplus_lr_ratio", "torch_compile"):
            values.pop(name, None)
    if values.get("lora_kind") != "lokr":
        values.pop("lokr_factor", None)
    if values.get("use_dora") or values.get("optimizer", "").endswith("_schedulefree"):
        for name in ("rank_dropout", "module_dropout", "scale_weight_norms"):
            values.pop(name, None)
    if values.get("use_dora") or values.get("lora_kind", "lora") != "lora":
        values.pop("tlora_min_rank", None)
    if values.get("tlora_min_rank") is None:
        values.pop("tlora_alpha", None)
    else:
        values |= {"rank": values["tlora_min_rank"] + 1, "rank_pattern": None}
    if values.get("slider_positive") is None:
        for name in ("slider_negative", "slider_target", "slider_guidance"):
            values.pop(name, None)
    else:
        values["slider_negative"] = values["slider_positive"] + "!"
        for name in NOT_OF_SLIDERS:
            values.pop(name, None)
    if values.get("slider_positive") is not None:
        values.pop("slider_negative_dir", None)
    if values.get("slider_negative_dir") is None:
        values.pop("slider_strength", None)
    else:
        values["slider_negative_dir"] = "opposites"
        for name in NOT_OF_SLIDERS:
            values.pop(name, None)
        for name in ("cached_variants", "adaptive_noise_scale", "alpha_background", "use_dora", "torch_compile"):
            values.pop(name, None)
    if values.get("with_prior_preservation") or values.get("prior_loss_weight") == 0:
        values.pop("prior_without_pictures", None)
    if not values.get("prior_without_pictures"):
        values.pop("prior_prompts", None)
    if not values.get("with_prior_preservation"):
        for name in ("class_data_dir", "class_prompt", "num_class_images"):
            values.pop(name, None)
    else:
        values |= {name: values.get(name) or "class" for name in ("class_data_dir", "class_prompt")}
    if any(values.get(name) for name in NOT_OF_GRAPHS):
        values.pop("cuda_graphs", None)
    return values


VALUES = st.fixed_dictionaries({}, optional={name: field_values(name) for name in TrainConfig.model_fields}).map(
    _reconciled
)
CONFIGS = VALUES.map(lambda values: TrainConfig(**values))
