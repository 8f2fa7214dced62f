"""What a configuration will do, in sentences: steps, epochs, pictures, trainable parameters.

In: a TrainConfig, and the counts of its pictures where they are known. Out: lines for a person, or SdxlNbError where
this machine cannot train it.
"""

from ..config.checks import is_data_file
from ..config.train_config import TrainConfig
from ..system.errors import SdxlNbError
from ..training.epochs import Counts, drawing_share, steps_per_epoch, validation_pictures

TOO_FAST, TOO_OFTEN = 20, 1000  # times the usual rate; views of one picture
MUCH = 0.2  # of a run's work that its pictures may be without a word
MORE = "not set (a look with every checkpoint)"


def plan(config: TrainConfig, counts: Counts | None) -> list[str]:
    """Steps, epochs, saving and drawing in a line each; without the counts of pictures only what is sure."""
    steps = config.max_train_steps
    epochs: float | None = None if steps else config.num_train_epochs
    lines, in_all, share = [], "", 0.0
    if counts:
        an_epoch = steps_per_epoch(config, counts.entries)
        steps = steps or config.num_train_epochs * an_epoch
        epochs = steps / an_epoch
        batch = config.train_batch_size * config.gradient_accumulation_steps
        lines.append(
            f"{_seen(counts)} at {config.resolution} px{_else(config)}, {batch:,} a step: "
            f"{_many(an_epoch, 'step')} an epoch."
        )
        in_all = f": {validation_pictures(config, steps, an_epoch):,} in all"
        share = drawing_share(config, steps, an_epoch)
    said = [_many(steps, "step") if steps else "", _many(epochs, "epoch") if epochs else ""]
    long = (" is " if steps == 1 else " are ").join(filter(None, said))
    lines.append(f"{long}; a checkpoint {_every(config.checkpointing_steps, 'step')}.")
    if pictures := config.drawings():
        drawn = _many(len(pictures), "validation picture")
        often = _often(config)
        lines.append(f"{drawn} before the first step, {often} and at the end{in_all}.")
        if share > MUCH:
            lines.append(
                f"Drawing them is about {share:.0%} of the whole work: {_less(config)}, or fewer pictures, take less."
            )
    else:
        lines.append("No validation pictures: give validation_prompt to see it learn.")
    lines.append(f"Everything goes to {config.output_dir}.")
    return lines


def _often(config: TrainConfig) -> str:
    """When pictures are drawn on the way."""
    if config.validation_steps is not None:
        return _every(config.validation_steps, "step")
    if config.validation_share is not None:
        return f"after every {config.validation_share:.3g} of the run"
    return "with every checkpoint" if config.validation_epochs is None else _every(config.validation_epochs, "epoch")


def _less(config: TrainConfig) -> str:
    """What would have fewer pictures drawn."""
    for name in ("validation_steps", "validation_share"):
        if getattr(config, name) is not None:
            return f"a larger {name}"
    return f"validation_epochs {MORE}" if config.validation_epochs else "a larger checkpointing_steps"


def _else(config: TrainConfig) -> str:
    """What a resolution is without where a data file may have another for its folders."""
    listed = is_data_file(config.train_data_dir) or is_data_file(config.dataset_name)
    return " where the data file has no other" if listed else ""


def _many(number: float, thing: str) -> str:
    """1 step, 1,200 steps, 64.3 epochs, less than 0.1 epochs."""
    if number < 0.05:
        return f"less than 0.1 {thing}s"
    digits = f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
    return f"{digits} {thing}{'s' * (number != 1)}"


def _every(number: int, thing: str) -> str:
    return f"every {thing}" if number == 1 else f"every {number:,} {thing}s"


def _seen(counts: Counts) -> str:
    """The pictures in words, and why an epoch sees more or less of them."""
    more = [f"{counts.held_out:,} of them held out"] if counts.held_out else []
    if counts.entries != counts.pictures - counts.held_out:
        more.append(f"with repeats {counts.entries:,} an epoch")
    return _many(counts.pictures, "picture") + (f" ({', '.join(more)})" if more else "")


def expectations(config: TrainConfig) -> list[str]:
    """What must be looked up: trainable parameters. Raises SdxlNbError where this machine cannot train it."""
    from ..config.machine import Machine, check_machine
    from ..lora.sizes import trainable_parameters

    machine = Machine.here()
    check_machine(config, machine)
    if machine.device == "cpu" and not config.pretrained_model_name_or_path.startswith("embedded:"):
        raise SdxlNbError(
            "There is no GPU here, and real SDXL takes days on a CPU: launch it on a machine that has one, or choose "
            "the preset tiny."
        )
    return [f"{trainable_parameters(config):,} trainable parameters."]


def remarks(config: TrainConfig, counts: Counts | None) -> list[str]:
    """What seldom makes sense, in sentences: nothing is refused for it."""
    tiny, said = config.pretrained_model_name_or_path.startswith("embedded:"), []
    usual = 4.5e-3 if tiny else 1e-4
    if config.optimizer_name() != "prodigy" and config.learning_rate > TOO_FAST * usual:
        said.append(
            f"learning_rate {config.learning_rate:g} is {config.learning_rate / usual:,.0f} times what is usual here "
            f"({usual:g}): training falls apart at such a rate."
        )
    if tiny and config.train_data_dir:
        said.append(
            "The tiny base knows plain coloured shapes alone: of photographs it makes mush. Take a preset for SDXL."
        )
    if counts:
        an_epoch = steps_per_epoch(config, counts.entries)
        steps = config.max_train_steps or config.num_train_epochs * an_epoch
        seen = (
            steps * min(config.train_batch_size * config.gradient_accumulation_steps, counts.entries) / counts.entries
        )
        if seen > TOO_OFTEN:
            said.append(f"Each picture is seen {seen:,.0f} times; beyond {TOO_OFTEN:,} a LoRA knows it by heart.")
    return said
