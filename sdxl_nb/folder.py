"""The run folder as a run's writer sees it: taken by one run at a time, started fresh or gone on with."""

import secrets
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import events
from .checkpoint import checkpoints, sweep
from .errors import ConfigError, SdxlNbError

OURS = ("events.jsonl", "log.txt", "run.json", "config.json", "README.md", "stop", "validation")


class RunFolder:
    """`output_dir`, locked while the run goes on; a context manager. Raises before anything is written."""

    def __init__(self, config: Any):
        self.path = Path(config.output_dir)
        self.stop_file = self.path / "stop"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / "lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"output_dir {self.path} belongs to a run that is going on: choose another") from None
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise SdxlNbError(f"Cannot write to output_dir {self.path} ({reason}): choose another folder.") from error

    def release(self) -> None:
        self._lock.release()
        (self.path / "lock").unlink(missing_ok=True)

    def refuse_foreign(self, config: Any) -> None:
        """A folder that holds another run is gone on with or overwritten only when that was said."""
        holds_run = (self.path / "run.json").exists() or bool(checkpoints(self.path))
        if holds_run and not config.resume_from_checkpoint and not config.overwrite_output_dir:
            raise ConfigError(
                f"output_dir {self.path} already holds a run: add --resume_from_checkpoint latest to go on with it, "
                "--overwrite_output_dir to replace it, or choose another folder"
            )

    def begin(self, config: Any, *, resumed: bool) -> dict[str, Any]:
        """Clear what an overwritten run left, write `config.json` and `run.json`; returns what `run.json` says."""
        sweep(self.path)
        self.stop_file.unlink(missing_ok=True)
        if not resumed:
            self._clear(config)
        config.save(self.path / "config.json")
        run_id = f"{config.lora_name()}-{secrets.token_hex(4)}"
        return {"id": run_id, **events.identity(), "fingerprint": config.fingerprint(), "status": "running"}

    def _clear(self, config: Any) -> None:
        """Delete what a run writes, and nothing else."""
        names = [*OURS, config.logging_dir, "pytorch_lora_weights.safetensors", f"{config.lora_name()}.safetensors"]
        for path in [*(self.path / name for name in names), *checkpoints(self.path)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
