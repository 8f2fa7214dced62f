"""One training run seen from outside: its events, status, curve, pictures and LoRA, and how to stop and resume it.

In: a run folder (a run in this kernel, in another process, or of last week look the same), or what stands for one
elsewhere. Out: plain values, a matplotlib Figure, and a small card in a notebook. Nothing here imports torch.
"""

import contextlib
import html
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdxl_nb

from ..config.layout import DRAW, LORA, SAVE, checkpoints, drawings
from ..system.errors import SdxlNbError
from .events import EventReader, noted
from .process import SILENCE, Launched, alive, is_heard_of, is_taken
from .starting import begin

if TYPE_CHECKING:
    from ..config.train_config import TrainConfig
    from ..lora.files.file import LoraFile
    from ..system.figures import Sheet

GOING_ON = ("starting", "running")
RECENT = 50  # steps that the averages look back on
TAIL = 64_000  # bytes of a log that its last lines are looked for in
JOB = re.compile(
    r"(?=.*\d)[A-Za-z0-9]+(-+[A-Za-z0-9]+)+"
)  # a SageMaker job's name: words and a number, hyphens between


class Run:
    """A run folder: `Run.open("output")`."""

    interval = 0.0  # seconds that must pass between two looks, where looking costs something
    trouble: Exception | None = None  # why the last `refresh` failed, which is no failure of the run
    price: str | None = None  # what it costs to `resume`, where it costs anything

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self._reader = EventReader(self.folder / "events.jsonl")

    @classmethod
    def open(cls, place: str | os.PathLike[str]) -> "Run":
        """The run in a folder, an s3:// prefix or a SageMaker job, running or over. Raises SdxlNbError for none."""
        if (Path(place) / "sagemaker.json").is_file():  # what is here is a copy of a job's
            job: Run = sdxl_nb.JobRun.at(place)
            return job
        if (Path(place) / "run.json").is_file() or Launched(Path(place)).file.is_file():
            return cls(place)
        name = os.fspath(place)
        if name.startswith(("s3://", "arn:")) or (JOB.fullmatch(name) and not Path(name).exists()):
            elsewhere: Run = sdxl_nb.open_run(name)
            return elsewhere
        raise SdxlNbError(f"There is no run in {place}: give the output_dir of one (it holds run.json).")

    def refresh(self) -> None:
        """Fetch what is new of a run that is elsewhere; one on this machine needs no fetching."""

    def checkpoints_elsewhere(self) -> list[int]:
        """The steps of the checkpoints whose LoRA `fetch_lora` can bring; a run on this machine has none."""
        return []

    def fetch_lora(self, step: int) -> Path | None:
        """The folder with the LoRA of a checkpoint that is elsewhere, fetched for it; None if there is none."""
        return None

    @property
    def info(self) -> dict[str, Any]:
        """`run.json`: id, pid, host, when it started, the configuration's fingerprint, status; empty before that."""
        return noted(self.folder / "run.json")

    @property
    def status(self) -> str:
        """starting, running, completed, stopped, failed, or interrupted (its process is gone without a word)."""
        if launched := Launched(self.folder).status():
            return launched
        info = self.info
        if not info:
            raise SdxlNbError(f"There is no run in {self.folder} any more: it was moved or deleted.")
        status: str = info["status"]
        if status == "running" and not self._goes_on(info):
            status = self.info["status"].replace("running", "interrupted")  # or it ended between the two looks
        return status

    @property
    def error(self) -> str | None:
        """Why the run failed, or was interrupted, in one sentence; None when neither."""
        status = self.status
        if status == "interrupted":
            return self._how_it_went()
        launched = Launched(self.folder)
        if status == "failed" and launched.status():
            return launched.error()
        return self._last("end").get("error") if status not in GOING_ON else None

    def _how_it_went(self) -> str:
        """The sentence about a run whose process is gone."""
        newest, host = self._newest_checkpoint(), self.info["host"]
        goes_on = f"resume goes on from {newest.name}" if newest else "there is no checkpoint yet to go on from"
        if host != socket.gethostname():
            return f"Nothing was heard of it, or of its machine {host}, for {SILENCE / 60:.0f} minutes; {goes_on}."
        word = Launched(self.folder).last_word(self.info["started"])
        how = f"gone, and the last it said was: {word}" if word else "gone without a word, killed or out of memory"
        return f"The process is {how}; {goes_on}."

    def _newest_checkpoint(self) -> Path | None:
        return next(reversed(checkpoints(self.folder)), None)

    def _goes_on(self, info: dict[str, Any]) -> bool:
        if info["host"] != socket.gethostname():
            return is_heard_of(self.folder, self.folder / "run.json", self.folder / "events.jsonl")
        try:
            return is_taken(self.folder)
        except OSError:  # a folder one may only read
            return alive(info["pid"])

    @property
    def config(self) -> "TrainConfig":
        """The TrainConfig of the run. Raises SdxlNbError where there is none yet."""
        from ..config.train_config import TrainConfig

        if asked := Launched(self.folder).config():
            return asked.replace(overwrite_output_dir=False)
        if not (self.folder / "config.json").is_file():
            raise SdxlNbError(f"The run in {self.folder} has no config.json: it has not begun yet, or was moved.")
        return TrainConfig.load(self.folder / "config.json")

    @property
    def preparing(self) -> str:
        """What a run that starts is doing, in words."""
        asked = Launched(self.folder).config()
        base = asked.pretrained_model_name_or_path if asked else ""
        away = base and not base.startswith("embedded:") and not Path(base).expanduser().exists()
        here = f"{_downloaded(base, asked.cache_dir) / 1e9:.1f} GB of it are here" if asked and away else ""
        loading = f"loading {base}, which is downloaded the first time ({here})" if away else "loading the model"
        return f"looking at the pictures, then {loading}"

    def _read(self) -> list[dict[str, Any]]:
        """The events so far, none of a run that this one is about to replace."""
        return [] if Launched(self.folder).replaces() else self._reader()

    def events(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """The events so far, oldest first, all or of one kind; asked again, only what is new is read."""
        return (e for e in self._read() if kind in (None, e["event"]))

    def _last(self, kind: str) -> dict[str, Any]:
        return next((e for e in reversed(self._read()) if e["event"] == kind), {})

    def losses(self) -> tuple[list[int], list[float | None]]:
        """Optimizer steps and their training losses, None where one was no number."""
        points = [(e["step"], e["train_loss"]) for e in self.events("step")]
        return [s for s, _ in points], [loss for _, loss in points]

    def heldout(self) -> tuple[list[int], list[float]]:
        """Optimizer steps and the loss on pictures that are never trained on."""
        points = {e["step"]: e["loss"] for e in self.events("heldout") if e.get("loss") is not None}
        return list(points), list(points.values())

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        done: int = self._last("step").get("step") or self._last("start").get("step", 0)
        return done

    @property
    def steps(self) -> int | None:
        """Optimizer steps asked for; None before that is known."""
        return self._last("start").get("steps")

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds that a step takes on the clock, checkpoints and pictures counted in, over the last steps."""
        steps: list[dict[str, Any]] = []
        for event in reversed(self._read()):
            if event["event"] == "start" or len(steps) > RECENT:
                break  # a pause between two processes is no training time
            if event["event"] == "step":
                steps.append(event)
        if len(steps) > 1:
            return float(steps[0]["time"] - steps[-1]["time"]) / (len(steps) - 1)
        return steps[0]["seconds"] if steps else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step at the present pace; None when unknown or over."""
        pace = self.seconds_per_step
        return None if pace is None or not self.steps or self.status != "running" else pace * (self.steps - self.step)

    @property
    def log_file(self) -> Path | None:
        """The file of what the run prints, which grows line by line; None before it has begun."""
        path = self.folder / "log.txt"
        return path if not Launched(self.folder).status() and path.is_file() else None

    def log(self, lines: int = 20) -> str:
        """The last lines that the run printed; before it has begun, those of its process."""
        begun = not Launched(self.folder).status() and (self.folder / "log.txt").exists()
        file = "log.txt" if begun else "process.txt"
        try:
            with open(self.folder / file, "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]  # of a bar its last state
        return "\n".join("\n".join(shown).rstrip().split("\n")[-lines:])

    @property
    def lora(self) -> "LoraFile":
        """The finished LoRA, or that of the newest checkpoint."""
        from ..lora.files.file import LoraFile

        final, newest = self.folder / LORA, self._newest_checkpoint()
        if final.is_file() or newest is None:
            return LoraFile(self.folder)
        return LoraFile(newest)

    def pictures(self) -> dict[int, list[Path]]:
        """Validation pictures by optimizer step, sorted by prompt and seed."""
        if Launched(self.folder).replaces():
            return {}
        return {step: sorted(folder.glob("*.png")) for step, folder in drawings(self.folder).items()}

    def stop(self) -> None:
        """Ask the run to save its state and end after the current step; one that encodes or still starts, at once."""
        if self.status == "starting":
            Launched(self.folder).end()
        elif self.status == "running":
            (self.folder / "stop").touch()

    def draw_now(self) -> None:
        """Ask the run for validation pictures after the current step. Raises SdxlNbError where it cannot draw any."""
        if self.status == "running" and not self.config.drawings():
            raise SdxlNbError(f"The run in {self.folder} has no validation_prompt: there is nothing for it to draw.")
        self._ask(DRAW)

    def save_now(self) -> None:
        """Ask the run for a checkpoint after the current step. Raises SdxlNbError where it is not running."""
        self._ask(SAVE)

    def _ask(self, wish: str) -> None:
        if (status := self.status) != "running":
            raise SdxlNbError(f"The run in {self.folder} is {status}: only one that is running draws or saves now.")
        (self.folder / wish).touch()

    def resume(self, num_processes: int | None = None, *, say: Callable[[str], object] = print) -> "Run":
        """Go on from the newest checkpoint in a new process, on as many processes as before; returns this run.

        Without a checkpoint it starts from the beginning; `say` is as in `launch`. Raises SdxlNbError when the run
        goes on or is completed, or the process fails at its start.
        """
        if (status := self.status) in GOING_ON:
            raise SdxlNbError(f"The run in {self.folder} is {status}: there is nothing to resume.")
        if status == "completed":
            raise SdxlNbError(
                f"The run in {self.folder} is completed: to train longer, launch its config with more steps and "
                "another output_dir."
            )
        launched, processes = Launched(self.folder), self._last("start").get("processes", 1)
        config = launched.config()
        if config:  # it never began: the same once more
            processes = launched.about().get("processes", processes)
        else:
            config = self.config.replace(resume_from_checkpoint="latest")
        begin(config.replace(output_dir=str(self.folder)), num_processes or processes, say=say)
        return self

    def wait(self, timeout: float | None = None, interval: float = 0.5) -> str:
        """Wait until the run is over and return its status; TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.status) in GOING_ON:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The run in {self.folder} is still going after {timeout:g} s.")
            time.sleep(interval)
        return status

    def plot(self) -> "Sheet":
        """The loss, raw and smoothed, as a matplotlib Figure."""
        from .plots import loss_figure

        return loss_figure(self)

    def validation_figure(self) -> "Sheet":
        """Validation pictures: one row a prompt and seed, one column a step."""
        from .plots import validation_figure

        return validation_figure(self)

    def summary(self) -> dict[str, Any]:
        """The few numbers one asks for first."""
        steps, losses = self.losses()
        last = [loss for loss in losses[-50:] if loss is not None]
        end = self._last("end")
        return {
            "status": self.status,
            "folder": str(self.folder),
            "steps": steps[-1] if steps else 0,
            "loss": round(sum(last) / len(last), 4) if last else None,
            "minutes": round(end["seconds"] / 60, 1) if "seconds" in end else None,
            "error": self.error,
        }

    def __repr__(self) -> str:
        known = {name: value for name, value in self.summary().items() if value is not None}
        return f"Run({', '.join(f'{name}={value}' for name, value in known.items())})"

    def _repr_html_(self) -> str:
        rows = ((name, value) for name, value in self.summary().items() if value is not None)
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
        return f"<table>{cells}</table>"


def _downloaded(base: str, cache_dir: str | None) -> int:
    """Bytes of a model of the hub that are on this machine, files that are still being fetched counted in."""
    from huggingface_hub.constants import HF_HUB_CACHE

    blobs, size = Path(cache_dir or HF_HUB_CACHE, f"models--{base.replace('/', '--')}", "blobs"), 0
    for file in blobs.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # whole by now, and so named otherwise
            size += file.stat().st_blocks * 512  # what is on the disk: room may be taken in advance
    return size
