"""Settings to begin with, for these pictures on this machine, each with its reason.

In: how many pictures there are, one of their captions, and the memory of the GPU if there is one. Out: a preset,
changes to it, and sentences.
"""

from typing import Any, NamedTuple

from ...config import presets
from ...config.train_config import TrainConfig
from ...system.gpus import may_have_gpu

VIEWS = 160  # of each picture: some five hundred steps of eight for twenty-five of them
FEWEST, MOST = 200, 2000  # steps
HELD_OUT, ENOUGH = 0.1, 20  # the share that is never trained on, once there are so many pictures
STAGES = 5  # looks at a run, each with pictures, held-out loss and a checkpoint


class Proposal(NamedTuple):
    """A preset, what is changed of it, and why."""

    preset: str
    changes: dict[str, Any]
    reasons: list[str]


def gpu_memory() -> int | None:
    """Bytes of the first GPU; None where there is none, for which PyTorch need not be imported."""
    if not may_have_gpu():
        return None
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


def proposed(pictures: int, memory: int | None, caption: str) -> Proposal:
    """What to begin with; `caption`, of one of them, is the first thing drawn."""
    preset, reason = _preset(memory)
    batch = TrainConfig.preset(preset)
    each = batch.train_batch_size * batch.gradient_accumulation_steps
    steps = min(max(round(pictures * VIEWS / each / 50) * 50, FEWEST), MOST)
    changes: dict[str, Any] = {"max_train_steps": steps, "checkpointing_steps": steps // STAGES}
    changes |= {"checkpoints_total_limit": None, "validation_prompt": [caption]}
    seen = steps * each / pictures
    reasons = [
        reason,
        f"{steps:,} steps of {each}, so that each of {pictures:,} pictures is seen some {seen:,.0f} times; every "
        f"{steps // STAGES:,} steps a picture, and a LoRA to take.",
    ]
    if pictures >= ENOUGH:
        changes["validation_split"] = HELD_OUT
        reasons.append("A tenth of the pictures is held out: their loss says which stage is best.")
    else:
        reasons.append(f"With fewer than {ENOUGH} pictures none is held out: your eyes say which stage is best.")
    return Proposal(preset, changes, reasons)


def _preset(memory: int | None) -> tuple[str, str]:
    if memory is None:
        return "tiny", (
            "There is no GPU here, so the tiny base is proposed. It learns in minutes and shows the way, but it knows "
            "plain coloured shapes alone: of photographs it makes mush."
        )
    size, fitting = memory / 1e9, presets.fitting(memory)
    if fitting is None:
        name = presets.names()[1]
        return name, f"The GPU here has {size:.0f} GB, less than any preset wants: {name} is the smallest."
    return fitting, f"The GPU here has {size:.0f} GB: {fitting} is the largest preset that it holds."
