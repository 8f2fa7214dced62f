"""Start: from a configuration to its run, watched right there; a run that lies in the folder already is never lost.

In: what gives the configuration, and what is told of another folder. Out: a button, what is asked where the folder
holds a run (go on, a new folder, replace), and the monitor of the run. It trains in a process of its own.
"""

from collections.abc import Callable
from typing import Any

import traitlets
from ipywidgets import HTML, Button, HBox, Layout, VBox

from ...config.train_config import TrainConfig
from ...runs.folder import new_folder
from ...runs.launcher import launch
from ...runs.run import GOING_ON, Run
from ...system.errors import SdxlNbError
from ..monitor.monitor import RunMonitor
from ..monitor.readings import duration
from ..parts.children import replace
from ..parts.hearing import hear_at_once
from ..parts.watching import Notice, Worker

ABOUT = "Train with these settings, here, in a process of its own"


class Start(VBox):
    """`begin` is what the button does; `run` is what came of it. `moved(folder)` is told where a run goes instead."""

    foretold = traitlets.Unicode(help="What the button says of time and price, once they were estimated.")
    source = traitlets.Unicode(help="Where that is from, if not from an estimate of just this.")
    run = traitlets.Instance(Run, allow_none=True, help="The run that was started, or found.")

    def __init__(self, config: Callable[[], TrainConfig], moved: Callable[[str], object], watch: bool = True):
        self._config, self._moved, self._watch = config, moved, watch
        self._notice, self._work, self._starting = Notice(), Worker(), False
        self.button = Button(description="Start", icon="play", button_style="primary", layout=Layout(width="auto"))
        self.button.tooltip = ABOUT
        self.button.on_click(self._notice.guard(lambda button: self.begin()))
        self._goes_on = self._asks("Go on with it", "play", self.go_on)
        self._other = self._asks("Start in a new folder", "folder", self.elsewhere)
        self._replace = self._asks("Replace it", "trash", self.over)
        self._question, self._place = VBox(), VBox()
        super().__init__([HBox([self.button, self._notice]), self._question, self._place])
        self.layout.margin = "2px 0 8px"
        hear_at_once(self.button, self._goes_on, self._other, self._replace)

    def _asks(self, words: str, icon: str, action: Callable[[], object]) -> Button:
        button = Button(description=words, icon=icon, layout=Layout(width="auto"))
        button.on_click(self._notice.guard(lambda button: action()))
        return button

    def foretell(self, estimate: Any) -> None:
        """Put the time that it takes here, and a price, onto the button, from an Estimate; None takes them away."""
        row = estimate.rows[0] if estimate else None
        words = "" if row is None or not row.hours else f" · about {duration(row.hours * 3600)}"
        price = row.cost(row.machine.hourly) if row else None
        lacks = " · does not fit into memory here" if row is not None and not row.fits else ""
        self.foretold, self.source = lacks or f"{words}{f', ${price:,.2f}' if price else ''}", ""

    def pace(self, seconds: float, source: str) -> None:
        """Put the time onto the button that is known without an estimate, and where from into its tooltip."""
        self.foretold, self.source = f" · about {duration(seconds)}", source

    @traitlets.observe("foretold", "source")
    def _told(self, change: Any) -> None:
        self.button.description = f"Start{self.foretold}"
        self.button.tooltip = f"{ABOUT}; the time is by the pace of {self.source}" if self.source else ABOUT

    def begin(self) -> None:
        """Start, or ask what is to become of the run that lies in the folder. Raises ConfigError.

        What is pressed while a run starts does nothing: it is not in its folder yet.
        """
        if self._starting:
            return
        config = self._config()
        there = found(config.output_dir)
        if there is None:
            self._launch(config)
        elif there.status in GOING_ON:
            self._notice.say("This run is going on already.")
            self._show(there)
        else:
            self._ask(there)

    def _ask(self, there: Run) -> None:
        status = there.status
        words = (
            f"{there.folder} holds a run already: it was {status} at step {there.step}. Nothing of it is lost unless "
        )
        text = HTML(f"<div role='alert'>{words}you replace it.</div>")
        choices = [self._other, self._replace] if status == "completed" else [self._goes_on, self._other, self._replace]
        self._question.children = [text, HBox(choices, layout=Layout(flex_flow="row wrap"))]

    def go_on(self) -> None:
        """Go on with the run that is there, with its own settings."""
        there = found(self._config().output_dir)
        if there is None:
            return self._launch(self._config())
        return self._start(lambda: there.resume(say=self._notice.say))

    def elsewhere(self) -> None:
        """Start in the next free folder, and say where."""
        config = self._config()
        folder = new_folder(config.output_dir)
        self._moved(folder)
        self._launch(config.replace(output_dir=folder))

    def over(self) -> None:
        """Replace the run that is there."""
        self._launch(self._config().replace(overwrite_output_dir=True))

    def _launch(self, config: TrainConfig) -> None:
        self._start(lambda: launch(config, say=self._notice.say))

    def _start(self, action: Callable[[], Run]) -> None:
        """Do it aside, for it may take ten seconds; the button waits meanwhile."""
        self._starting = True
        self._question.children, self.button.disabled = [], True
        self._notice.say("Starting ...")

        def begun() -> None:
            try:
                run = action()
                self._notice.say("")
                self._show(run)
            finally:
                self._starting = self.button.disabled = False

        self._work.start(self._notice.guard(begun))

    def _show(self, run: Run) -> None:
        if self._watch:
            replace(self._place, [RunMonitor(run)])
        self.run = run

    def wait(self, timeout: float | None = None) -> None:
        """Wait until what was pressed is done."""
        self._work.wait(timeout)


def found(folder: str) -> Run | None:
    """The run in a folder, None where there is none."""
    try:
        run = Run.open(folder)
        run.status  # noqa: B018 - raises for what is none
        return run
    except SdxlNbError:
        return None
