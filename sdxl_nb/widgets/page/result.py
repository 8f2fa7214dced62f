"""What came of a run: its stages side by side, the one to keep starred, and its file to take home.

In: a run, and the project that remembers the star. Out: a list of the stages whose LoRA is there, a star, a download,
and the grid of all of them.
"""

import threading
from html import escape

from ipywidgets import HTML, Button, Dropdown, HBox, Layout, VBox

from ...runs.run import GOING_ON, Run
from ...runs.stages import Stages
from ...system.errors import SdxlNbError
from ..grid.grid import ValidationGrid
from ..parts.children import replace
from ..parts.downloads import DownloadButton
from ..parts.hearing import hear_at_once
from ..parts.watching import Notice
from .folder import ProjectFolder


class Result(VBox):
    """`show` a run; `refresh` when it has more stages."""

    def __init__(self, project: ProjectFolder):
        self._project = project
        self._run: Run | None = None
        self._grid: ValidationGrid | None = None
        self._lock = threading.RLock()  # a thread offers a new stage while a person presses
        self._by_hand, self._hushed = False, False  # whether somebody chose the stage, and whether we do just now
        self._notice, self._said = Notice(), HTML()
        self._stage = Dropdown(description="Stage", layout=Layout(width="430px", max_width="100%"))
        self._star = Button(description="Star it", icon="star", tooltip="Remember this stage as the one to keep")
        self._star.on_click(self._notice.guard(lambda button: self.star()))
        self._download = DownloadButton("Download the LoRA", "lora.safetensors", self._read, self._notice.fail)
        self._download.layout.margin = "2px"  # as the other controls have it
        self._stage.observe(lambda change: self._name(), "value")
        self._place = VBox()
        tools = HBox([self._stage, self._star, self._download], layout=Layout(flex_flow="row wrap"))
        super().__init__([self._said, tools, self._notice, self._place])
        hear_at_once(self._stage, self._star, self._download)  # in the order in which they are pressed

    def show(self, run: Run) -> None:
        """Show this run's stages; the one that is starred, or else the best, is chosen."""
        if self._run is None or run.folder != self._run.folder:
            self._run, self._grid = run, ValidationGrid(run)
            replace(self._place, [self._grid])
        self.refresh()

    def refresh(self) -> None:
        """Look which stages there are now."""
        with self._lock:
            if self._run is not None:
                self._offer(self._run)

    def _offer(self, run: Run) -> None:
        stages, chosen, starred = Stages(run), self._stage.value, self._project.star
        kept, best = stages.steps_with_lora(), stages.best()
        measured = best in stages.heldout()
        options = [(_words(step, step == starred, measured and step == best), step) for step in kept]
        if tuple(options) != tuple(self._stage.options):
            wanted = chosen if self._by_hand and chosen in kept else starred if starred in kept else best
            self._hushed = True
            self._stage.options, self._stage.value = options, wanted if kept else None
            self._hushed = False
        self._star.disabled = self._download.disabled = not kept
        self._said.value = f"<b>{_told(run, kept)}</b>{_next(run) if kept else ''}"

    def star(self) -> None:
        """Remember the stage that is chosen."""
        with self._lock:
            step = self._project.star = self._stage.value
            self.refresh()
        self._notice.say(f"Step {step} is starred; it is chosen when you open the project again.")

    def _name(self) -> None:
        """Somebody chose a stage, or we did: the download is called after it."""
        self._by_hand = self._by_hand or not self._hushed
        if self._run is not None and self._stage.value is not None:
            self._download.filename = f"{self._run.config.lora_name()}-step{self._stage.value}.safetensors"

    def _read(self) -> bytes:
        with self._lock:
            if self._run is None or self._stage.value is None:
                raise SdxlNbError("There is no LoRA yet: wait for the first checkpoint.")
            return Stages(self._run).lora_file(self._stage.value).read_bytes()


def _words(step: int, starred: bool, best: bool) -> str:
    more = " ★ starred" if starred else ""
    return f"step {step:,}{more}{' · lowest held-out loss' if best else ''}"


def _next(run: Run) -> str:
    """What to do with it now."""
    word = run.config.trigger_word
    calls = f", and write <b>{escape(word)}</b> in the prompt" if word else ""
    return (
        '<div class="sdxl-nb-hint">Look at the stages below, star the one you like, download it, and put it where your '
        f"program looks for LoRAs (ComfyUI: models/loras; A1111 and Forge: models/Lora){calls}.</div>"
    )


def _told(run: Run, kept: list[int]) -> str:
    """What happened, in one sentence."""
    status, many = run.status, f"{len(kept)} stage{'s' * (len(kept) != 1)} can be taken"
    if status in GOING_ON:
        return f"The run goes on; {many} already."
    return f"The run was {status} at step {run.step:,} of {run.steps or 0:,}; {many}."
