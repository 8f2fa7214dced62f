"""Class pictures for prior preservation (DreamBooth, arXiv 2208.12242): those that are missing are drawn once.

In: a TrainConfig. Out: the CaptionedPictures of class_data_dir, each captioned with class_prompt. Picture number N is
drawn by the base model alone, from seed N, into class-N.png: the same picture whatever was drawn before, so drawing
that was interrupted goes on, and runs share the folder. Pictures of one's own count too.
"""

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..config.header import find_lora
from ..config.layout import CLASS_RECORD
from ..config.train_config import TrainConfig
from ..data.dataset import CaptionedPictures
from ..data.decoding import SUFFIXES
from ..data.sources.folders.tree import real, walk
from ..data.sources.listing import Files, Listing, text_column
from ..models.loading import in_tiles
from ..models.objective import base_objective
from ..models.objective.base_objective import BaseObjective
from ..models.sources import Source
from ..system.errors import DataError, ModelError
from ..system.memory import give_back
from ..system.threads import share_out
from .processes import Processes

STEPS, GUIDANCE = 25, 5.0
BATCH = 4  # pictures drawn at once: of 1024 x 1024 pixels they fit where training fits

Progress = Callable[[int, int], None]


def open_class_pictures(
    config: TrainConfig,
    progress: Progress | None = None,
    processes: Processes | None = None,
    objective: BaseObjective | None = None,
) -> CaptionedPictures:
    """The class pictures that `config` asks for, drawn where they are missing. Raises DataError or ModelError.

    All processes of a run call this; they share the drawing, and go on when every picture is there. `objective` is
    that of the configuration, where it is known already.
    """
    folder = class_folder(config)
    check_record(config, folder)
    with processes.together() if processes else nullcontext():  # before any of them draws
        numbers = missing(config, folder)
    draw(config, folder, numbers, progress, processes, objective)
    names = text_column(own_pictures(folder))
    files = Files(str(folder), names)
    captions = text_column([config.class_prompt or ""] * len(names))
    return CaptionedPictures(Listing(names, captions, files.read, files.stamp, stamps=files.stamps), str(folder))


def class_folder(config: TrainConfig) -> Path:
    """The real path of class_data_dir, which need not be there yet. Raises DataError."""
    given = config.class_data_dir
    if given is None or "://" in given:
        raise DataError(f"class_data_dir must be a local folder, not {given}: pictures are drawn into it.")
    folder = real(os.path.expanduser(given))
    if folder.exists() and not folder.is_dir():
        raise DataError(f"class_data_dir {given} is a file, not a folder: give a folder.")
    data = config.train_data_dir
    if data and "://" not in data and folder == real(os.path.expanduser(data)):
        raise DataError(f"class_data_dir and train_data_dir are both {given}: give the class a folder of its own.")
    return folder


def own_pictures(folder: Path) -> list[str]:
    """The names of all pictures in the folder, sorted."""
    return [name for name in walk(folder) if name.lower().endswith(SUFFIXES)] if folder.is_dir() else []


def missing(config: TrainConfig, folder: Path) -> list[int]:
    """The numbers of the pictures to draw: so many as the folder lacks, the lowest that it does not have."""
    there = own_pictures(folder)
    wanted, taken = config.num_class_images - len(there), set(there)
    numbers = (number for number in range(config.num_class_images) if file_name(number) not in taken)
    return [number for _, number in zip(range(wanted), numbers, strict=False)]


def file_name(number: int) -> str:
    return f"class-{number:06d}.png"


def record(config: TrainConfig) -> dict[str, Any]:
    """What decides about the pictures drawn for a configuration."""
    found: dict[str, Any] = {"class_prompt": config.class_prompt, "base": config.pretrained_model_name_or_path}
    settings = {"prediction_type": config.prediction_type, "flow_shift": config.flow_shift}
    settings["rescale_betas_zero_snr"] = config.rescale_betas_zero_snr or None
    loras = [f"{sha256(find_lora(file).read_bytes()).hexdigest()[:16]}:{scale}" for file, scale in config.base_loras()]
    skipped = None if config.clip_skip == 2 else config.clip_skip
    return found | settings | {"base_lora": loras or None, "clip_skip": skipped}


def check_record(config: TrainConfig, folder: Path) -> None:
    """Raise DataError when the pictures in the folder were drawn for something else."""
    try:
        known = json.loads((folder / CLASS_RECORD).read_text("utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        known = None
    for name, value in record(config).items():
        if not isinstance(known, dict) or known.get(name) != value:
            before = f"{known.get(name)!r}" if isinstance(known, dict) else "something that cannot be read"
            raise DataError(
                f"The class pictures in {folder} were drawn for {before}, not {value!r}: give another class_data_dir, "
                f"or remove {CLASS_RECORD} there to use them all the same."
            )


def draw(
    config: TrainConfig,
    folder: Path,
    numbers: list[int],
    progress: Progress | None,
    processes: Processes | None,
    objective: BaseObjective | None,
) -> None:
    """Draw the pictures of these numbers, each file complete or absent. Raises DataError or ModelError."""
    pipeline = cache(lambda: load_pipeline(config, objective or base_objective.of_config(config)))

    def work(share: range) -> None:
        rest = [numbers[at] for at in share if not (folder / file_name(numbers[at])).exists()]
        for first in range(0, len(rest), BATCH):
            draw_batch(config, folder, pipeline(), rest[first : first + BATCH])
            if progress:
                progress(len(share) - len(rest) + min(first + BATCH, len(rest)), len(share))

    try:
        if numbers:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / CLASS_RECORD, lambda path: path.write_text(json.dumps(record(config)), "utf-8"))
        share_out(len(numbers), work, processes)
    except OSError as error:
        raise DataError(f"Class pictures cannot be written to {folder} ({error.strerror}).") from error
    finally:
        pipeline.cache_clear()
        give_back()  # it leaves memory before training's own models come


def load_pipeline(config: TrainConfig, objective: BaseObjective) -> Any:
    """The base as class pictures are drawn with it. Raises ModelError."""
    from ..drawing.generation import load_base

    pipeline = load_base(Source.of(config), objective, config.clip_skip)
    if config.vae_tiling:
        in_tiles(pipeline.vae)
    return pipeline


def draw_batch(config: TrainConfig, folder: Path, pipeline: Any, numbers: list[int]) -> None:
    """Draw and keep a few pictures; a number is its picture's seed."""
    from ..drawing.generation import generate

    settings: dict[str, Any] = {"height": config.resolution, "width": config.resolution, "progress": False}
    settings |= {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "batch_size": BATCH}
    for cell, picture in generate(
        pipeline, None, config.class_prompt or "", seeds=numbers, **settings
    ).pictures.items():
        values = np.asarray(picture)
        if (values == values[0, 0]).all():  # so does a VAE that overflows
            raise ModelError(
                f"The base {config.pretrained_model_name_or_path} draws class pictures of one colour: use "
                "--pretrained_vae_model_name_or_path madebyollin/sdxl-vae-fp16-fix, or another class_prompt."
            )
        write(folder / file_name(cell.seed), partial(picture.save, format="PNG"))


def write(path: Path, save: Callable[[Path], object]) -> None:
    """A file that is complete or absent."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
