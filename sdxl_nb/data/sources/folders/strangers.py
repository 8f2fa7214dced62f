"""What lies in a folder and is no training picture: of runs, classes, trackers; masks, samples, thumbnails, caches.

In: names of folders and files, and what a configuration calls its own. Out: the reason to leave something out, and
which mask belongs to which picture. What gives itself away by what it holds, or is named by the configuration, is left
out for certain. A name alone only raises a doubt: a picture with a caption of its own is a training picture all the
same, and so is everything where nothing else would be left.
"""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ....config.layout import CHECKPOINT, CLASS_RECORD, DRAWING, LORA
from ....config.train_config import TrainConfig
from .tree import real

RUN, CLASS, HELD_OUT, MASK = "a run's own", "drawn for a class", "held out", "masks"
OPPOSITES = "a slider's opposites"
CONTROL, REGULARISATION, THUMBNAIL = "conditioning pictures", "regularisation pictures", "thumbnails"
SAMPLE, CACHE, LOGGED, PREVIEW = "samples", "caches", "a tracker's", "previews of models"
SYSTEM, HIDDEN, TWICE = "kept by a system", "hidden", "links to what is read already"

NUMBERED = re.compile(r"([1-9]\d*)_(.+)")  # kohya's folders: repeats and words, as in 10_sks dog
RUN_FILES = {"run.json", "config.json", "events.jsonl"}
MODEL_FILES = {LORA, "adapter_config.json", "model_index.json"}
STATE = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", "state.json")
CERTAIN = {  # names of folders in small letters, which nobody gives to pictures of a set
    SYSTEM: "@eadir|#recycle|@recycle|$recycle.bin|lost+found|system volume information|__macosx|__pycache__|"
    "node_modules",
    CACHE: "_latent_cache|_t_e_cache|_clip_vision_cache",
    CONTROL: "_controls",
}
DOUBTFUL = {
    MASK: "mask|masks|mask_images|masked|alpha|alphas|matte|mattes",
    CONTROL: "control|controls|control_images|controlnet|conditioning|conditioning_image|conditioning_images|cond|"
    "canny|depth|depth_maps|pose|openpose|lineart|normal|seg|segmentation",
    THUMBNAIL: "thumb|thumbs|thumbnail|thumbnails|_thumbs",
    SAMPLE: "sample|samples|sample_images|validation_images",
    CACHE: "cache|caches|latent|latents|latent_cache|latents_cache",
    REGULARISATION: "reg|regs|reg_images|regularization|regularisation|regularization_images|class_images",
    LOGGED: "wandb|lightning_logs|mlruns|mlartifacts",
}
SURE, UNSURE = (
    {name: reason for reason, names in table.items() for name in names.split("|")} for table in (CERTAIN, DOUBTFUL)
)
LABEL = re.compile(r"(.+)-(mask|cond)label")  # OneTrainer's: no picture is called so by chance
BESIDE = re.compile(
    r"(.+)[-_.](masks?|matte|thumb|thumbnail|depth|canny|openpose|lineart|seg|segmentation|conditioning)"
)
KINDS = {"mask": MASK, "masks": MASK, "matte": MASK, "thumb": THUMBNAIL, "thumbnail": THUMBNAIL}  # else CONTROL
MASKS = re.compile(r"(?:.+[-_])?(?:masks|mattes)(?:[-_].+)?")  # names of folders, such as sam_masks


def own_folders(folder: Path, config: TrainConfig) -> dict[Path, str]:
    """The folders inside `folder` that the configuration names for something else -> what for; real paths."""
    named = {config.output_dir: RUN, config.latents_cache_dir: CACHE, config.cache_dir: CACHE}
    named |= {config.class_data_dir: CLASS, config.validation_data_dir: HELD_OUT}
    named |= {config.slider_negative_dir: OPPOSITES}
    data = str(config.train_data_dir or "").rstrip("/")
    found = {}
    for place, reason in named.items():
        if place and data.startswith("s3://") and str(place).startswith(f"{data}/"):
            found[folder / str(place)[len(data) + 1 :].rstrip("/")] = reason
        elif place and "://" not in str(place):
            found[real(os.path.expanduser(place))] = reason
    return {path: reason for path, reason in found.items() if folder in path.parents}


def certain(path: str, names: Collection[str], siblings: Iterable[str]) -> str | None:
    """Why a folder ("a/b/") that holds these names, beside these folders, is left out for certain, or None."""
    above, _, name = path.rstrip("/").rpartition("/")
    low = name.lower()
    if low in SURE or "pyvenv.cfg" in names:
        return SURE.get(low, SYSTEM)
    if CLASS_RECORD in names:
        return CLASS
    if len(RUN_FILES.intersection(names)) > 1 or MODEL_FILES.intersection(names):
        return RUN
    if DRAWING.fullmatch(name) and above.rpartition("/")[2] == "validation":
        return RUN
    if CHECKPOINT.fullmatch(name) and any(one.endswith(STATE) for one in names):
        return RUN
    if UNSURE.get(low) == REGULARISATION and any(NUMBERED.fullmatch(one.rstrip("/")) for one in siblings):
        return REGULARISATION
    return None


def doubt(path: str) -> str | None:
    """What a folder ("a/b/") holds by its name alone, or None; the words of kohya's folders are the set's own."""
    name = path.rstrip("/").rpartition("/")[2].lower()
    return UNSURE.get(name) or (MASK if MASKS.fullmatch(name) and not NUMBERED.fullmatch(name) else None)


def labelled(stem: str) -> tuple[str, str] | None:
    """(reason, stem of its picture) for the stem of OneTrainer's masks in small letters, or None."""
    return _owner(LABEL, stem)


def by_name(stem: str) -> tuple[str, str] | None:
    """(reason, stem of its picture) for a stem in small letters that may be a mask's or thumbnail's, or None."""
    return _owner(BESIDE, stem)


def _owner(pattern: re.Pattern[str], stem: str) -> tuple[str, str] | None:
    found = pattern.fullmatch(stem)
    return (KINDS.get(found[2], CONTROL), found[1]) if found else None
