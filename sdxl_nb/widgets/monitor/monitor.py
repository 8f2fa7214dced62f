"""RunMonitor: a run while it goes on, or as it was: progress, losses, pictures, log, Stop and Resume.

In: a Run, or the folder of one; whether it trains in this kernel, in another process, on several or elsewhere, its
folder is all that is read. Out: a widget that a thread keeps up to date. Closing it, or the kernel, stops no run;
`RunMonitor(Run.open(folder))` shows the whole history again. `monitor.figure()` is the plain twin.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

import traitlets
from ipywidgets import HTML, Button, FloatProgress, HBox, Layout, VBox

from ...runs.run import GOING_ON, Run
from ..parts.aria import Aria
from ..parts.hearing import hear_at_once
from ..parts.theme import style_sheet
from ..parts.twin import Twin
from ..parts.watching import Notice, Worker, check_traits, run_of
from .bell import Bell
from .log import Log
from .newest import Newest
from .readings import announcement, gpus, headline, numbers, progress, stopping
from .sights import Curve

if TYPE_CHECKING:
    from ...system.figures import Sheet

OFTEN, SHARE = 1.0, 0.05  # seconds between two looks, and the share of one core that looking may take at most
SETTLED, RARELY = 180.0, 60.0  # seconds after which a run that is over is looked at seldom, and between two looks then
COLOURS = {"running": "info", "completed": "success", "stopped": "warning", "failed": "danger", "interrupted": "danger"}


class RunMonitor(Twin, VBox):
    """Watches a run; see the module. `status`, `step`, `steps` and `error` are its state."""

    status = traitlets.Unicode(help="What `run.status` says.")
    step = traitlets.Int(0, help="Optimizer steps done.")
    steps = traitlets.Int(0, help="Optimizer steps asked for; 0 before that is known.")
    error = traitlets.Unicode(help="Why the run failed, or why it cannot be watched.")
    interval = traitlets.Float(OFTEN, min=0.05, help="Seconds between two looks at a run that goes on.")

    def __init__(self, run: Run | str, **traits: Any):
        self._wake, self._closed = threading.Event(), False
        check_traits(type(self), traits, also=("run",))
        self.run = run_of(type(self), run)
        super().__init__()
        self.add_class("sdxl-nb")
        self._notice, self._work, self._lock = Notice(), Worker(), threading.RLock()
        self._seen: tuple[object, ...] | None = None
        self._known: tuple[str | None, str] | None = None
        self._troubled = self._priced = False
        self._changed = time.monotonic()
        self._build()
        for name, value in traits.items():
            setattr(self, name, value)
        self.refresh()
        threading.Thread(target=self._watch, daemon=True).start()

    def _build(self) -> None:
        self._headline, self._numbers, self._gpus, self._log = HTML(), HTML(), HTML(), Log()
        self._announced = HTML(layout=Layout(height="0", margin="0"))
        self._bar = FloatProgress(max=1.0, layout=Layout(width="auto"))
        self._curve, self._drawn = Curve(), Newest(self._notice.guard)
        self._stop = Button(description="Stop", icon="stop", tooltip="Keep what is done, and end")
        where = "Go on from the newest checkpoint, or without one from the beginning"
        self._resume = Button(description="Resume", icon="play", tooltip=where)
        self._stop.on_click(self._notice.guard(lambda button: self.stop()))
        self._resume.on_click(self._notice.guard(lambda button: self.resume()))
        self._draw_now = self._wish("Draw now", "paint-brush", "Validation pictures after this step", "draw_now")
        self._save_now = self._wish("Save now", "save", "Keep a checkpoint and its LoRA after this step", "save_now")
        hear_at_once(self._stop, self._resume, self._draw_now, self._save_now)
        self._bell = Bell()
        pressed = [self._stop, self._resume, self._draw_now, self._save_now, self._bell, self._notice]
        buttons = HBox(pressed, layout=Layout(flex_flow="row wrap", align_items="center"))
        self.children = [
            *(style_sheet(), Aria(), self._announced, self._headline, self._bar, buttons),
            *(self._drawn, self._numbers, self._gpus, self._curve, self._log),
        ]

    def _wish(self, words: str, icon: str, about: str, wish: str) -> Button:
        """A button that asks the run for something while it goes on."""
        button = Button(description=words, icon=icon, tooltip=about)
        button.on_click(self._notice.guard(lambda button: self._ask(wish)))
        return button

    def refresh(self) -> None:
        """Look at the run now, and show what is new."""
        self.run.refresh()  # what may take its time is fetched while buttons are heard
        with self._lock:
            before = self.status
            self._show()
            self._curve.follow(self.run, self.status)
            self._tell(self.run.trouble)
        if before in GOING_ON and self.status not in GOING_ON:
            self.renew()  # what a page without a kernel shows from now on

    def _show(self) -> None:
        run = self.run
        status = run.status
        share, said = progress(run, status)
        log = self._log.follow(run)
        self._gpus.value = gpus(run, status)
        seen = (self._id(), status, said, run.step, log, len(list(run.events())))
        if seen == self._seen:
            return
        if self.status in GOING_ON and status not in GOING_ON:
            self._notice.say("")  # what was said of stopping has come true
            self._bell.text = f"{run.folder.name}: {status} at step {run.step:,}"
        elif status in GOING_ON:
            self._bell.text = ""
        self._bell.layout.display = None if status in GOING_ON else "none"
        if self.status != status:
            self._changed, self._priced = time.monotonic(), False
        self.status, self.step, self.steps = status, run.step, run.steps or 0
        self.error = run.error or ""
        self._announced.value = announcement(status)
        self._headline.value = headline(self.status, said, self.error, str(run.folder.absolute()))
        self._bar.value, self._bar.bar_style = share, COLOURS.get(self.status, "info")
        self._stop.disabled, self._resume.disabled = (
            self.status not in GOING_ON,
            self.status in (*GOING_ON, "completed"),
        )
        self._draw_now.disabled = self._save_now.disabled = self.status != "running"
        self._numbers.value = numbers(run)
        self._drawn.show(run)
        self._seen, self._known = seen, (self._id(), status)

    def _id(self) -> str | None:
        """What tells a run from one that was in the same folder before it."""
        return self.run.info.get("id")

    def _tell(self, trouble: Exception | None) -> None:
        """Show what looking failed with, and take it away when it has passed."""
        if trouble:
            self._notice.fail(trouble)
        elif self._troubled:
            self._notice.say("")
        self._troubled = trouble is not None

    def _watch(self) -> None:
        """Look again and again until the widget is closed; what goes wrong is shown, and looking goes on."""
        spent = 0.0  # seconds of a core that the last look took
        while True:
            self._wake.wait(max(self._pause(), spent / SHARE))
            self._wake.clear()
            if self._closed:
                return
            begun = time.thread_time()
            try:
                if not self._rests() or (self._id(), self.run.status) != self._known:
                    self.refresh()
            except Exception as error:
                self._tell(error)
            spent = time.thread_time() - begun

    def _rests(self) -> bool:
        """Whether the run has been over for long, and all that there is has come."""
        over = self.status not in GOING_ON and not self._troubled
        return over and time.monotonic() > self._changed + SETTLED

    def _pause(self) -> float:
        """Seconds until the next look."""
        often = max(self.interval, self.run.interval) * (1 if self.status in GOING_ON else 3)
        return max(often, RARELY) if self._rests() else often

    def close(self) -> None:
        """Stop looking; the run goes on."""
        self._closed = True
        self._wake.set()
        super().close()

    def stop(self) -> None:
        """Ask the run to keep what is done, and end; where it is over already, say so."""
        with self._lock:
            self._stop_it()

    def _stop_it(self) -> None:
        self._stop.disabled = True
        if (status := self.run.status) not in GOING_ON:
            self.refresh()
            self._notice.say(f"There was nothing to stop: the run was {status} before.")
            return
        self._notice.say(stopping(self.run))  # first: it may be over at once, and then this is taken away
        self.run.stop()

    def _ask(self, wish: str) -> None:
        """Ask the run for pictures or a checkpoint, which come after its current step."""
        with self._lock:
            getattr(self.run, wish)()
            what = "Pictures are drawn" if wish == "draw_now" else "A checkpoint is saved"
            self._notice.say(f"{what} after the current step.")

    def resume(self) -> None:
        """Go on from the newest checkpoint in a process of its own; where that costs money, only the second time."""
        with self._lock:
            self._resume.disabled = True
            self._notice.say("Resuming ...")
        self._work.start(self._notice.guard(self._resumed))

    def _resumed(self) -> None:
        said: list[str] = []
        try:
            if not self._priced and (price := self.run.price):
                self._priced = True
                self._notice.say(f"{price} Press Resume once more to start it.")
                return
            self.run = self.run.resume(say=said.append)  # on SageMaker it is another job
            self._notice.say(" ".join(said))
        finally:
            self._seen = None  # the buttons, whatever came of it
            self.refresh()
            self._wake.set()

    def twin(self) -> "Sheet | Run":
        """The curves, or before the first step the run's table."""
        return self.figure() if self.run.step else self.run

    def figure(self) -> "Sheet":
        """The curves as a matplotlib Figure."""
        return self.run.plot()
