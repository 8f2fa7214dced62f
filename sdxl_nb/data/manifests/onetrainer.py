"""OneTrainer's concepts.json: a list of concepts, each a folder with settings for its pictures and texts.

As Nerogar/OneTrainer has it (modules/util/config/ConceptConfig.py, modules/dataLoader/mixin) and Nerogar/mgds
(src/mgds/pipelineModules: CollectPaths, LoadMultipleTexts, ShuffleTags, DropTags, VariationSorting): each
line of the .txt beside a picture is a caption, one of which is drawn; prompt_source takes the file's name or the
lines of one file in its place. balancing is a factor (REPEATS, which may be a fraction) or a number of pictures an
epoch (SAMPLES). Defaults are that program's: subfolders are not looked into, the first tag stays where tags are
shuffled. Older files say repeats and validation_concept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..folder_settings import FolderSettings, Words
from ..sources.folders.caption_files import read_text
from .manifest import MOST, Manifest, Remarks, amount, folder_path, value, with_names

USED = {
    *("name", "path", "enabled", "type", "include_subdirectories", "balancing", "balancing_strategy", "loss_weight"),
    *("image", "text", "repeats", "validation_concept", "concept_stats"),
}
IMAGE = {"enable_crop_jitter", "enable_random_flip", "enable_resolution_override", "resolution_override"}
TEXT = {
    *("prompt_source", "prompt_path", "enable_tag_shuffling", "tag_delimiter", "keep_tags_count"),
    *("tag_dropout_enable", "tag_dropout_mode", "tag_dropout_probability"),
}
COLOURS, TURNED = "colours are never changed", "pictures are never rotated"
LEFT = {  # why a key has no effect
    "seed": "everything random follows --seed",
    "image_variations": "--cached_variants keeps several crops of each picture",
    "text_variations": "captions are drawn, shuffled and dropped anew each time",
    "enable_fixed_flip": "pictures are mirrored at random or not at all",
    **{f"enable_{way}_rotate": TURNED for way in ("random", "fixed")},
    **{f"enable_{way}_{what}": COLOURS for way in ("random", "fixed") for what in ("brightness", "contrast")},
    **{f"enable_{way}_{what}": COLOURS for way in ("random", "fixed") for what in ("saturation", "hue")},
    "enable_random_circular_mask_shrink": "masks are used as they are",
    "enable_random_mask_rotate_crop": "masks are used as they are",
    "tag_dropout_special_tags_mode": "all tags after the first keep_tags_count may be dropped",
    "caps_randomize_enable": "captions keep their capitals",
}
WITH = (  # keys that only say how, of those above
    "__version",
    *("random_rotate_max_angle", "random_brightness_max_strength", "random_contrast_max_strength"),
    *("random_saturation_max_strength", "random_hue_max_strength"),
    *("tag_dropout_special_tags", "tag_dropout_special_tags_regex"),
    *("caps_randomize_mode", "caps_randomize_probability", "caps_randomize_lowercase"),
)
PARTLY = {
    "resolution_override": "of several resolutions the first is used",
    "tag_dropout_mode": "tags are dropped one by one, each with the same chance",
}
SAMPLES = 100_000_000  # pictures an epoch, at most
USUAL = {"image_variations": 1, "text_variations": 1, "tag_dropout_special_tags_mode": "NONE"}


def is_its_own(said: Any) -> bool:
    """Whether this is a list of OneTrainer's concepts, alone or in its configuration."""
    listed = _listed(said)
    return bool(listed) and all(
        isinstance(each, Mapping) and isinstance(each.get("path"), str) and ("text" in each or "image" in each)
        for each in listed
    )


def _listed(said: Any) -> list[Any]:
    found = said.get("concepts") if isinstance(said, Mapping) else said
    return found if isinstance(found, list) else []


def read(said: Any, file: Path, config: TrainConfig) -> Manifest:
    """The concepts as folders. Raises DataError."""
    remarks = Remarks(LEFT, PARTLY)
    folders = [_concept(concept, number, file, remarks) for number, concept in enumerate(_listed(said), 1)]
    return Manifest(with_names([folder for folder in folders if folder]), remarks.notes())


