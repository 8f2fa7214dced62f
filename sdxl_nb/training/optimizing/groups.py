"""What is learned at which rate: the trained layers divided into groups that share one.

In: a TrainConfig and the FlatParameters. Out: Groups, each of layers that learn at a factor of the run's own learning
rate, which schedules.py gives, with one weight decay. A layer belongs to the first `lr_pattern` that its name matches,
else to its model; LoRA+ divides each again into its down and up matrices.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...config.train_config import TrainConfig
from ...system.errors import ConfigError
from ..state.parameters import FlatParameters

# B-LoRA (arXiv 2403.14572) learns a picture's content and its style in two blocks of SDXL; the paths are its code's
BLOCKS = {
    "content": r"unet\.up_blocks\.0\.attentions\.0\..*",
    "style": r"unet\.up_blocks\.0\.attentions\.1\..*",
}
ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Group:
    """`members` are places in flat.parameters; `rate` is the learning rate after warm-up, before scale_lr."""

    name: str
    rate: float
    decay: float
    stops: bool = False  # as train_text_encoder_frac says
    members: tuple[int, ...] = ()


def groups(config: TrainConfig, flat: FlatParameters) -> list[Group]:
    """The groups that learn, in the order of their first layers; what has rate 0 is in none of them.

    ConfigError for a pattern that no layer matches, and when nothing is left to learn.
    """
    found: dict[Group, tuple[list[str], list[int]]] = {}
    used: set[str] = set()
    for place, name in enumerate(flat.names):
        pattern = next((p for p in config.lr_pattern or {} if _matches(p, name)), None)
        used |= {pattern} if pattern else set()
        group = _group(config, name, pattern)
        names, members = found.setdefault(replace(group, name=""), ([], []))
        names += [group.name] if group.name not in names else []
        members.append(place)
    for pattern in config.lr_pattern or {}:
        if pattern not in used:
            raise ConfigError(f"lr_pattern: {pattern!r} matches no layer that gets LoRA; see target_modules.")
    learning = [
        replace(group, name=", ".join(names), members=tuple(members))
        for group, (names, members) in found.items()
        if group.rate
    ]
    if not learning:
        raise ConfigError("Every learning rate is 0, so nothing learns: raise unet_lr, text_encoder_lr or lr_pattern.")
    return learning


def _group(config: TrainConfig, name: str, pattern: str | None) -> Group:
    """The group of a parameter, without members."""
    model = name.partition(".")[0]
    encoder = model in ENCODERS
    called = pattern or (model if encoder else "unet")
    rate = _rate(config, model) if pattern is None else (config.lr_pattern or {})[pattern]
    if config.loraplus_lr_ratio is not None and ".lora_B." in name:
        called, rate = f"{called} up", rate * config.loraplus_lr_ratio
    other = config.adam_weight_decay_text_encoder if encoder else None
    stops = encoder and config.train_text_encoder_frac < 1
    return Group(called, rate, config.adam_weight_decay if other is None else other, stops)


def _rate(config: TrainConfig, model: str) -> float:
    given = config.unet_lr
    if model in ENCODERS:
        both = config.text_encoder_lr or [config.learning_rate]
        given = both[min(ENCODERS.index(model), len(both) - 1)]
    return config.learning_rate if given is None else given


def _matches(pattern: str, name: str) -> bool:
    """As peft matches rank_pattern, the model's name in front; `name` is that of a weight."""
    module = re.sub(r"\.((lora|hada|lokr)_[A-Za-z]\w*)(\..*)?$", "", name)
    return re.match(rf"(.*\.)?({BLOCKS.get(pattern, pattern)})$", module) is not None


def last_step_of_encoders(config: TrainConfig, steps: int) -> int | None:
    """The optimizer steps after which the text encoders stay as they are; None when they learn to the end."""
    share = config.train_text_encoder_frac
    return int(share * steps) if config.train_text_encoder and share < 1 else None


def rates(groups: list[Group], config: TrainConfig, rate: Callable[[int], float], step: int) -> list[float]:
    """The learning rate of each group at an optimizer step, where the run's own is `rate` of it."""
    own, base = rate(step), config.learning_rate
    return [own if group.rate == base else own * (group.rate / base) for group in groups]


def told(groups: list[Group], last: int | None) -> str | None:
    """The line that says at which rate what learns; None where there is but one."""
    if len({group.rate for group in groups}) == 1 and last is None:
        return None
    until = "" if last is None else f", until step {last}"
    parts = [f"{group.name} {group.rate:g}{until if group.stops else ''}" for group in groups]
    return f"Learning rates: {'; '.join(parts)}."


def idle(names: Sequence[str], groups: list[Group], last: int | None) -> list[str]:
    """The models whose layers, `names` of all weights, learn nothing in the whole run: rate 0, or stopped at once."""
    learning = {names[place] for group in groups if not (group.stops and last == 0) for place in group.members}
    models = dict.fromkeys(name.partition(".")[0] for name in names)
    return [model for model in models if not any(name.startswith(f"{model}.") for name in learning)]
