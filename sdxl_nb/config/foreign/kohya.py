"""Settings of kohya's sdxl_train_network.py: its --config_file (TOML), its flags, and what kohya_ss's GUI hands to it.

In: what such a file says, by key. Out: a Draft. Conventions of that program that are not ours: network_alpha is 1 where
nothing is said, so that the LoRA acts with 1 / network_dim; a warm-up below 1 is a share of the run; max_train_epochs
counts before max_train_steps, and an epoch sees every folder as often as its name says (10_name), here too; text
encoders learn unless their outputs are cached, or network_train_unet_only; an optimizer's defaults are its library's.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...system.errors import ConfigError
from ..messages import shown
from ..prompts import read_prompts
from . import optimizers
from .keys import Draft
from .kohya_keys import KOHYA

NAME = "kohya's script"
SCHEDULERS = ("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup")
CONVOLUTIONS = ("conv1", "conv2", "downsamplers.0.conv", "upsamplers.0.conv")  # 3 x 3, those that conv_dim is for
NETWORKS = ("networks.lora", "networks.lora_fa", "lycoris.kohya")
PRESETS = {  # of LyCORIS: our target_modules
    "full": "all",
    "full-lin": "attention+ff",
    "attn-mlp": "attention+ff",
    "attn-only": "attention",
    "unet-transformer-only": "attention+ff",
}
WITHOUT = ("0", "0.0", "none", "false", "", "no")  # of an argument of a network that asks for nothing
ABOUT_LYCORIS = ("algo", "preset", "factor", "bypass_mode", "decompose_both", "constraint", "rescaled", "block_size")


def read(said: Mapping[str, Any], path: Path, given: Collection[str] = (), program: str = NAME) -> Draft:
    """The Draft of what a file of kohya's says. Raises ConfigError."""
    draft = Draft(path.name, program, KOHYA, _flat(said))
    _check_base(draft)
    draft.take()
    for part in (_objective, _pictures, _length, _rates, _network, _encoders, _memory, _drawing):
        part(draft)
    _optimizer(draft, given)
    _schedule(draft, given)
    return draft.finish(given)


def _flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Sections have no meaning there."""
    flat: dict[str, Any] = {}
    for key, value in said.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    return flat


def _check_base(draft: Draft) -> None:
    if draft.switch("v2"):
        raise ConfigError(f"v2 in {draft.file} asks for a Stable Diffusion 2 base: this package trains SDXL alone")


def _objective(draft: Draft) -> None:
    if draft.switch("v_parameterization"):
        draft.set("prediction_type", "v_prediction", "v_parameterization")
    for key in ("huber_schedule", "huber_c"):
        if draft.values["loss_type"] in ("huber", "smooth_l1"):
            draft.set(key, draft.get(key), key)
        elif KOHYA[key].asks(draft.get(key)):
            draft.drop(key, "it is for loss_type huber and smooth_l1", draft.get(key))
    if draft.whole("multires_noise_iterations"):
        for key in ("multires_noise_iterations", "multires_noise_discount"):
            draft.set(key, draft.get(key), key)


def _pictures(draft: Draft) -> None:
    for key in ("train_data_dir", "in_json", "dataset_config"):  # a later one holds the pictures of those before
        if draft.text(key):
            draft.set("train_data_dir", draft.text(key), key)
    if draft.text("reg_data_dir"):
        draft.drop("reg_data_dir", f"{KOHYA['reg_data_dir'].why}, where its folders' captions are TEXT")
    if draft.get("resolution") is not None:
        draft.set("resolution", _resolution(draft), "resolution")
    if (steps := draft.whole("bucket_reso_steps") or 64) % 8:
        draft.set("bucket_reso_steps", -(-steps // 8) * 8, "bucket_reso_steps")
        draft.differs(f"bucket_reso_steps {steps}", "sides of shapes are multiples of 8")
    draft.set("center_crop", not draft.switch("random_crop"), "random_crop")
    if draft.switch("cache_latents_to_disk"):
        draft.set("cache_latents", True, "cache_latents_to_disk")
    for key in ("masked_loss", "alpha_mask"):
        if draft.switch(key):
            draft.set("masked_loss", True, key)
    if draft.whole("validate_every_n_steps") and draft.number("validation_split"):
        draft.set("heldout_steps", draft.get("validate_every_n_steps"), "validate_every_n_steps")


def _resolution(draft: Draft) -> Any:
    """The side of a square of the area; a number, or width and height, which may be text."""
    value = draft.get("resolution")
    parts = value if isinstance(value, list) else str(value).replace("x", ",").split(",")
    if len(parts) == 1:
        return parts[0]
    try:
        width, height = (int(str(part).strip()) for part in parts)
    except ValueError:
        raise ConfigError(
            f"resolution in {draft.file} must be a number or WIDTH,HEIGHT, not {shown(value)}: correct it"
        ) from None
    if width == height:
        return width
    side = round((max(width, 0) * max(height, 0)) ** 0.5 / 8) * 8
    draft.differs("resolution", f"{width}x{height} is taken as {side}, the side of a square of that area")
    return side


def _length(draft: Draft) -> None:
    if draft.whole("max_train_epochs"):
        draft.set("num_train_epochs", draft.get("max_train_epochs"), "max_train_epochs")
        if "max_train_steps" in draft.said:
            draft.drop("max_train_steps", "max_train_epochs counts before it, in that script too")
    else:
        draft.set("max_train_steps", draft.get("max_train_steps"), "max_train_steps")


def _rates(draft: Draft) -> None:
    """base_weights and the layers' own rates are apart; this is what trains at all."""
    files, scales = draft.items("base_weights"), draft.items("base_weights_multiplier")
    if files:
        pairs = [f"{name}:{scale}" for name, scale in zip(files, [*scales, *["1"] * len(files)], strict=False)]
        draft.set("base_lora", pairs, "base_weights")
    if draft.switch("network_train_text_encoder_only"):
        draft.set("unet_lr", 0.0, "network_train_text_encoder_only")


