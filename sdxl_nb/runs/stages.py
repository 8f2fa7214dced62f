"""A run stage by stage: what it drew, what its held-out loss was, and the LoRA it had; drawn at other scales, shipped.

In: a Run. Out: `Stages`, which the grid shows and which needs no widget: pictures as files, a PictureGrid, and a
folder with the LoRA of the stage that one has chosen. A stage is an optimizer step at which pictures were drawn, or
whose LoRA is there.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config.layout import LORA, checkpoints, step_of
from ..config.train_config import TrainConfig
from ..drawing.generation import Cell, PictureGrid, load_base
from ..drawing.samples import draw
from ..system.errors import SdxlNbError
from .run import Run

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..system.figures import Sheet

FULL = 1.0  # the scale that training itself draws with


class Row(NamedTuple):
    """One line of the grid: a prompt by its number, and a seed."""

    number: int
    prompt: str
    seed: int


class Stages:
    """The stages of a run, read anew at every call: a run that goes on gets more of them."""

    def __init__(self, run: Run):
        self.run = run

    @property
    def begun(self) -> bool:
        """Whether the run has written its settings: one that still starts, or waits for a machine, has not."""
        return (self.run.folder / "config.json").is_file()

    def steps(self) -> list[int]:
        """The optimizer steps with pictures, 0 among them, ascending."""
        return [step for step, pictures in self.run.pictures().items() if pictures]

    def rows(self) -> list[Row]:
        """Prompts and seeds as the run draws them, prompt by prompt; none before the run has written its settings."""
        if not self.begun:
            return []
        return [Row(drawing.number, drawing.line, drawing.seed) for drawing in self.run.config.drawings()]

    def heldout(self) -> dict[int, float]:
        """The held-out loss by step, where the run measured it."""
        return {event["step"]: event["loss"] for event in self.run.events("heldout") if event.get("loss") is not None}

    def lora_folder(self, step: int) -> Path | None:
        """The folder with the LoRA of this step: a checkpoint, or the run's own at its end; None if gone.

        A checkpoint that is elsewhere is fetched. Raises AwsError when that fails.
        """
        folder = self.run.folder / f"checkpoint-{step}"
        if folder in checkpoints(self.run.folder):
            return folder
        return self.run.folder if step == self._last_step() else self.run.fetch_lora(step)

    def _last_step(self) -> int | None:
        """The step of the run's own LoRA, which it leaves at its end."""
        ends = [event["step"] for event in self.run.events("lora")]
        return ends[-1] if ends and (self.run.folder / LORA).is_file() else None

    def steps_with_lora(self) -> list[int]:
        """The steps whose LoRA is still there, with pictures or not; nothing is fetched for it."""
        kept = {*map(step_of, checkpoints(self.run.folder)), *self.run.checkpoints_elsewhere(), self._last_step()}
        return sorted(step for step in kept if step is not None)

    def best(self) -> int | None:
        """The step of lowest held-out loss among those with a LoRA; the last of them where none was measured."""
        kept = self.steps_with_lora()
        return lowest(self.heldout(), kept) or (kept[-1] if kept else None)

    def path(self, step: int, row: Row, scale: float = FULL) -> Path:
        """Where the picture of a step, row and scale lies, or will; step 0 is the base, whatever the scale."""
        folder = self.run.folder / "validation" / f"step-{step}"
        if step and scale != FULL:
            folder /= f"scale-{scale:g}"
        return folder / f"{row.number:02d}-{row.seed}.png"

    def written(self, step: int, row: Row, scale: float = FULL) -> int | None:
        """When the picture of a step, row and scale was written, in nanoseconds; None where it was not drawn."""
        try:
            return self.path(step, row, scale).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def missing(self, scale: float, among: Iterable[int] | None = None) -> list[int]:
        """The steps, of all or of some, that lack pictures at this scale and whose LoRA is there to draw them."""
        rows, steps = self.rows(), self.steps() if among is None else among
        lacking = [s for s in steps if not all(self.path(s, row, scale).is_file() for row in rows)]
        kept = self.steps_with_lora()
        return [step for step in lacking if step and step in kept]

    def draw(
        self,
        scale: float,
        base: Any = None,
        progress: Callable[[int, int], None] | None = None,
        among: Iterable[int] | None = None,
    ) -> list[Path]:
        """Draw what is `missing` at this scale, as the run's own validation does; returns the new pictures.

        `base` is a ready pipeline, or None to load the run's base. Raises ModelError when a file cannot be used.
        """
        config, rows = self.run.config, self.rows()
        made: list[Path] = []
        steps = self.missing(scale, among)
        base = base or (loaded(config) if steps else None)
        for done, step in enumerate(steps, start=1):
            grid = draw(base, self.lora_folder(step), config.drawings(), scale)
            made += [_write(grid.at(row.prompt, 0, row.seed), self.path(step, row, scale)) for row in rows]
            if progress:
                progress(done, len(steps))
        return made

    def grid(self, scale: float = FULL, steps: Iterable[int] | None = None) -> PictureGrid:
        """The pictures there are, as a PictureGrid whose columns are steps with their held-out loss."""
        from PIL.Image import open as open_picture

        heldout = self.heldout()
        found: dict[Cell, Image] = {}
        for step in self.steps() if steps is None else steps:
            label = _label(step, heldout)
            for row in self.rows():
                if (path := self.path(step, row, scale)).is_file():
                    with open_picture(path) as picture:
                        found[Cell(row.prompt, label, row.seed)] = picture.copy()
        return PictureGrid(found)

    def figure(self, steps: Sequence[int], scale: float = FULL) -> "Sheet":
        """These steps as a matplotlib Figure: a column for each, its held-out loss above, a row a prompt and seed."""
        from ..system.figures import picture_in, picture_sheet

        heldout = self.heldout()
        rows = [[picture_in(self.path(step, row, scale)) for step in steps] for row in self.rows()]
        above = [_label(step, heldout) for step in steps]
        beside = [f"{row.prompt}\nseed {row.seed}" for row in self.rows()]
        return picture_sheet(rows or [["no prompt"] * len(steps)], above=above, beside=beside)

    def lora_file(self, step: int) -> Path:
        """The LoRA of a step as ComfyUI, AUTOMATIC1111 and diffusers read it. Raises SdxlNbError when it is gone."""
        return self._kept(step) / f"{self.run.config.lora_name()}.safetensors"

    def _kept(self, step: int) -> Path:
        """The folder with the LoRA of this step; SdxlNbError when it is gone."""
        if (folder := self.lora_folder(step)) is not None:
            return folder
        kept = ", ".join(map(str, self.steps_with_lora()))
        there = f"there are those of steps {kept}" if kept else "no step has one any more"
        raise SdxlNbError(f"The LoRA of step {step} was not kept; {there}.")

    def ship(self, step: int, folder: str | os.PathLike[str]) -> Path:
        """Copy the LoRA of a step, its pictures and a card into a new folder; returns the folder.

        Raises SdxlNbError when the step has no LoRA any more, or the folder holds something already.
        """
        goal, source = Path(folder), self._kept(step)
        if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
            raise SdxlNbError(f"{goal} is there already: name a new folder for the LoRA of step {step}.")
        draft = goal.with_name(f".{goal.name}.{os.getpid()}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            self._fill(draft, step, source)
            if goal.is_dir():
                goal.rmdir()  # it is empty
            draft.rename(goal)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return goal

    def _fill(self, folder: Path, step: int, source: Path) -> None:
        from .card import write_card

        config = self.run.config
        for file in (LORA, f"{config.lora_name()}.safetensors"):
            shutil.copy2(source / file, folder / file)
        for shown in {0, step} & set(self.steps()):
            pictures = self.run.folder / "validation" / f"step-{shown}"
            shutil.copytree(pictures, folder / "validation" / pictures.name, ignore=shutil.ignore_patterns("scale-*"))
        losses = [loss for at, loss in zip(*self.run.losses(), strict=True) if at <= step and loss is not None][-50:]
        start: dict[str, Any] = next(self.run.events("start"), {})
        loss = sum(losses) / len(losses) if losses else None
        write_card(config, folder, steps=step, pictures=start.get("pictures", 0), loss=loss)
        chosen = {"run": self.run.info["id"], "step": step, "heldout_loss": self.heldout().get(step)}
        (folder / "chosen.json").write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def lowest(losses: Mapping[int, float], steps: Iterable[int]) -> int | None:
    """The step of lowest loss among these; None where none of them has one."""
    return min((step for step in steps if step in losses), key=losses.__getitem__, default=None)


def loaded(config: TrainConfig) -> Any:
    """A pipeline of the run's own base that draws as its validation does, on the GPU if there is one."""
    from ..models.objective.base_objective import of_config
    from ..models.sources import Source

    return load_base(Source.of(config), of_config(config), config.clip_skip)


def _label(step: int, heldout: Mapping[int, float]) -> str:
    return f"step {step}" + (f"\nheld-out {heldout[step]:.4f}" if step in heldout else "")


def _write(picture: "Image", path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    picture.save(draft, format="PNG")
    draft.replace(path)
    return path
