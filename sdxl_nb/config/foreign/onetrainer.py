"""OneTrainer's configurations: config.json, and the presets that say only what differs from its defaults.

In: what such a file says. Out: a Draft. Conventions of that program that are not ours: lora_alpha is 1 where nothing is
said; every schedule has a warm-up, constant too, of 200 batches; rates are scaled by roots; the average of the weights
is taken every so many steps; DoRA's magnitudes are over inputs; a rescaled schedule means v-prediction.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from ..messages import shown
from . import optimizers, samples
from .keys import Draft
from .onetrainer_keys import ARGUMENTS, ONETRAINER, VARIANTS

NAME = "OneTrainer"
SDXL = ("STABLE_DIFFUSION_XL_10_BASE", "STABLE_DIFFUSION_XL_10_BASE_INPAINTING")
PARTS = ("optimizer", "quantization", *dict.fromkeys(key.partition(".")[0] for key in ONETRAINER if "." in key))
IGNORED = ("__version", "optimizer_defaults")
SCHEDULES = {
    "CONSTANT": "constant_with_warmup",
    "LINEAR": "linear",
    "COSINE": "cosine",
    "COSINE_WITH_HARD_RESTARTS": "cosine_with_restarts",
    "COSINE_WITH_RESTARTS": "cosine_with_restarts",
    "REX": "rex",
    "ADAFACTOR": "constant_with_warmup",
}
NOT_SO = {  # of those, what is not the same
    "COSINE_WITH_RESTARTS": "the rate goes up again at once, and not as it went down",
    "REX": "the curve is that of its paper, and stays less near the full rate",
    "ADAFACTOR": "the rate is learning_rate",
}
LAYERS = {"full": "all", "attn-mlp": "attention+ff", "attn-only": "attention"}
FILTERS = {"": "all", "attentions": "attention+ff", "attn": "attention"}
LOSSES = {"mse": "l2", "mae": "l1", "log_cosh": "log_cosh", "huber": "huber"}
DISTRIBUTIONS = {"UNIFORM": "uniform", "LOGIT_NORMAL": "logit_normal", "SIGMOID": "sigmoid", "BETA": "beta"}
PRECISIONS = {"FLOAT_16": "fp16", "BFLOAT_16": "bf16", "FLOAT_32": "no", "TFLOAT_32": "no"}
STORED = {
    **dict.fromkeys(("FLOAT_8", "FLOAT_W8A8", "FLOAT_W8A8_COMPRESSED"), "fp8"),
    **dict.fromkeys(("INT_8", "INT_W8A8", "INT_W8A8_COMPRESSED"), "int8"),
}


def knows(key: str) -> bool:
    """Whether a key, dotted or of a whole part, is one of its configuration."""
    return key in ONETRAINER or key in PARTS or key in IGNORED


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = ()) -> Draft:
    """The Draft of a configuration of OneTrainer. Raises ConfigError."""
    draft = Draft(path.name, NAME, ONETRAINER, _flat(said))
    _check_kind(draft)
    draft.take()
    _pictures(draft, path)
    samples.of_onetrainer(draft, path)
    for part in (_network, _objective, _noise, _precision, _encoders, _saving):
        part(draft)
    _optimizer(draft, given)
    _schedule(draft, given)
    return draft.finish(given)


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Parts by dotted names; what holds secrets is passed over whole."""
    flat: dict[str, Any] = {}
    for key, value in said.items():
        if key in PARTS and isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in value.items() if name != "__version"}
        elif key not in (*IGNORED, "secrets", "cloud", "embedding"):
            flat[key] = value
    return flat


def _check_kind(draft: Draft) -> None:
    kind, method = draft.text("model_type"), draft.text("training_method")
    if kind not in SDXL:
        raise ConfigError(f"model_type of {draft.file} is {shown(kind)}: this package trains SDXL alone")
    if method != "LORA":
        raise ConfigError(f"training_method of {draft.file} is {shown(method)}: this package trains a LoRA alone")


def _pictures(draft: Draft, path: Path) -> None:
    if draft.get("concepts"):
        draft.set("train_data_dir", str(path), "concepts")
    elif "concept_file_name" in draft.said:
        draft.set("train_data_dir", draft.text("concept_file_name"), "concept_file_name")
    sizes = draft.text("resolution").split(",")
    if len(sizes) > 1:
        draft.differs("resolution", f"of several the first is used, {sizes[0].strip()}")
    draft.set("resolution", _side(draft, sizes[0].strip()), "resolution")
    if draft.switch("masked_training"):
        for key in ("unmasked_probability", "unmasked_weight"):
            draft.set(key, draft.get(key), key)


