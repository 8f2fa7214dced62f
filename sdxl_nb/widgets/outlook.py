"""What will happen if a configuration is launched, in a few lines below the form, and its settings as a table.

In: a TrainConfig, valid or not. Out: a widget that says what is wrong, or steps, epochs, pictures and trainable
parameters, with a button for what `estimate` expects of memory, time and price. Looking at pictures and models takes a
moment, so it is done aside.
"""

from html import escape
from typing import Any

from IPython.display import HTML as Table
from ipywidgets import HTML, Button, VBox

from ..config import TrainConfig
from ..epochs import Counts, count_pictures, steps_per_epoch, validation_pictures
from ..errors import SdxlNbError
from .watching import Notice, Worker

DATA = (  # the settings that the counts of pictures depend on
    *("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "caption_column", "max_train_samples"),
    *("trigger_word", "folder_repeats", "validation_split"),
)


class Outlook(VBox):
    """One framed block of text; `show` says what is known at once, and what must be looked up when it is."""

    def __init__(self) -> None:
        self._text, self._table, self._notice = HTML(), HTML(), Notice()
        self._button = Button(description="Estimate memory, time and price", icon="calculator")
        self._button.tooltip = "For this machine and for SageMaker instances; takes some seconds"
        self._button.layout.width = "280px"
        self._button.on_click(lambda button: self._work.start(self._notice.guard(self.estimate)))
        super().__init__([self._text, self._button, self._table, self._notice])
        self._work, self._counts = Worker(), {}
        self._newest: TrainConfig | None = None

    @property
    def value(self) -> str:
        """The text shown, as HTML."""
        return self._text.value

    def show(self, config: TrainConfig | None, problems: dict[str, str]) -> None:
        """Say what the configuration will do, or how many settings are to be mended."""
        if config is not None and config == self._newest:
            return
        self._newest, self._table.value = config, ""  # an estimate is one of the settings it was made for
        self._notice.say("")
        self._button.disabled = config is None
        if config is None:
            self._text.value = _framed("To be mended before this can train", list(problems.values()), wrong=True)
            return
        self._say(config, [])
        self._work.start(lambda: self._look(config))

    def estimate(self) -> None:
        """Show what `estimate` expects. Raises SdxlNbError."""
        from ..preflight import estimate

        config = self._newest
        self._notice.say("Counting ...")
        table = estimate(config)._repr_html_()
        if config is self._newest:
            self._table.value = table
            self._notice.say("")

    def wait(self, timeout: float | None = None) -> None:
        """Wait until everything is looked up."""
        self._work.wait(timeout)

    def _say(self, config: TrainConfig, more: list[str]) -> None:
        lines = plan(config, self._counts.get(_key(config)))
        self._text.value = _framed("What will happen", [*lines, *more])

    def _look(self, config: TrainConfig) -> None:
        """What takes a moment; an answer that comes too late for what is typed by then is not shown."""
        try:
            if _key(config) not in self._counts and is_here(config):
                self._counts[_key(config)] = count_pictures(config)
            more, wrong = expectations(config), []
        except SdxlNbError as error:
            more, wrong = [], [str(error)]
        except Exception as error:
            more, wrong = [], [f"{type(error).__name__}: {error}"]
        if config is self._newest:
            self._say(config, more)
            if wrong:
                self._text.value += _framed("Not on this machine", wrong, wrong=True)


def is_here(config: TrainConfig) -> bool:
    """Whether the pictures can be counted without fetching anything."""
    folder = config.train_data_dir
    return "://" not in folder if folder else str(config.dataset_name).startswith("embedded:")


def plan(config: TrainConfig, counts: Counts | None) -> list[str]:
    """Steps, epochs, saving and drawing in a line each; without the counts of pictures only what is sure."""
    steps, epochs = config.max_train_steps, None if config.max_train_steps else config.num_train_epochs
    lines, in_all = [], ""
    if counts:
        an_epoch = steps_per_epoch(config, counts.entries)
        steps = steps or epochs * an_epoch
        epochs = steps / an_epoch
        batch = config.train_batch_size * config.gradient_accumulation_steps
        lines.append(f"{_said(counts)} at {config.resolution} px, {batch} a step: {an_epoch:,} steps an epoch.")
        in_all = f": {validation_pictures(config, steps, an_epoch):,} in all"
    said = [f"{steps:,} steps" if steps else "", f"{epochs:,.4g} epochs" if epochs else ""]
    lines.append(f"{' are '.join(filter(None, said))}; a checkpoint every {config.checkpointing_steps:,} steps.")
    if config.validation_prompt:
        drawn = len(config.validation_prompt) * config.num_validation_images
        often = "every epoch" if config.validation_epochs == 1 else f"every {config.validation_epochs} epochs"
        lines.append(f"{drawn} validation pictures before the first step, {often} and at the end{in_all}.")
    else:
        lines.append("No validation pictures: give validation_prompt to see it learn.")
    lines.append(f"Everything goes to {config.output_dir}.")
    return lines


def _said(counts: Counts) -> str:
    """The pictures in words, and why an epoch sees more or less of them."""
    more = [f"{counts.held_out:,} of them held out"] if counts.held_out else []
    if counts.entries != counts.pictures - counts.held_out:
        more.append(f"with repeats {counts.entries:,} an epoch")
    return f"{counts.pictures:,} pictures" + (f" ({', '.join(more)})" if more else "")


def expectations(config: TrainConfig) -> list[str]:
    """What must be looked up: trainable parameters. Raises SdxlNbError where this machine cannot train it."""
    from ..lora.sizes import trainable_parameters
    from ..machine import Machine, check_machine

    machine = Machine.here()
    check_machine(config, machine)
    if machine.device == "cpu" and not config.pretrained_model_name_or_path.startswith("embedded:"):
        raise SdxlNbError(
            "There is no GPU here, and real SDXL takes days on a CPU: launch it on a machine that has one, or choose "
            "the preset tiny."
        )
    return [f"{trainable_parameters(config):,} trainable parameters."]


def _key(config: TrainConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, name) for name in DATA)


def _framed(title: str, lines: list[str], *, wrong: bool = False) -> str:
    items = "".join(f"<div>{escape(line)}</div>" for line in lines)
    kind, role = ("sdxl-nb-plan sdxl-nb-wrong", "alert") if wrong else ("sdxl-nb-plan", "status")
    return f'<div class="{kind}" role="{role}"><b>{title}</b>{items}</div>'


def settings_table(config: TrainConfig) -> Table:
    """The settings that differ from the defaults, with their sentences, as an HTML table."""
    fields = TrainConfig.model_fields
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(str(value))}</td>"
        f"<td style='text-align:left'>{escape(fields[name].description)}</td></tr>"
        for name, value in config.essentials().items()
    )
    return Table(f"<table>{rows}</table>")
