"""ConfigForm: every setting of a run with its sentence, checked while one types.

In: a TrainConfig, or nothing. Out: `form.config`, a valid TrainConfig or the ConfigError that says why there is none,
and the same as Python, as flags and as a file. `form.table()` is the plain twin. What is typed goes over the preset as
flags do, so that a changed base model brings its own VAE and a folder replaces the data set.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import traitlets
from IPython.display import HTML as Table
from ipywidgets import HTML, Button, Dropdown, HBox, Layout, Text, VBox

from ...config import presets
from ...config.fields import about
from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...runs.run import Run
from ...system.errors import ConfigError
from ..parts.aria import Aria
from ..parts.fold import Fold
from ..parts.hearing import hear_at_once
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, check_traits
from .editors import HINT, INPUT, NAME, Editor, same
from .outlook import Outlook, settings_table
from .start import Start
from .takeaway import Takeaway

GIVEN = "as given"
GIVEN_MEANS = "Starts from the configuration that the form was made with. Another preset keeps what you typed."
PLACES = ("output_dir", "output_name")  # that no preset moves
OWN = (  # of who has own pictures, as well
    *("train_data_dir", "trigger_word", "validation_prompt", "sample_prompts", "validation_split"),
)
OPEN = (  # what a person changes; the rest is folded
    "pretrained_model_name_or_path",
    "dataset_name",
    "train_data_dir",
    "output_dir",
    "resolution",
    "mixed_precision",
    "rank",
    "learning_rate",
    "train_batch_size",
    "max_train_steps",
    "num_train_epochs",
    "validation_prompt",
)
ALSO_OPEN = {about(TrainConfig.model_fields[name])["group"] for name in OPEN}


class ConfigForm(Twin, VBox):
    """A form over a TrainConfig; see the module. `value`, `preset`, `edits` and `problems` are its state."""

    value = traitlets.Instance(TrainConfig, allow_none=True, help="The configuration, or None while it has problems.")
    preset = traitlets.Unicode(GIVEN, help="The preset that the edits go over, or: as given.")
    edits = traitlets.Dict(help="What was typed, by field.")
    problems = traitlets.Dict(help="What is wrong, a sentence by field.")

    def __init__(self, config: TrainConfig | None = None, **traits: Any):
        check_traits(type(self), traits, also=("config",))
        if not isinstance(config, TrainConfig | None):
            advice = 'ConfigForm(preset="tiny") starts from a preset, TrainConfig.load(file) reads a file'
            raise TypeError(f"ConfigForm takes a TrainConfig, not {shown(config)}: {advice}")
        super().__init__()
        self.add_class("sdxl-nb")
        self._base = self._given = self._shown = config or TrainConfig()
        self._notice = Notice()
        guard = self._notice.guard
        self.start = Start(lambda: self.config, self._moved)
        self._outlook = Outlook(guard(self._mark), self.start.foretell, self.start.pace)
        self._takeaway = Takeaway(guard, self._notice.say, self._notice.fail)
        self._editors = {name: Editor(name, guard(self._typed)) for name in TrainConfig.model_fields}
        self._build()
        self.observe(guard(lambda change: self._choose()), "preset")
        self.observe(guard(lambda change: self._check()), "edits")
        self._reset.on_click(guard(lambda button: self.set_trait("edits", {})))
        self._check()
        for name, value in traits.items():
            setattr(self, name, value)

    def _build(self) -> None:
        """Put the editors into the open part and the folded groups."""
        look = {"style": {"description_width": NAME}, "layout": Layout(width=INPUT, max_width="100%")}
        self._presets = Dropdown(options=[GIVEN, *presets.names()], description="preset", **look)
        traitlets.link((self, "preset"), (self._presets, "value"))
        self._about = HTML(layout=Layout(flex="1 1 140px"))
        self._reset = Button(description="Reset", icon="undo", tooltip="Forget everything typed")
        self._reset.layout.width = "90px"
        hear_at_once(self._presets, self._reset)  # as Start is, and all that is typed
        groups: dict[str, list[Editor]] = {}
        for name, field in TrainConfig.model_fields.items():
            if name not in OPEN:
                groups.setdefault(about(field)["group"], []).append(self._editors[name])
        self._groups = groups
        self._folds = {group: Fold(group, partial(_rows, editors)) for group, editors in groups.items()}
        self._find = Text(description="find", placeholder="a word, then Enter", continuous_update=False, **look)
        self._find.tooltip = "In names and sentences of all settings, folded ones too"
        self._find.observe(self._notice.guard(lambda change: self._look_for(change["new"])), "value")
        self._found = Notice(layout=Layout(flex=HINT))
        find = HBox([self._find, self._found], layout=Layout(flex_flow="row wrap", grid_gap="0 12px"))
        find.add_class("sdxl-nb-row")
        top = HBox([self._presets, self._about, self._reset], layout=Layout(flex_flow="row wrap", grid_gap="0 12px"))
        top.add_class("sdxl-nb-row")
        rows = [*(self._editors[name].row for name in OPEN), *self._folds.values()]
        self.children = [
            style_sheet(),
            Aria(),
            top,
            find,
            *rows,
            self._outlook,
            self.start,
            self._takeaway,
            self._notice,
        ]

    @property
    def config(self) -> TrainConfig:
        """The configuration as it stands. Raises ConfigError with what is wrong, as `problems` has it."""
        if self.value is None:
            error = ConfigError(next(iter(self.problems.values())))
            error.problems = dict(self.problems)
            raise error
        return self.value

    @property
    def run(self) -> Run | None:
        """The run that Start has started, or found; None before."""
        return self.start.run

    def _moved(self, folder: str) -> None:
        """A run goes to another folder: it is shown as typed, and said."""
        self.edits = {**self.edits, "output_dir": folder}
        self._notice.say(f"output_dir is {folder} now: the folder before it holds a run, which stays.")

    def _choose(self) -> None:
        """Start from the preset chosen, keeping what was typed."""
        given = self._given
        stay = {name: getattr(given, name) for name in (*PLACES, *(OWN if given.train_data_dir else ()))}
        stay = {name: value for name, value in stay.items() if value is not None}
        self._base = given if self.preset == GIVEN else TrainConfig.preset(self.preset, **stay)
        self._shown = self._base
        self._check()

    def _look_for(self, words: str) -> None:
        """Show the settings that hold each of these words, wherever they are; without a word all, folded as before."""
        wanted = words.lower().split()
        found = {name for name, editor in self._editors.items() if editor.holds(wanted)}
        for name in OPEN:
            self._editors[name].shown = name in found
        for group, editors in self._groups.items():
            some, fold = bool(wanted) and any(e.name in found for e in editors), self._folds[group]
            fold.layout.display = None if some or not wanted else "none"
            fold.unfolded = some or (not wanted and fold.wrong)
            for editor in editors:
                editor.shown = editor.name in found
        self._found.say("" if found else f"No setting has “{words}” in its name or its sentence.")

    def _typed(self, name: str) -> None:
        """Keep what one input holds now, unless the field would have that value anyway."""
        edits = {other: value for other, value in self.edits.items() if other != name}
        try:
            without = self._base.replace(**edits)
        except ConfigError:
            without = self._base
        typed = self._editors[name].read()
        self.edits = edits if same(typed, getattr(without, name)) else edits | {name: typed}

    def _check(self) -> None:
        """Judge base and edits together, and show the result everywhere."""
        with self._outlook.lock:
            try:
                config, problems = self._base.replace(**self.edits), {}
                self._shown = config
            except ConfigError as error:
                config, problems = None, error.problems
            with self.hold_trait_notifications():
                self.value, self.problems = config, problems
            for name, editor in self._editors.items():
                editor.show(self.edits.get(name, getattr(self._shown, name)))
            preset = None if self.preset == GIVEN else self.preset
            self._about.value = f'<div class="sdxl-nb-hint">{presets.describe(preset) if preset else GIVEN_MEANS}</div>'
            self._outlook.show(config, problems)
            self.start.button.disabled = config is None
            self._takeaway.show(config, preset)
            self._mark()

    def _mark(self) -> None:
        """Mark at each field, and at each folded group, what is changed or wrong; called again once pictures are seen.

        Pictures that cannot be trained on are no problem of the configuration, but of the folder or data set it names.
        """
        with self._outlook.lock:
            problems = dict(self.problems)
            if self.value and (fault := self._outlook.fault):
                problems["train_data_dir" if self.value.train_data_dir else "dataset_name"] = fault
            for name, editor in self._editors.items():
                editor.mark(edited=name in self.edits, problem=problems.get(name))
            for group, editors in self._groups.items():
                changed, wrong = (sum(e.name in known for e in editors) for known in (self.edits, problems))
                said = [f"{n} {word}" for n, word in ((changed, "changed"), (wrong, "to be mended")) if n]
                title = " · ".join([f"more {group}" if group in ALSO_OPEN else group, *said])
                self._folds[group].mark(title, bool(wrong))

    def table(self) -> Any:
        """The settings that differ from the defaults, as an HTML table without a widget. Raises ConfigError."""
        return settings_table(self.config)

    def twin(self) -> Any:
        """The table, or what is to be mended before there is one."""
        return self.table() if self.value else Table(self._outlook.value)


def _rows(editors: Sequence[Editor]) -> list[HBox]:
    return [editor.row for editor in editors]