def _side(draft: Draft, size: str) -> Any:
    """The side of a square of that area: a number, or WIDTHxHEIGHT."""
    width, times, height = size.lower().partition("x")
    if not (times and width.strip().isdecimal() and height.strip().isdecimal()):
        return size
    side = round((int(width) * int(height)) ** 0.5 / 8) * 8
    draft.differs("resolution", f"{size} is taken as {side}, the side of a square of that area")
    return side


def _network(draft: Draft) -> None:
    kind = draft.text("peft_type")
    if kind != "LORA":
        draft.differs(f"peft_type {kind}", "a LoRA of lora_rank is trained")
    preset, layers = draft.text("layer_filter_preset"), draft.text("layer_filter").strip()
    known = LAYERS.get(preset) if preset in LAYERS and not layers else FILTERS.get(layers)
    if known is None:
        draft.drop("layer_filter", "its layers are given with --target_modules", layers or preset)
    key = "layer_filter_preset" if preset in LAYERS else "layer_filter"
    draft.set("target_modules", known or "all", key)
    if draft.values["target_modules"] == "all":
        draft.differs("layer_filter_preset full", "conv_in, conv_out and the embeddings get no LoRA")


def _objective(draft: Draft) -> None:
    strengths = {name: draft.number(f"{name}_strength") or 0.0 for name in LOSSES}
    used = [name for name, strength in strengths.items() if strength] or ["mse"]
    if len(used) > 1 or strengths[used[0]] not in (0, 1):
        mixed = ", ".join(f"{name}_strength {strengths[name]}" for name in used)
        draft.differs(mixed, f"one loss with strength 1 is used, {LOSSES[used[0]]}")
    draft.set("loss_type", LOSSES[used[0]], f"{used[0]}_strength")
    if used[0] == "huber":
        draft.set("huber_c", draft.get("huber_delta"), "huber_delta")
        draft.set("huber_schedule", "constant", "huber_strength")
    weight = draft.text("loss_weight_fn")
    if weight in ("MIN_SNR_GAMMA", "P2"):
        ours = "snr_gamma" if weight == "MIN_SNR_GAMMA" else "p2_gamma"
        draft.set(ours, draft.get("loss_weight_strength"), "loss_weight_strength")
    elif weight == "DEBIASED_ESTIMATION":
        draft.set("debiased_estimation_loss", True, "loss_weight_fn")
    elif weight != "CONSTANT":
        draft.drop("loss_weight_fn", "no loss is weighed so", weight)


def _noise(draft: Draft) -> None:
    rescaled = draft.switch("rescale_noise_scheduler_to_zero_terminal_snr")
    if draft.switch("force_v_prediction"):
        draft.set("prediction_type", "v_prediction", "force_v_prediction")
    if rescaled:
        draft.set("rescale_betas_zero_snr", True, "rescale_noise_scheduler_to_zero_terminal_snr")
        draft.set("prediction_type", "v_prediction", "rescale_noise_scheduler_to_zero_terminal_snr")
    elif draft.switch("force_epsilon_prediction"):
        draft.set("prediction_type", "epsilon", "force_epsilon_prediction")
    least, most = draft.number("min_noising_strength") or 0.0, draft.number("max_noising_strength")
    draft.set("min_timestep", int(1000 * least), "min_noising_strength")
    if most is not None and most < 1:
        draft.set("max_timestep", int(1000 * most), "max_noising_strength")
    name, weight, bias = (
        draft.text("timestep_distribution"),
        draft.number("noising_weight"),
        draft.number("noising_bias"),
    )
    weight, bias = weight or 0.0, bias or 0.0
    if draft.number("timestep_shift") != 1:
        draft.drop("timestep_shift", "timesteps are not shifted", draft.get("timestep_shift"))
    if name not in DISTRIBUTIONS:
        draft.drop("timestep_distribution", "timesteps are drawn evenly", name)
        return
    draft.set("timestep_distribution", DISTRIBUTIONS[name], "timestep_distribution")
    shapes = {"LOGIT_NORMAL": [bias, weight + 1], "SIGMOID": [weight, bias + 0.5]}
    shapes["BETA"] = [max(1e-4, weight), max(1e-4, bias)]
    if name in shapes:
        draft.set("timestep_shape", shapes[name], "noising_weight")


