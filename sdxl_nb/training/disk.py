"""How much disk a run writes, and whether there is room for it, before it starts.

In: a TrainConfig and the shapes of its base. Out: a Need, or SdxlNbError with one sentence when it does not fit.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.train_config import TrainConfig
from ..models.architectures import Architecture
from ..models.inpainting import inpaints
from ..system.errors import SdxlNbError
from .epochs import costliest, count, looks_in, pictures_each

STATES = {  # fp32 numbers a weight, itself counted
    "adamw": 3,
    "adamw8bit": 1.6,
    "paged_adamw8bit": 1.6,
    "prodigy": 5,
    "adafactor": 2.1,
    "lion": 2,
    "came": 2.1,
    "muon": 2,
    "adamw_schedulefree": 3,
    "radam_schedulefree": 3,
    "prodigy_schedulefree": 2.2,
}
UNKNOWN = 3  # of a class by its path: as AdamW
FILES = 2  # the LoRA under diffusers' names and under kohya's
PICTURE = 1.6  # bytes a pixel of a validation PNG


@dataclass(frozen=True)
class Need:
    """Bytes that a run writes, where, and how much is free there. `entries` are pictures that an epoch sees."""

    entries: int | None
    latents: int
    embeddings: int
    cache_folder: Path
    run_folder: Path
    checkpoints: int = 0
    validation: int = 0
    costliest: TrainConfig | None = None  # the configuration with what a data file's folders have for themselves

    @property
    def cache(self) -> int:
        return self.latents + self.embeddings

    @property
    def run(self) -> int:
        return self.checkpoints + self.validation

    def shortage(self) -> str:
        """One sentence when the disk cannot hold it, else an empty text."""
        places: dict[int, list[tuple[str, Path, int]]] = {}
        for what, folder, size in (("cache", self.cache_folder, self.cache), ("run", self.run_folder, self.run)):
            places.setdefault(os.stat(existing(folder)).st_dev, []).append((what, folder, size))
        for wants in places.values():
            free, total = free_bytes(wants[0][1]), sum(size for _, _, size in wants)
            if total > free:
                parts = " and ".join(f"{said(size)} for the {what} in {folder}" for what, folder, size in wants if size)
                return (
                    f"The disk has {said(free)} free and this run writes {parts}: make room, choose another "
                    "--output_dir or --latents_cache_dir, or set --checkpoints_total_limit."
                )
        return ""

    def __str__(self) -> str:
        cache = f"{said(self.cache)} of cache (latents {said(self.latents)}, embeddings {said(self.embeddings)})"
        line = (
            f"Disk: {cache if self.entries else 'a cache for pictures not counted yet'}, "
            f"{said(self.checkpoints)} of checkpoints and LoRA files, {said(self.validation)} of validation pictures"
        )
        room = "; there is room." if self.entries else "."
        return f"{line}. {self.shortage()}".strip() if self.shortage() else f"{line}{room}"


def needed(config: TrainConfig, built: Architecture, pictures: int | None = None) -> tuple[Need, list[str]]:
    """The Need of the caches, with the number of pictures of an epoch; and remarks. Opens the data set if need be."""
    from ..cache.latents import cache_folder
    from ..data.dataset import open_dataset

    entries = stored = captions = pictures
    notes = []
    if pictures is None:
        try:
            opened = open_dataset(config)
            config, counts = costliest(config, opened), count(config, opened)
            entries, stored, captions = counts.entries, counts.pictures, counts.captions + 1
        except SdxlNbError as error:
            notes = [f"The number of pictures is not known: {error}"]
    variants = config.cached_variants if config.cached_variants > 1 else 1 + config.random_flip
    latent = 2 * 4 * built.vae.get("latent_channels", 4) * (config.resolution // built.scale) ** 2
    encoded = (stored or 0) * pictures_each(config) * variants
    latents = encoded * latent if config.cache_latents and not inpaints(built.unet) else 0
    embeddings = (captions or 0) * built.caption_numbers * 4 if config.caches_text_embeddings() else 0
    return Need(entries, latents, embeddings, cache_folder(config), Path(config.output_dir), costliest=config), notes


def with_checkpoints(need: Need, config: TrainConfig, trained: int, steps: int | None, an_epoch: int | None) -> Need:
    """The Need with the run folder counted: checkpoints that are kept, the LoRA files, validation pictures.

    `an_epoch` is its number of steps; where that is not known, the pictures before the first and after the last count.
    """
    made = -(-steps // config.checkpointing_steps) if steps else 1
    kept = min(made, config.checkpoints_total_limit or made)
    weight = FILES + STATES.get(config.optimizer_name(), UNKNOWN) + config.use_ema
    one = round(4 * trained * weight)
    pixels = sum(each.width * each.height for each in config.drawings())
    looks = looks_in(config, steps or 1, an_epoch or steps or 1)
    # one more than are kept: a new one is complete before the oldest goes
    checkpoints = (kept + (kept < made)) * one + FILES * 4 * trained
    return replace(need, checkpoints=checkpoints, validation=round(looks * PICTURE * pixels))


def refuse_full_disk(need: Need) -> None:
    """Raise SdxlNbError when the disk cannot hold what the run writes."""
    if sentence := need.shortage():
        raise SdxlNbError(sentence)


def refuse_full_run(config: TrainConfig, trained: int, steps: int, an_epoch: int) -> None:
    """Raise SdxlNbError when the disk cannot hold the checkpoints and files of a run with so many LoRA weights.

    What the caches lack is known later, and refused by shards.Store.
    """
    empty = Need(None, 0, 0, Path(config.output_dir), Path(config.output_dir))
    refuse_full_disk(with_checkpoints(empty, config, trained, steps, an_epoch))


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written to the disk of a folder."""
    return shutil.disk_usage(existing(folder)).free


def free_memory() -> int | None:
    """Bytes of memory that this machine has available, within its container's limit; None where it cannot be asked."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit = Path("/sys/fs/cgroup/memory.max")
        most = limit.read_text(encoding="ascii").strip() if limit.exists() else "max"
        return available if most == "max" else min(available, int(most))
    except (OSError, StopIteration, ValueError):
        return None


def said(size: float) -> str:
    """Bytes in words."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"
