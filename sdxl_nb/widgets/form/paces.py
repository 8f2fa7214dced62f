"""How long a run will take, known without counting: from an estimate made here, or from a run of before.

In: a TrainConfig and its steps. Out: seconds, and where they are from. Only what changes neither a step nor what
surrounds it may differ: how many steps, rates, names, the seed. Nothing is imported or measured for it.
"""

import socket
from pathlib import Path
from typing import Any, NamedTuple

from ...config.train_config import TrainConfig
from ...runs.run import Run
from ...system.errors import SdxlNbError

MOST, FEWEST = 20, 5  # runs of before that are looked at, and steps that say a pace
FREE = (  # settings that a step's time does not depend on
    *("output_dir", "output_name", "overwrite_output_dir", "resume_from_checkpoint", "seed", "trigger_word"),
    *("max_train_steps", "num_train_epochs", "checkpointing_steps", "checkpoints_total_limit"),
    *("learning_rate", "unet_lr", "text_encoder_lr", "loraplus_lr_ratio", "scale_lr", "lr_scheduler"),
    *("lr_warmup_steps", "lr_warmup_ratio", "lr_num_cycles", "lr_power", "lr_min_ratio", "lr_decay_ratio"),
    *("adam_beta1", "adam_beta2", "adam_weight_decay", "adam_weight_decay_text_encoder", "adam_epsilon"),
    *("lora_alpha", "max_grad_norm", "hub_model_id", "push_to_hub", "report_to", "logging_dir"),
)


class Pace(NamedTuple):
    """Seconds of a step and of all around the steps, and where they are from."""

    step: float
    around: float
    source: str

    def seconds(self, steps: int) -> float:
        return self.step * steps + self.around


class Paces:
    """`note` what an estimate said; `of` a configuration what is known."""

    def __init__(self) -> None:
        self._known: dict[str, Pace] = {}

    def note(self, config: TrainConfig, estimate: Any) -> None:
        """Keep the pace of an Estimate of this machine."""
        row = estimate.rows[0] if estimate.rows else None
        if row is not None and row.fits and row.seconds is not None:
            self._known[_kind(config)] = Pace(row.seconds, row.around, "the estimate")

    def of(self, config: TrainConfig) -> Pace | None:
        """The pace of this configuration: an estimate's, else that of the newest run beside its folder."""
        return self._known.get(_kind(config)) or _of_before(config)

    def forget(self) -> None:
        """Forget estimates: the pictures are others."""
        self._known.clear()


def _kind(config: TrainConfig) -> str:
    """Equal for configurations whose steps take as long."""
    return repr({name: value for name, value in config.model_dump().items() if name not in FREE})


def _of_before(config: TrainConfig) -> Pace | None:
    """The pace of the newest run on this machine, beside this one's folder, whose steps take as long."""
    place, wanted = Path(config.output_dir).absolute().parent, _kind(config)
    found = sorted(place.glob("*/events.jsonl"), key=lambda path: -path.stat().st_mtime)
    for path in found[:MOST]:
        try:
            run = Run.open(path.parent)
            if run.info.get("host") == socket.gethostname() and _kind(run.config) == wanted and (pace := _pace(run)):
                return pace
        except (SdxlNbError, OSError):
            continue  # it is no run that can be read, or goes just now
    return None


def _pace(run: Run) -> Pace | None:
    """What the last process of a run took, where it is over."""
    events = list(run.events())
    begun = max((place for place, event in enumerate(events) if event["event"] == "start"), default=len(events))
    steps = [event for event in events[begun:] if event["event"] == "step"]
    end = events[-1] if events and events[-1]["event"] == "end" else {}
    if len(steps) < FEWEST or not end.get("seconds"):
        return None
    each = float(steps[-1]["time"] - steps[0]["time"]) / (len(steps) - 1)
    return Pace(each, max(0.0, float(end["seconds"]) - each * len(steps)), f"the run {run.folder.name}")