def _precision(draft: Draft) -> None:
    name, stored = draft.text("train_dtype"), draft.text("unet.weight_dtype")
    if name not in PRECISIONS:
        draft.drop("train_dtype", "a run computes in fp32, fp16 or bf16", name)
    draft.set("mixed_precision", PRECISIONS.get(name, "bf16"), "train_dtype")
    if name == "TFLOAT_32":
        draft.set("allow_tf32", True, "train_dtype")
    if stored in STORED:
        draft.set("base_precision", STORED[stored], "unet.weight_dtype")
    elif stored not in (*PRECISIONS, "NONE"):
        draft.drop("unet.weight_dtype", "a base is kept in 32, 16 or 8 bits: give --base_precision", stored)


def _encoders(draft: Draft) -> None:
    """Which text encoders learn, with which rates, how long; and dropped captions."""
    parts = ("text_encoder", "text_encoder_2")
    learn = [draft.switch(f"{part}.train") for part in parts]
    draft.set("train_text_encoder", any(learn), "text_encoder.train")
    _layers(draft)
    dropout = max(draft.number(f"{part}.dropout_probability") or 0.0 for part in parts)
    draft.set("proportion_empty_prompts", dropout, "text_encoder.dropout_probability")
    if dropout:
        draft.differs("text_encoder.dropout_probability", "a caption is left out for both text encoders together")
    if any(learn):
        rates = [draft.get(f"{part}.learning_rate") for part in parts]
        usual = draft.get("learning_rate")
        if not all(learn) or any(rate is not None for rate in rates):
            both = zip(learn, rates, strict=True)
            rates = [0.0 if not learns else usual if rate is None else rate for learns, rate in both]
            draft.set("text_encoder_lr", rates, "text_encoder.learning_rate")
        _stop(draft, [part for part, learns in zip(parts, learn, strict=True) if learns])
    if not draft.switch("unet.train"):
        draft.set("unet_lr", 0.0, "unet.train")
    elif draft.get("unet.learning_rate") is not None:
        draft.set("unet_lr", draft.get("unet.learning_rate"), "unet.learning_rate")


def _layers(draft: Draft) -> None:
    """The layer at which captions are read, one for both encoders."""
    first, second = (draft.whole(f"{part}_layer_skip") or 0 for part in ("text_encoder", "text_encoder_2"))
    if first != second:
        draft.drop("text_encoder_2_layer_skip", "both text encoders are read at the same layer", second)
    if first:
        draft.set("clip_skip", first + 2, "text_encoder_layer_skip")


def _stop(draft: Draft, parts: Collection[str]) -> None:
    """Text encoders that learn no more after some epochs."""
    epochs = draft.whole("epochs") or 1
    shares = set()
    for part in parts:
        key = f"{part}.stop_training_after"
        unit, after = draft.text(f"{key}_unit"), draft.number(key)
        if unit not in ("EPOCH", "NEVER"):
            draft.drop(key, "give --train_text_encoder_frac, the share of the run", after)
        shares.add(min(1.0, after / epochs) if unit == "EPOCH" and after is not None else 1.0)
    if len(shares) > 1:
        draft.differs("text_encoder_2.stop_training_after", "both text encoders stop together, at the later one")
    draft.set("train_text_encoder_frac", max(shares), "text_encoder.stop_training_after")


def _saving(draft: Draft) -> None:
    every, unit = draft.whole("save_every") or 0, draft.text("save_every_unit")
    if every and unit == "STEP":
        draft.set("checkpointing_steps", every, "save_every")
    elif every and unit != "NEVER":
        draft.drop("save_every", f"it is in {unit}: give --checkpointing_steps", every)
    if draft.switch("validation") and draft.text("validate_after_unit") == "STEP":
        draft.drop(
            "validate_after", "give --heldout_steps, with concepts of type VALIDATION", draft.get("validate_after")
        )
    if draft.text("ema") != "OFF":
        decay, interval = draft.number("ema_decay") or 0.999, draft.whole("ema_update_step_interval") or 1
        draft.set("use_ema", True, "ema")
        draft.set("ema_decay", decay ** (1 / interval), "ema_decay")
        if interval > 1:
            draft.differs(
                "ema_update_step_interval", f"the average is taken at every step, with {decay}^(1/{interval})"
            )


