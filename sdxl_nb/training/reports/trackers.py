"""TensorBoard, Weights & Biases, MLflow and the others that accelerate knows, fed with a run's events.

In: events. Out: loss, learning rate and validation pictures at their steps, under `output_dir/logs` and (W&B)
`output_dir/wandb`. A resumed run goes on with the same curves. A tracker that fails while training is left out with
one warning: events.jsonl has every number anyway. What trackers keep in memory is written at each checkpoint, and for
W&B, which cannot be asked to, told again when a run goes on that was killed.
"""

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...config.machine import check_wandb
from ...config.mlflow_store import PROJECT
from ...config.mlflow_store import said as _said
from ...config.train_config import TrainConfig
from ...runs.events import EventReader
from ...system.errors import SdxlNbError
from .mlflow_run import MlflowRun

Warn = Callable[[str], None]


class Trackers:
    """A listener: call it with each event, `close` it at the end. They open at the `start` event."""

    def __init__(self, config: TrainConfig, accelerator: Any, folder: Path, warn: Warn | None = None):
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.warn = warn or (lambda line: print(line, file=sys.stderr))
        self.open: list[Any] = []
        self.mlflow = MlflowRun(folder, folder / config.logging_dir, self.warn)

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            self._start(event.get("resumed_from"))
        elif kind in ("step", "heldout", "validation"):
            self._each(lambda tracker: self._tell(tracker, event))
        elif kind == "checkpoint":
            self._each(lambda tracker: tracker.writer.flush() if tracker.name == "tensorboard" else None)

    def _tell(self, tracker: Any, event: dict[str, Any]) -> None:
        kind, step = event["event"], event["step"]
        if kind == "step":
            found = event.get("d")
            sizes = found if isinstance(found, dict) else {} if found is None else {"": found}
            values = {"train_loss": event["train_loss"], "lr": event["lr"]}
            values |= {f"lr/{name}": rate for name, rate in event.get("rates", {}).items()}
            values |= {f"d/{name}" if name else "d": size for name, size in sizes.items()}
            self._log(tracker, {name: value for name, value in values.items() if value is not None}, step)
        elif kind == "heldout":
            self._log(tracker, {"heldout_loss": event["loss"]}, step)
        elif kind == "validation":
            self._pictures(tracker, event)

    def _log(self, tracker: Any, values: dict[str, float], step: int) -> None:
        if tracker.name == "mlflow":
            self.mlflow.log(tracker, values, step)
        else:
            tracker.log(values, step=step)

    def close(self, status: str = "completed") -> None:
        """Finish all of them, whatever one of them does; when this returns all is written. status: the run's."""
        names = [tracker.name for tracker in self.open]
        self._each(lambda tracker: self.mlflow.close(status) if tracker.name == "mlflow" else tracker.finish())
        self.open = self.accelerator.trackers = []
        self.mlflow.leave()
        self.accelerator.end_training()
        if "wandb" in names:
            import wandb

            if wandb.run is None:  # a finished run is only asked to be written; this waits until it is
                wandb.teardown()
            self._unfinished.unlink(missing_ok=True)

    def _start(self, resumed_from: int | None) -> None:
        """Open each tracker; one asked for by name that cannot be opened ends the run before it has cost anything."""
        options = {
            "tensorboard": {} if resumed_from is None else {"purge_step": resumed_from + 1},
            "wandb": self._wandb(resumed_from) if "wandb" in map(str, self.accelerator.log_with) else {},
        }
        for kind in list(self.accelerator.log_with):
            try:
                if str(kind) == "wandb":
                    check_wandb()
                if str(kind) == "mlflow":
                    options["mlflow"] = self.mlflow.open(resumed_from)
                self.accelerator.log_with, self.accelerator.trackers = [kind], []
                self.accelerator.init_trackers(PROJECT, init_kwargs=options)
                self.open += self.accelerator.trackers
                if str(kind) == "wandb":
                    self._tell_again(self.accelerator.trackers[0], resumed_from)
                if str(kind) == "mlflow":
                    self.mlflow.begun(self.accelerator.trackers[0])
                    self._tell_events(self.accelerator.trackers[0], resumed_from, since=0)
            except Exception as error:
                if self.config.report_to != "all":
                    cause = None if str(kind) == "mlflow" else error  # its traceback has the address with its password
                    raise SdxlNbError(f"{kind} cannot be started ({_said(error)}): use another --report_to.") from cause
                self.warn(f"{kind} is left out, it cannot be started: {_said(error)}")

    def _wandb(self, resumed_from: int | None) -> dict[str, Any]:
        """Options of wandb.init: in the run folder, the same W&B run on resume, no copy of the console."""
        import wandb

        kept = self.folder / "wandb" / "id"
        if resumed_from is None or not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(secrets.token_hex(4))
        options = {"name": self.folder.resolve().name, "dir": str(self.folder), "id": kept.read_text()}
        return options | {"resume": "allow", "settings": wandb.Settings(console="off")}

    @property
    def _unfinished(self) -> Path:
        """A file that is there while W&B may not have written all: it keeps up to 32 KiB, which a kill loses."""
        return self.folder / "wandb" / "unfinished"

    def _tell_again(self, tracker: Any, resumed_from: int | None) -> None:
        """Of a run that was killed before, what W&B does not have: of one on its server the last, of files all."""
        if self._unfinished.exists():
            self._tell_events(tracker, resumed_from, since=tracker.run.step)
        self._unfinished.touch()

    def _tell_events(self, tracker: Any, resumed_from: int | None, since: int) -> None:
        """Of a run that goes on, its events from a step on up to the checkpoint that it goes on from."""
        for event in EventReader(self.folder / "events.jsonl")() if resumed_from is not None else ():
            told = event["event"] in ("step", "heldout", "validation") and event["step"] <= resumed_from
            if told and event["step"] >= since:
                self._tell(tracker, event)

    def _each(self, call: Callable[[Any], None]) -> None:
        """Call with each open tracker; one that fails is reported once and not called again."""
        for tracker in list(self.open):
            try:
                call(tracker)
            except Exception as error:  # a disk, a network, a service: not worth the end of a training
                self.open.remove(tracker)
                self.warn(f"{tracker.name} failed and is left out from here on ({_said(error)}); training goes on.")

    def _pictures(self, tracker: Any, event: dict[str, Any]) -> None:
        import numpy as np
        from PIL import Image

        paths = [self.folder / path for path in event["pictures"]]
        if tracker.name == "mlflow":
            self.mlflow.pictures(tracker, [path for path in paths if path.is_file()], event["step"])
        elif tracker.name == "tensorboard":
            for path in paths:
                picture = np.asarray(Image.open(path))[None]
                tracker.writer.add_images(f"validation/{path.stem}", picture, event["step"], dataformats="NHWC")
            tracker.writer.flush()
        elif tracker.name == "wandb":
            import wandb

            captions = [event["prompts"][int(path.stem.split("-")[0])] for path in paths]
            pictures = [wandb.Image(str(path), caption=text) for path, text in zip(paths, captions, strict=True)]
            tracker.run.log({"validation": pictures}, step=event["step"])
