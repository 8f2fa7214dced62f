"""Which modules of a base get LoRA layers, from a word, a list of peft's names, or a pattern.

In: `target_modules` of a TrainConfig, and the models' own module names. Out: what peft's LoraConfig takes; ConfigError
for a name that no module has.
"""

import re
from collections.abc import Iterable, Mapping

from torch import nn

from ..config.train_config import TrainConfig
from ..system.errors import ConfigError
from .base import Module, module_of

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
# The convolutions that sd-scripts and LyCORIS train: resnets and samplers, with the time projection between them.
CONVOLUTION = [
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
]
UNET_TARGETS = {
    "attention": ATTENTION,
    "attention+ff": ATTENTION + FEED_FORWARD,
    "all": ATTENTION + FEED_FORWARD + CONVOLUTION,
}
TEXT_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]
TEXT_TARGETS = {
    "attention": TEXT_ATTENTION,
    "attention+ff": [*TEXT_ATTENTION, "fc1", "fc2"],
    "all": [*TEXT_ATTENTION, "fc1", "fc2"],
}


def target_modules(value: str | Iterable[str], unet: nn.Module) -> list[str] | str:
    """The U-Net's `target_modules` for peft's LoraConfig, from a word, a list of peft names or a regular expression.

    attention: to_q, to_k, to_v, to_out.0 (diffusers' script); attention+ff: also the feed-forward layers and the
    transformers' proj_in and proj_out; all: also the convolutions and time projections of the residual blocks and
    samplers, as in sd-scripts. conv_in, conv_out and the embeddings are hit only when named. ConfigError if a name
    or the expression matches nothing, or matches a layer that LoRA cannot be put on.
    """
    names = {name: module_of(module) for name, module in unet.named_modules() if name}
    if isinstance(value, str) and value not in UNET_TARGETS:
        try:
            hits = [name for name in names if re.fullmatch(value, name)]
        except re.error as error:
            raise ConfigError(f"target_modules {value!r} is neither {_words()} nor a regular expression.") from error
        _check_hits(value, hits, names)
        return value
    wanted = UNET_TARGETS[value] if isinstance(value, str) else list(value)
    for target in wanted:
        if isinstance(value, str):
            continue  # a preset: a base without, say, conv_shortcut is fine
        if target not in _text_names():
            _check_hits(target, [name for name in names if _matches(name, target)], names)
    return list(wanted)


def text_target_modules(value: str | Iterable[str]) -> list[str]:
    """The text encoders' `target_modules`: by the same words; a list's own CLIP names, else the attention."""
    if isinstance(value, str):
        return list(TEXT_TARGETS.get(value, TEXT_ATTENTION))
    return [name for name in value if name in _text_names()] or list(TEXT_ATTENTION)


def _words() -> str:
    return ", ".join(repr(word) for word in UNET_TARGETS)


def check_patterns(config: TrainConfig, names: Iterable[str]) -> None:
    """ConfigError for a name in rank_pattern or alpha_pattern that no LoRA layer (of these module names) matches."""
    names = [inside(name) for name in names]
    for field_name in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, field_name) or {}:
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):  # as peft matches
                raise ConfigError(f"{field_name}: {pattern!r} matches no layer that gets LoRA; see target_modules.")


def _text_names() -> list[str]:
    return [*TEXT_TARGETS["all"], "text_projection"]


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _check_hits(target: str, hits: list[str], modules: Mapping[str, Module | None]) -> None:
    if not hits:
        raise ConfigError(f"target_modules: {target!r} matches no module of the U-Net; use {_words()} or peft names.")
    if wrong := [name for name in hits if modules[name] is None]:
        raise ConfigError(f"target_modules: {target!r} matches {wrong[0]}, which is no linear or convolution layer.")


def inside(name: str) -> str:
    return name.removeprefix("_orig_mod.").removeprefix("base_model.model.")