def _optimizer(draft: Draft, given: Collection[str]) -> None:
    found = {name: draft.said[f"optimizer.{name}"] for name in ARGUMENTS if f"optimizer.{name}" in draft.said}
    spelled = draft.text("optimizer.optimizer")
    ours = optimizers.named(spelled)
    if ours in ("lion", "muon", "adafactor", *optimizers.ADAMS) or ours.endswith("schedulefree") or ours == "came":
        found |= _betas(found)
        found = {
            name: value for name, value in found.items() if name in (*optimizers.TAKEN[ours], *optimizers.RELATIVE)
        }
    if ours == "prodigy_schedulefree":  # its class has a default that OneTrainer's saves otherwise
        found.pop("use_bias_correction", None)
    if ours == "came" and "betas" in found:
        found["betas"] = [*found["betas"], draft.said.get("optimizer.beta3") or 0.9999]
    if ours in ("adafactor", "came"):
        found.pop("eps", None)  # theirs are two numbers
    optimizers.read(draft, "optimizer.optimizer", spelled, found, "optimizer.optimizer", given)
    for name in VARIANTS:
        if draft.said.get(f"optimizer.{name}") is True:
            draft.drop(f"optimizer.{name}", "no such variant is there", True)


def _betas(found: Mapping[str, Any]) -> dict[str, Any]:
    first, second = found.get("beta1"), found.get("beta2")
    return {} if first is None or second is None else {"betas": [first, second]}


def _schedule(draft: Draft, given: Collection[str]) -> None:
    """The course of the learning rate; a class of another library is refused, unless lr_scheduler is `given`."""
    _rate(draft)
    name = draft.text("learning_rate_scheduler")
    if name not in SCHEDULES:
        return draft.no_schedule("learning_rate_scheduler", name, given)
    if name in NOT_SO:
        draft.differs(f"learning_rate_scheduler {name}", NOT_SO[name])
    ours = SCHEDULES[name]
    if str(draft.values.get("optimizer", "")).endswith("schedulefree"):
        draft.set("lr_scheduler", "constant", "learning_rate_scheduler")
        return
    warm = _warmup(draft)
    if ours == "constant_with_warmup" and not warm:
        ours = "constant"
    draft.set("lr_scheduler", ours, "learning_rate_scheduler")
    if ours == "cosine_with_restarts":
        cycles = draft.number("learning_rate_cycles") or 1.0
        draft.set("lr_num_cycles", max(1, round(cycles)), "learning_rate_cycles")
        if cycles != round(cycles):
            draft.differs(f"learning_rate_cycles {cycles}", "cycles are whole")
    if ours not in ("constant", "constant_with_warmup"):
        draft.set("lr_min_ratio", draft.get("learning_rate_min_factor"), "learning_rate_min_factor")


def _warmup(draft: Draft) -> float:
    """Warm-up: batches, which accumulation makes fewer steps of, or up to 1 a share of the run."""
    amount = draft.number("learning_rate_warmup_steps") or 0.0
    if 0 < amount <= 1:
        draft.set("lr_warmup_ratio", amount, "learning_rate_warmup_steps")
    else:
        steps = int(max(amount, 0) / (draft.whole("gradient_accumulation_steps") or 1))
        draft.set("lr_warmup_steps", steps, "learning_rate_warmup_steps")
    return amount


def _rate(draft: Draft) -> None:
    """The learning rate, times the root of what scales it."""
    rate, scaler = draft.number("learning_rate") or 0.0, draft.text("learning_rate_scaler")
    pictures = {"BATCH": "batch_size", "GRADIENT_ACCUMULATION": "gradient_accumulation_steps"}
    keys = ["batch_size"] if "BATCH" in scaler else []
    keys = list(pictures.values()) if "BOTH" in scaler else [pictures[scaler]] if scaler in pictures else keys
    factor = 1.0
    for key in keys:
        factor *= draft.whole(key) or 1
    draft.set("learning_rate", rate * factor**0.5 if keys else draft.get("learning_rate"), "learning_rate")
    if keys:
        draft.differs(f"learning_rate_scaler {scaler}", f"it is part of learning_rate, times {factor:g}^0.5")
        for ours in ("unet_lr", "text_encoder_lr"):
            if draft.values.get(ours):
                draft.differs(ours, "rates of parts are not scaled")
