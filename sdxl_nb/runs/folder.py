"""The run folder as a run's writer sees it: taken by one run at a time, started fresh or gone on with."""

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from ..config.layout import DRAW, LORA, SAVE, SCORES, checkpoints
from ..config.train_config import TrainConfig
from ..system.errors import ConfigError, SdxlNbError
from . import events
from .checkpoints import find, sweep
from .process import is_taken
from .renaming import follow

OURS = ("events.jsonl", "log.txt", "run.json", "config.json", "README.md", "validation", SCORES)


class RunFolder:
    """`output_dir`, locked while the run goes on. Raises before anything but the lock is written.

    With `writes=False` (any process but the first) it only knows the path.
    """

    def __init__(self, config: TrainConfig, *, writes: bool = True):
        self.path, self.writes = Path(config.output_dir), writes
        self.stop_file = self.path / "stop"
        if writes:
            self._take()

    def _take(self) -> None:
        try:
            self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / "lock")
            self._wait_for_lookers()
            self._forget_requests()  # nobody else runs here, so they were meant for a run that is over
        except Timeout:
            raise ConfigError(f"output_dir {self.path} belongs to a run that is going on: choose another") from None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise SdxlNbError(f"Cannot write to output_dir {self.path} ({reason}): choose another folder.") from error

    def _wait_for_lookers(self) -> None:
        """Take the lock, which those who look whether a run holds it have for a moment. Raises Timeout for a run's."""
        while True:
            try:
                self._lock.acquire(timeout=1)
                return
            except Timeout:
                if is_taken(self.path):
                    raise

    def release(self) -> None:
        """Give the folder back; without a run in it nothing of it remains."""
        if not self.writes:
            return
        with contextlib.suppress(OSError):  # someone may have moved the folder away
            self._forget_requests()
            (self.path / "lock").unlink(missing_ok=True)  # while it is held: whoever waits sees that it is gone
        self._lock.release()
        with contextlib.suppress(OSError):  # not empty, then: the others above it are not either
            for folder in self._made:
                folder.rmdir()

    def _forget_requests(self) -> None:
        """Remove what a run was asked for by files."""
        for file in (self.stop_file, self.path / DRAW, self.path / SAVE):
            file.unlink(missing_ok=True)

    def refuse_foreign(self, config: TrainConfig) -> None:
        """A folder that holds another run, or files of a run's names, is written to only when that was said."""
        if not self.writes or config.overwrite_output_dir:
            return
        holds_run = self._holds_run()
        if holds_run and not config.resume_from_checkpoint:
            raise ConfigError(
                f"output_dir {self.path} already holds a run: add --resume_from_checkpoint latest to go on with it, "
                "--overwrite_output_dir to replace it, or choose another folder"
            )
        if holds_run:
            self._refuse_to_replace(config)
        foreign = [name for name in OURS if (self.path / name).exists()]
        if foreign and not holds_run:
            raise ConfigError(
                f"output_dir {self.path} holds files that a run would replace ({', '.join(foreign)}): "
                "choose another folder, or add --overwrite_output_dir"
            )

    def _refuse_to_replace(self, config: TrainConfig) -> None:
        """Going on with a run never replaces one that is finished, nor mixes two runs in one folder."""
        found = find(self.path, config.resume_from_checkpoint)
        if found is None and self._is_finished():
            raise ConfigError(
                f"there is no checkpoint to resume from, and output_dir {self.path} holds a finished run: "
                "add --overwrite_output_dir to replace it, or choose another folder"
            )
        if found is not None and not self._owns(found):
            raise ConfigError(
                f"resume_from_checkpoint {found} lies outside output_dir {self.path}, which holds another run: "
                "choose another output_dir, or add --overwrite_output_dir to replace that run"
            )

    def _holds_run(self) -> bool:
        return (self.path / "run.json").exists() or bool(checkpoints(self.path))

    def _is_finished(self) -> bool:
        """Whether there is anything to lose: a run that was killed before its first checkpoint has no LoRA."""
        try:
            status = json.loads((self.path / "run.json").read_text(encoding="utf-8")).get("status")
        except (OSError, ValueError, AttributeError):
            status = None
        return status == "completed" or (self.path / LORA).exists()

    def _owns(self, path: Path) -> bool:
        """Whether a file or folder really lies in this run folder, whatever its name or a link says."""
        return path.parent.resolve().is_relative_to(self.path.resolve())

    def begin(self, config: TrainConfig, *, resumed_from: Path | None) -> list[str]:
        """Clear what an overwritten run left, write `run.json` and `config.json`; returns remarks for the log."""
        if not self.writes:
            return []
        sweep(self.path)
        told = follow(self.path, config)
        goes_on = resumed_from is not None and self._owns(resumed_from)
        if not goes_on and self._holds_run():
            self._clear(config)
        run_id = f"{config.lora_name()}-{secrets.token_hex(4)}"
        about = {"id": run_id, **events.identity(), "fingerprint": config.fingerprint(), "status": "running"}
        events.update(self.path / "run.json", **about)
        # A configuration that is loaded again must not replace a run by itself.
        config.replace(overwrite_output_dir=False).save(self.path / "config.json")
        return told

    def _clear(self, config: TrainConfig) -> None:
        """Delete what a run writes, and nothing else."""
        names = [*OURS, LORA, f"{config.lora_name()}.safetensors"]
        logs = self.path / config.logging_dir
        curves = logs.rglob("events.out.tfevents.*") if self._owns(logs / "curve") else ()
        for path in [*(self.path / name for name in names), *checkpoints(self.path), *curves]:
            if not self._owns(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def new_folder(place: str | os.PathLike[str]) -> str:
    """The folder, or the next one numbered (name-2, name-3) that holds nothing: no run is ever replaced by it."""
    wanted, number = Path(place), 1
    while _holds_something(path := wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")):
        number += 1
    return str(path)


def _holds_something(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))