def _encoders(draft: Draft) -> None:
    """Text encoders learn unless something says that they do not."""
    cached = draft.switch("cache_text_encoder_outputs") or draft.switch("cache_text_encoder_outputs_to_disk")
    rates = draft.items("text_encoder_lr")
    still = bool(rates) and all(rate in ("0", "0.0") for rate in rates)
    learn = not (draft.switch("network_train_unet_only") or cached or still)
    why = "cache_text_encoder_outputs" if cached else "text_encoder_lr" if still else "network_train_unet_only"
    draft.set("train_text_encoder", learn, why)
    if learn and rates:
        draft.set("text_encoder_lr", rates, "text_encoder_lr")
    elif rates and not still:
        draft.drop("text_encoder_lr", "the text encoders do not learn")


def _memory(draft: Draft) -> None:
    for key in ("fp8_base", "fp8_base_unet"):
        if draft.switch(key):
            draft.set("base_precision", "fp8", key)


def _drawing(draft: Draft) -> None:
    """Sample prompts, where their file can be read; or the lines that the GUI has in its place."""
    epochs, steps = draft.whole("sample_every_n_epochs"), draft.whole("sample_every_n_steps")
    lines: list[str] = []
    try:
        lines = [prompt.line() for prompt in read_prompts(draft.text("sample_prompts") or [])]
    except ValueError as error:
        draft.drop("sample_prompts", f"{error}; give --sample_prompts".replace(".;", ";"))
    if not lines:
        for key, often in (("sample_every_n_epochs", epochs), ("sample_every_n_steps", steps)):
            if often:
                draft.drop(key, "nothing is drawn without prompts", often)
        return
    draft.set("sample_prompts", lines, "sample_prompts")
    draft.set("validation_epochs", epochs or None, "sample_every_n_epochs" if epochs else "sample_prompts")
    if steps and epochs:
        draft.drop("sample_every_n_steps", "sample_every_n_epochs goes before it there too", steps)
    elif steps:
        draft.set("validation_steps", steps, "sample_every_n_steps")


