"""The optimizers that other trainers' files may name, and what of their arguments is taken: fixed lists.

In: a name and arguments as a file has them. Out: settings of ours. What is not in these lists is never handed on, so
that no foreign file has a class imported that its author chose.
"""

from ast import literal_eval
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ...system.errors import ConfigError
from .keys import Draft

OURS = {  # their names in small letters and without _ and blanks: ours
    "adamw": "adamw",
    "torch.optim.adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "bnb.adamw8bit": "adamw8bit",
    "bitsandbytes.optim.adamw8bit": "adamw8bit",
    "bnb-adamw8bit": "adamw8bit",
    "pagedadamw8bit": "paged_adamw8bit",
    "bnb-adamw8bit-paged": "paged_adamw8bit",
    "prodigy": "prodigy",
    "prodigyopt.prodigy": "prodigy",
    "adafactor": "adafactor",
    "transformers.optimization.adafactor": "adafactor",
    "lion": "lion",
    "lionpytorch.lion": "lion",
    "came": "came",
    "camepytorch.came": "came",
    "adamwschedulefree": "adamw_schedulefree",
    "schedulefree.adamwschedulefree": "adamw_schedulefree",
    "adamwschedulefree+": "adamw_schedulefree",
    "schedulefreeadamw": "adamw_schedulefree",
    "radamschedulefree": "radam_schedulefree",
    "schedulefree.radamschedulefree": "radam_schedulefree",
    "prodigyplusschedulefree": "prodigy_schedulefree",
    "prodigyplus.prodigyplusschedulefree.prodigyplusschedulefree": "prodigy_schedulefree",
    "prodigyplus.prodigyplusschedulefree": "prodigy_schedulefree",
}
NEARLY = {  # what is another optimizer of ours but for something that is said
    "adam": ("adamw", "AdamW is used, whose weight decay is not part of the gradient"),
    "adam8bit": ("adamw8bit", "AdamW is used, whose weight decay is not part of the gradient"),
    "pagedadamw": ("adamw", "its moments are not paged"),
    "pagedadamw32bit": ("adamw", "its moments are not paged"),
    "bnb-adamw": ("adamw", "PyTorch's AdamW is used"),
    "adamwbf16": ("adamw", "LoRA weights and moments are fp32 here, so there is nothing to round"),
    "optimi-adamw": ("adamw", "LoRA weights and moments are fp32 here, so PyTorch's AdamW is used"),
    "adamwadv": ("adamw", "of its variants AdamW itself is used"),
    "lion8bit": ("lion", "its moments have 32 bits"),
    "pagedlion8bit": ("lion", "its moments have 32 bits, and are not paged"),
    "bnb-lion": ("lion", "lion_pytorch's is used"),
    "bnb-lion8bit": ("lion", "its moments have 32 bits"),
    "optimi-lion": ("lion", "lion_pytorch's is used"),
    "torch.optim.muon": ("muon", "its steps are as large as AdamW's (adjust_lr_fn match_rms_adamw)"),
    "muon": ("muon", "torch's Muon is used for every layer, with steps as large as AdamW's"),
    "came8bit": ("came", "its moments have 32 bits"),
    "prodigyadv": ("prodigy", "of its variants Prodigy itself is used"),
    "prodigy8bit": ("prodigy", "its moments have 32 bits"),
}
# Arguments that are taken, by optimizer of ours; each is a number or true or false.
ADAM = ("weight_decay", "betas", "eps")
TAKEN = {
    "adamw": (*ADAM, "amsgrad"),
    "adamw8bit": ADAM,
    "paged_adamw8bit": ADAM,
    "prodigy": (
        *(*ADAM, "beta3", "decouple", "use_bias_correction", "safeguard_warmup"),
        *("d0", "d_coef", "growth_rate", "slice_p"),
    ),
    "adafactor": ("weight_decay", "scale_parameter", "clip_threshold", "decay_rate", "beta1", "eps"),
    "lion": ("weight_decay", "betas"),
    "came": ("weight_decay", "betas", "eps", "clip_threshold"),
    "muon": ("weight_decay", "momentum", "nesterov", "ns_steps"),
    "adamw_schedulefree": (*ADAM, "warmup_steps", "r", "weight_lr_power"),
    "radam_schedulefree": (*ADAM, "r", "weight_lr_power"),
    "prodigy_schedulefree": (
        *(*ADAM, "beta3", "d0", "d_coef", "d_limiter", "prodigy_steps", "schedulefree_c", "use_speed", "factored"),
        *("split_groups", "split_groups_mean", "factored_fp32", "use_bias_correction", "use_stableadamw"),
        *("use_cautious", "use_grams", "use_adopt", "use_orthograd", "use_focus", "stochastic_rounding"),
    ),
}
FIELDS = {  # of Prodigy, arguments that are settings of ours
    "beta3": "prodigy_beta3",
    "decouple": "prodigy_decouple",
    "use_bias_correction": "prodigy_use_bias_correction",
    "safeguard_warmup": "prodigy_safeguard_warmup",
}
OWN: dict[str, dict[str, Any]] = {  # what an optimizer does in its own library, and not by our defaults
    "prodigy": {"weight_decay": 0.0, "use_bias_correction": False, "safeguard_warmup": False},
    "muon": {"weight_decay": 0.1},
    "adafactor": {"weight_decay": 0.0, "scale_parameter": True},
}
ADAMS = ("adamw", "adamw8bit", "paged_adamw8bit", "prodigy")  # those that the adam_ settings are for
RELATIVE = ("relative_step", "warmup_init")


