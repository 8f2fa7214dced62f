"""What the parts of a run folder are called: for who writes it and for all who read it, without importing torch."""

import re
from collections.abc import Iterable
from pathlib import Path

LORA = "pytorch_lora_weights.safetensors"  # diffusers' name for it
CHECKPOINT, DRAWING = re.compile(r"checkpoint-(\d+)"), re.compile(r"step-(\d+)")
DRAW, SAVE = "draw_now", "save_now"  # files by which a run is asked for something while it goes on
CLASS_RECORD = "class_pictures.json"  # what the class pictures in a folder were drawn for
SCORES = "scores"  # what scoring keeps: pictures and numbers
CLASS_PICTURE = re.compile(r"class-(\d+)\.png")


def lora_stem(name: str) -> str:
    """A LoRA's name without .safetensors, which files get by themselves."""
    return re.sub(r"(\.safetensors)+$", "", name, flags=re.IGNORECASE)


def checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints of a run folder, oldest first."""
    found = (p for p in Path(folder).glob("checkpoint-*") if CHECKPOINT.fullmatch(p.name))
    return sorted((path for path in found if (path / "state.json").is_file()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def whole(names: Iterable[str]) -> list[int]:
    """The steps of the checkpoints of which all files are among these names (`checkpoint-2/state.json`), in order."""
    files = set(names)
    folders = (CHECKPOINT.fullmatch(name.removesuffix("/state.json")) for name in files if name.endswith("/state.json"))
    return sorted(int(found[1]) for found in folders if found and f"{found[0]}/state.safetensors" in files)


def drawings(folder: Path) -> dict[int, Path]:
    """The folders of validation pictures by optimizer step, in its order."""
    found = {path: DRAWING.fullmatch(path.name) for path in folder.glob("validation/step-*")}
    steps = {int(match[1]): path for path, match in found.items() if match}
    return dict(sorted(steps.items()))