def _network(draft: Draft) -> None:
    """network_module and network_args: which layers, and other ranks of convolutions."""
    module = draft.text("network_module")
    if not any(key.startswith("network_") for key in draft.said):
        draft.say(f"{draft.file} names no network: a LoRA of rank {draft.get('network_dim')} is trained.")
    if module not in NETWORKS:
        draft.differs(f"network_module {module}", "a LoRA is trained")
    elif module == "networks.lora_fa":
        draft.differs(f"network_module {module}", "both matrices of each layer are trained")
    said = {name: str(value) for name, value in _arguments(draft).items()}
    algorithm = said.get("algo", "lora").strip("'\"").lower()
    lycoris = module == "lycoris.kohya"
    draft.set("target_modules", "attention+ff", "network_module")
    _convolutions(draft, said, lycoris)
    if lycoris and algorithm in ("loha", "lokr"):
        return _factored(draft, said, algorithm)
    if lycoris and algorithm not in ("lora", "locon"):
        draft.differs(f"network_args algo={algorithm}", "a LoRA of network_dim is trained")
    if said.get("dora_wd", "").lower() == "true":
        draft.set("use_dora", True, "network_args")
        if said.get("wd_on_output", said.get("wd_on_out", "true")).lower() == "false":
            draft.differs("network_args wd_on_output", "DoRA's magnitudes are over outputs")
    if "loraplus_unet_lr_ratio" in said or "loraplus_lr_ratio" in said:
        ratio = said.get("loraplus_lr_ratio") or said["loraplus_unet_lr_ratio"]
        draft.set("loraplus_lr_ratio", ratio, "network_args")
    used = {"dora_wd", "wd_on_output", "wd_on_out", "loraplus_lr_ratio"}
    if "loraplus_lr_ratio" not in said:
        used.add("loraplus_unet_lr_ratio")
    if draft.values.get("use_dora"):  # those of a layer with magnitudes are not left out, nor bounded
        if draft.values.pop("scale_weight_norms", None) is not None:
            draft.drop("scale_weight_norms", "DoRA's magnitudes are not bounded", draft.get("scale_weight_norms"))
    else:
        used |= _dropouts(draft, said)
    _unused(draft, said, used, "a LoRA")


def _factored(draft: Draft, said: Mapping[str, str], algorithm: str) -> None:
    """LyCORIS' LoHa and LoKr."""
    word = {"loha": "LoHa", "lokr": "LoKr"}[algorithm]
    draft.set("lora_kind", algorithm, "network_args")
    used = _dropouts(draft, said)
    if algorithm == "lokr":
        used.add("factor")
        if (factor := said.get("factor", "-1")) != "-1":
            draft.set("lokr_factor", factor, "network_args")
    if draft.values.pop("lora_dropout", None):
        draft.drop("network_dropout", f"{word} drops ranks and layers alone", draft.get("network_dropout"))
    _unused(draft, said, used, f"a {word}")


def _dropouts(draft: Draft, said: Mapping[str, str]) -> set[str]:
    """Take rank_dropout and module_dropout of network_args; their names."""
    for name in ("rank_dropout", "module_dropout"):
        if said.get(name, "0").lower() not in WITHOUT:
            draft.set(name, said[name], "network_args")
    return {"rank_dropout", "module_dropout"}


def _unused(draft: Draft, said: Mapping[str, str], used: Collection[str], kind: str) -> None:
    """Say what of network_args has no effect."""
    used = {*used, "conv_dim", "conv_alpha", "preset", "algo"}
    for name, value in said.items():
        if name not in used and value.lower() not in WITHOUT and not (name == "factor" and value == "-1"):
            draft.drop(f"network_args {name}", f"{kind} has no such thing here", value)


def _arguments(draft: Draft) -> dict[str, Any]:
    return optimizers.pairs(draft, "network_args", draft.items("network_args"))


def _convolutions(draft: Draft, said: Mapping[str, str], lycoris: bool) -> None:
    """3 x 3 convolutions with conv_dim and conv_alpha; LyCORIS trains them with network_dim where nothing is said."""
    preset = said.get("preset", "full" if lycoris else "attn-mlp").strip("'\"")
    if preset not in PRESETS:
        draft.drop("network_args preset", "its layers are given with --target_modules", preset)
    rank, alpha = draft.get("network_dim"), draft.get("network_alpha")
    dim, conv_alpha = said.get("conv_dim", "0"), said.get("conv_alpha", "1" if not lycoris else str(alpha))
    if lycoris:
        draft.set("target_modules", PRESETS.get(preset, "all"), "network_args")
        dim = str(rank) if dim in WITHOUT else dim
        if preset == "full":
            draft.differs("network_args preset=full", "conv_in, conv_out and the embeddings get no LoRA")
    elif dim not in WITHOUT:
        draft.set("target_modules", "all", "network_args")
    if draft.values["target_modules"] != "all":
        return
    if dim != str(rank):
        draft.set("rank_pattern", dict.fromkeys(CONVOLUTIONS, _int(draft, "conv_dim", dim)), "network_args")
    if _float(draft, "conv_alpha", conv_alpha) != _float(draft, "network_alpha", alpha):
        numbers = dict.fromkeys(CONVOLUTIONS, _float(draft, "conv_alpha", conv_alpha))
        draft.set("alpha_pattern", numbers, "network_args")


