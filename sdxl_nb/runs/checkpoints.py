"""The checkpoints of a run folder as names: the one to go on from, and what a killed writer left of others.

In: a run folder. Out: paths; what is in a checkpoint, training/state reads and writes.
"""

import shutil
from pathlib import Path

from ..config.layout import checkpoints
from ..system.errors import ConfigError


def find(output_dir: str | Path, asked: str | None) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` means: a path, a name in the run folder, or the latest, if any."""
    if asked is None:
        return None
    put_back(Path(output_dir))
    if asked == "latest":
        return next(reversed(checkpoints(output_dir)), None)
    for path in (Path(asked), Path(output_dir, Path(asked).name)):
        if (path / "state.json").is_file():
            return path
    raise ConfigError(f"resume_from_checkpoint {asked} is not a complete checkpoint: give another, or latest")


def put_back(output_dir: Path) -> None:
    """Give a checkpoint its name again when a kill came before its replacement had it."""
    for aside in output_dir.glob(".checkpoint-*-aside.draft"):
        final = output_dir / aside.name.split(".")[1]
        if not final.exists():
            aside.rename(final)


def sweep(output_dir: Path) -> None:
    """Remove drafts that a killed run left."""
    for draft in output_dir.glob(".checkpoint-*.draft"):
        shutil.rmtree(draft, ignore_errors=True)