def _concept(said: Mapping[str, Any], number: int, file: Path, remarks: Remarks) -> FolderSettings | None:
    """A concept as a folder; None for one that is left out, of which `remarks` say why."""
    path = value(said, "path", str, f"concept {number} of {file.name}")
    name = value(said, "name", str, f"concept {number} of {file.name}")
    name = name or path.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or str(number)
    place = f"concept {name} of {file.name}"
    if not value(said, "enabled", bool, place, True):
        remarks.say(f"Concept {name} is left out, because it is not enabled.")
        return None
    if not path.strip():
        raise DataError(f"{place} has no path: choose its folder, or disable it.")
    kind = said.get("type") or ("VALIDATION" if said.get("validation_concept") else "STANDARD")
    if kind == "PRIOR_PREDICTION":
        flags = f"--with_prior_preservation --class_data_dir {path}"
        remarks.say(f"Concept {name} (PRIOR_PREDICTION) is left out: class pictures are given with {flags}.")
        return None
    if kind not in ("STANDARD", "VALIDATION"):
        raise DataError(f"type of {place} is {shown(kind)}, which is not known: give STANDARD or VALIDATION.")
    image, text = value(said, "image", dict, place, {}), value(said, "text", dict, place, {})
    for part, used in ((said, USED), (image, IMAGE), (text, TEXT)):
        remarks.look(part, USUAL, name, {*used, *WITH})
    repeats, entries = _balance(said, name, place, remarks)
    if not repeats and entries is None:
        return None
    return FolderSettings(
        folder_path(path, file),
        name.replace("/", " "),
        {**_image(image, name, place, remarks), **_text(text, name, place, remarks), "folder_repeats": False},
        repeats=repeats,
        entries=entries,
        loss_weight=float(amount(said, "loss_weight", float, place, 1.0)),
        held_out=kind == "VALIDATION",
        words=_words(text, file, place),
        plain=True,
        subfolders=value(said, "include_subdirectories", bool, place, False),
    )


def _balance(said: Mapping[str, Any], name: str, place: str, remarks: Remarks) -> tuple[float, int | None]:
    """(how often an epoch sees each picture, or how many pictures of the concept it sees); (0, None) leaves it out."""
    key = "balancing" if "balancing" in said else "repeats"
    strategy = said.get("balancing_strategy") or "REPEATS"
    number = amount(said, key, float, place, 1.0, most=SAMPLES if strategy == "SAMPLES" else MOST)
    if strategy not in ("REPEATS", "SAMPLES"):
        raise DataError(f"balancing_strategy of {place} is {shown(strategy)}: give REPEATS or SAMPLES.")
    if not number:
        remarks.say(f"Concept {name} is left out, because its {key} is 0.")
        return 0, None
    return (1, int(number)) if strategy == "SAMPLES" else (number, None)


def _image(said: Mapping[str, Any], name: str, place: str, remarks: Remarks) -> dict[str, Any]:
    """The settings of ours that a concept has for its pictures."""
    found: dict[str, Any] = {"random_flip": value(said, "enable_random_flip", bool, place, False)}
    if not value(said, "enable_crop_jitter", bool, place, True):
        found["center_crop"] = True
    if value(said, "enable_resolution_override", bool, place, False):
        sizes = [size.strip() for size in str(said.get("resolution_override", "")).split(",")]
        if not all(size.isdecimal() for size in sizes):
            told = shown(said.get("resolution_override"))
            raise DataError(f"resolution_override of {place} is {told}: give one number, the side in pixels.")
        if len(sizes) > 1:
            remarks.add("resolution_override", name)
        found["resolution"] = int(sizes[0])
    return found


def _text(said: Mapping[str, Any], name: str, place: str, remarks: Remarks) -> dict[str, Any]:
    """The settings of ours that a concept has for its captions."""
    found: dict[str, Any] = {"caption_lines": "captions", "keep_tokens": value(said, "keep_tags_count", int, place, 1)}
    found["shuffle_caption"] = value(said, "enable_tag_shuffling", bool, place, False)
    if separator := value(said, "tag_delimiter", str, place):
        found["caption_separator"] = separator
    if value(said, "tag_dropout_enable", bool, place, False):
        chance, way = value(said, "tag_dropout_probability", float, place, 0.0), said.get("tag_dropout_mode", "FULL")
        if way == "FULL" and not found["keep_tokens"]:  # the whole caption or nothing of it
            return {**found, "proportion_empty_prompts": chance}
        found["caption_tag_dropout_rate"] = chance
        if way != "RANDOM" and chance:
            remarks.add("tag_dropout_mode", name)
    return found


def _words(said: Mapping[str, Any], file: Path, place: str) -> Words:
    """Where the captions of a concept are. Raises DataError."""
    source = said.get("prompt_source") or "sample"
    if source == "filename":
        return Words(from_names="as they are")
    if source == "sample":
        return Words(suffix=".txt", lines="each")
    if source != "concept":
        raise DataError(f"prompt_source of {place} is {shown(source)}: give sample, concept or filename.")
    told = value(said, "prompt_path", str, place)
    path = Path(folder_path(told, file)) if told else None
    if path is None or not path.is_file():
        raise DataError(f"{place} takes its captions from prompt_path {shown(told)}, which is no file: correct it.")
    lines = tuple(line.strip() for line in read_text(path.parent, path.name).splitlines() if line.strip())
    if not lines:
        raise DataError(f"{path}, the captions of {place}, is empty: write one a line.")
    return Words(every=lines)
