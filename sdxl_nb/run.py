"""One training run seen from outside: its events, status, curve, pictures and LoRA, and how to stop it.

In: a run folder (a run in this kernel, in another process, or of last week look the same). Out: plain values, a
matplotlib Figure, and a small card in a notebook. Nothing here imports torch.
"""

import html
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import SdxlNbError
from .events import read_events

DONE = ("completed", "stopped", "failed")


class Run:
    """A run folder: `Run.open("output")`."""

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Run":
        """The run in a folder, running or over. Raises SdxlNbError when there is none."""
        if not (Path(folder) / "run.json").is_file():
            raise SdxlNbError(f"There is no run in {folder}: give the output_dir of one (it holds run.json).")
        return cls(folder)

    @property
    def info(self) -> dict[str, Any]:
        """`run.json`: id, pid, host, when it started, the configuration's fingerprint, status."""
        return json.loads((self.folder / "run.json").read_text())

    @property
    def status(self) -> str:
        """running, completed, stopped, failed, or interrupted (its process is gone without a word)."""
        info = self.info
        if info["status"] == "running" and info["host"] == socket.gethostname() and not self._goes_on():
            return self.info["status"].replace("running", "interrupted")  # or it ended between the two looks
        return info["status"]

    def _goes_on(self) -> bool:
        """Whether a process holds the folder's lock; a killed one no longer does, whoever has its pid now."""
        try:
            with FileLock(self.folder / "lock", timeout=0):
                (self.folder / "lock").unlink(missing_ok=True)
        except Timeout:
            return True
        except OSError:  # a folder one may only read
            return _alive(self.info["pid"])
        return False

    @property
    def config(self):
        """The TrainConfig of the run."""
        from .config import TrainConfig

        return TrainConfig.load(self.folder / "config.json")

    def events(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """The events so far, oldest first, all or of one kind."""
        return (e for e in read_events(self.folder / "events.jsonl") if kind in (None, e["event"]))

    def losses(self) -> tuple[list[int], list[float]]:
        """Optimizer steps and their training losses."""
        points = [(e["step"], e["train_loss"]) for e in self.events("step")]
        return [s for s, _ in points], [loss for _, loss in points]

    @property
    def lora(self):
        """The finished LoRA, or that of the newest checkpoint."""
        from .checkpoint import checkpoints
        from .lora import LoraFile

        final = self.folder / "pytorch_lora_weights.safetensors"
        newest = next((p for p in reversed(checkpoints(self.folder))), None)
        if final.is_file() or newest is None:
            return LoraFile(self.folder)
        return LoraFile(newest)

    def pictures(self) -> dict[int, list[Path]]:
        """Validation pictures by optimizer step, sorted by prompt and seed."""
        folders = sorted(self.folder.glob("validation/step-*"), key=lambda p: int(p.name.split("-")[1]))
        return {int(p.name.split("-")[1]): sorted(p.glob("*.png")) for p in folders}

    def stop(self) -> None:
        """Ask the run to save its state and end after the current step."""
        (self.folder / "stop").touch()

    def wait(self, timeout: float | None = None, interval: float = 0.5) -> str:
        """Wait until the run is over and return its status; TimeoutError after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.status) == "running":
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The run in {self.folder} is still going after {timeout:g} s.")
            time.sleep(interval)
        return status

    def plot(self):
        """The loss, raw and smoothed, as a matplotlib Figure."""
        from .plots import loss_figure

        return loss_figure(self)

    def validation_figure(self):
        """Validation pictures: one row a prompt and seed, one column a step."""
        from .plots import validation_figure

        return validation_figure(self)

    def summary(self) -> dict[str, Any]:
        """The few numbers one asks for first."""
        steps, losses = self.losses()
        last = losses[-50:]
        end = next(reversed(list(self.events("end"))), {})
        return {
            "status": self.status,
            "folder": str(self.folder),
            "steps": steps[-1] if steps else 0,
            "loss": round(sum(last) / len(last), 4) if last else None,
            "minutes": round(end["seconds"] / 60, 1) if "seconds" in end else None,
            "error": end.get("error"),
        }

    def __repr__(self) -> str:
        known = {name: value for name, value in self.summary().items() if value is not None}
        return f"Run({', '.join(f'{name}={value}' for name, value in known.items())})"

    def _repr_html_(self) -> str:
        rows = ((name, value) for name, value in self.summary().items() if value is not None)
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
        return f"<table>{cells}</table>"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