def _int(draft: Draft, name: str, value: Any) -> int:
    return int(_float(draft, name, value))


def _float(draft: Draft, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} in {draft.file} must be a number, not {shown(value)}: correct it") from None


def _optimizer(draft: Draft, given: Collection[str]) -> None:
    name = draft.said.get("optimizer_type")
    if name is None:
        name = "AdamW8bit" if draft.switch("use_8bit_adam") else "Lion" if draft.switch("use_lion_optimizer") else ""
    arguments = optimizers.pairs(draft, "optimizer_args", draft.items("optimizer_args"))
    if str(name or "AdamW").lower() == "adafactor":
        arguments = {"relative_step": True, **arguments}
    optimizers.read(draft, "optimizer_type", str(name or "AdamW"), arguments, "optimizer_args", given)


def _schedule(draft: Draft, given: Collection[str]) -> None:
    """lr_scheduler and what goes with it; what there is not is refused, unless lr_scheduler is `given` over it."""
    name, custom = draft.text("lr_scheduler"), draft.text("lr_scheduler_type")
    least, steps = draft.number("lr_scheduler_min_lr_ratio"), draft.values.get("max_train_steps")
    if custom or name not in (*SCHEDULERS, "cosine_with_min_lr", "warmup_stable_decay", "adafactor"):
        key = "lr_scheduler_type" if custom else "lr_scheduler"
        return draft.no_schedule(key, custom or name, given)
    if draft.get("lr_scheduler_args"):
        draft.drop("lr_scheduler_args", "it is for lr_scheduler_type")
    if name == "adafactor":
        draft.differs("lr_scheduler adafactor", "the rate is learning_rate, as warm as lr_warmup_steps says")
        name = "constant_with_warmup"
    if str(draft.values.get("optimizer", "")).endswith("_schedulefree") and name != "constant":
        draft.drop("lr_scheduler", "an optimizer that averages has none, in that script too", name)
        name = "constant"
    draft.set("lr_scheduler", "cosine" if name == "cosine_with_min_lr" else name, "lr_scheduler")
    _warmup(draft, steps)
    if name == "cosine_with_restarts":
        draft.set("lr_num_cycles", draft.get("lr_scheduler_num_cycles"), "lr_scheduler_num_cycles")
    if name == "polynomial":
        draft.set("lr_power", draft.get("lr_scheduler_power"), "lr_scheduler_power")
    if name in ("cosine_with_min_lr", "warmup_stable_decay") and least:
        draft.set("lr_min_ratio", least, "lr_scheduler_min_lr_ratio")
    if name == "warmup_stable_decay":
        _decay(draft, steps)
        if least and draft.number("lr_warmup_steps"):
            draft.differs("lr_warmup_steps", "it begins at 0, not at lr_scheduler_min_lr_ratio")


def _warmup(draft: Draft, steps: Any) -> None:
    """Warm-up in steps, or below 1 as a share: in steps where those of the run are known, cut as that script cuts."""
    amount = draft.number("lr_warmup_steps") or 0
    if not 0 < amount < 1:
        draft.set("lr_warmup_steps", draft.whole("lr_warmup_steps") or 0, "lr_warmup_steps")
    elif steps is not None:
        draft.set("lr_warmup_steps", int(amount * int(steps)), "lr_warmup_steps")
    else:
        draft.set("lr_warmup_ratio", amount, "lr_warmup_steps")


def _decay(draft: Draft, steps: Any) -> None:
    amount = draft.number("lr_decay_steps") or 0
    if amount >= 1 and steps is None:
        draft.drop("lr_decay_steps", "max_train_epochs says no number of steps: give --lr_decay_ratio", amount)
    else:
        draft.set("lr_decay_ratio", amount / int(steps) if amount >= 1 else amount, "lr_decay_steps")