def read(draft: Draft, key: str, name: str, arguments: Mapping[str, Any], args_key: str, given: Collection[str]) -> str:
    """Set the optimizer of a draft, and what of its arguments is taken; its name among ours.

    Raises ConfigError for one that there is not, unless `optimizer` is given over the file.
    """
    spelled, ours = _spelled(name), named(name)
    if spelled in NEARLY:
        draft.differs(f"{key} {name}", NEARLY[spelled][1])
    if not ours:
        if "optimizer" not in given:
            raise ConfigError(_refusal(draft, key, name, spelled))
        draft.drop(key, "optimizer is given besides", name)
        if arguments:
            draft.drop(args_key, f"it is for {name}")
        return ""
    draft.set("optimizer", ours, key)
    _arguments(draft, ours, arguments, args_key)
    return ours


def named(name: str) -> str:
    """The optimizer of ours that a name means, or ""."""
    spelled = _spelled(name)
    return NEARLY[spelled][0] if spelled in NEARLY else OURS.get(spelled, "")


def _spelled(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")


def _refusal(draft: Draft, key: str, name: str, spelled: str) -> str:
    sure = ", ".join(TAKEN)
    advice = "prodigy finds its step size too" if spelled.startswith("dadapt") else f"there are {sure}"
    return f"{key} {name} in {draft.file} is no optimizer here: give --optimizer ({advice})"


def _arguments(draft: Draft, ours: str, arguments: Mapping[str, Any], key: str) -> None:
    """Take the arguments that are in the lists, and say the others."""
    if ours == "adafactor" and arguments.get("relative_step"):
        for name in ("learning_rate", "unet_lr", "text_encoder_lr"):  # which mean nothing there
            draft.values.pop(name, None)
        draft.differs(
            f"{key} relative_step",
            "Adafactor does not find its own rate, and is trained at the default one: give --learning_rate",
        )
    left: list[str] = []
    for name, value in {**OWN.get(ours, {}), **arguments}.items():
        if value is None or (ours == "adafactor" and name in RELATIVE):
            continue
        if name not in TAKEN[ours] or not _plain(value):
            draft.drop(f"{key} {name}", f"{ours} has no such argument that is taken from a file of another program")
        elif ours == "prodigy" and name in FIELDS:
            draft.set(FIELDS[name], value, key)
        elif name in ADAM and (ours in ADAMS or (ours, name) == ("adafactor", "weight_decay")):
            _adam(draft, name, value, key)
        elif (ours, name, value) != ("adafactor", "scale_parameter", False):  # as ours is anyway
            left.append(f"{name}={tuple(value) if isinstance(value, list) else value}")
    if left:
        draft.set("optimizer_args", left, key)


def _adam(draft: Draft, name: str, value: Any, key: str) -> None:
    if name == "betas":
        first, second = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        draft.set("adam_beta1", first, key)
        draft.set("adam_beta2", second, key)
    else:
        draft.set({"weight_decay": "adam_weight_decay", "eps": "adam_epsilon"}[name], value, key)


def _plain(value: Any) -> bool:
    """Whether a value is a number, a switch, or a few of those."""
    if isinstance(value, list | tuple):
        return 0 < len(value) <= 4 and all(_plain(item) and not isinstance(item, list | tuple) for item in value)
    return value is None or isinstance(value, bool | int | float)


def pairs(draft: Draft, key: str, items: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE each, as names and plain Python values. Raises ConfigError."""
    found: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.strip().strip(",").partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"{key} in {draft.file} must hold NAME=VALUE, not {item[:60]!r}: correct it")
        try:
            found[name] = literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = value.strip()
    return found
