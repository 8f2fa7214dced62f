"""kohya's data set configurations, TOML or JSON: [general], [[datasets]] and [[datasets.subsets]].

As kohya-ss/sd-scripts has it (docs/config_README-en.md, library/config_util.py, library/train_util.py): what a subset
does not say, its data set says, else general. Pictures lie directly in image_dir. A caption is the first line of the
file with caption_extension, with enable_wildcard any line; without a file it is class_tokens. Prefix and suffix are
shuffled with the tags, a blank between. num_repeats below 1 leaves a subset out, and so does a second subset of the
same folder in a data set. Regularisation pictures (is_reg) are those of prior preservation, which are given apart here.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..folder_settings import FolderSettings, Words
from .manifest import MOST, Manifest, Remarks, amount, folder_path, value, with_names

SAME = {  # keys whose meaning is that of a setting of ours
    "keep_tokens": "keep_tokens",
    "keep_tokens_separator": "keep_tokens_separator",
    "shuffle_caption": "shuffle_caption",
    "caption_tag_dropout_rate": "caption_tag_dropout_rate",
    "caption_dropout_rate": "proportion_empty_prompts",
    "caption_separator": "caption_separator",
    "flip_aug": "random_flip",
    "enable_bucket": "aspect_ratio_buckets",
    "bucket_reso_steps": "bucket_reso_steps",
    "bucket_no_upscale": "bucket_no_upscale",
}
KINDS = {"keep_tokens": int, "bucket_reso_steps": int, "caption_tag_dropout_rate": float, "caption_dropout_rate": float}
KINDS |= {"keep_tokens_separator": str, "caption_separator": str}  # of SAME; the others are true or false
RESIZED = {"linear": "bilinear", "cubic": "bicubic", "area": "box"}  # kohya's names for what Pillow calls otherwise
USED = {
    *(*SAME, "image_dir", "metadata_file", "num_repeats", "class_tokens", "caption_extension", "caption_prefix"),
    *("caption_suffix", "enable_wildcard", "secondary_separator", "random_crop", "resize_interpolation", "resolution"),
    *(
        "is_reg",
        "conditioning_data_dir",
        "alpha_mask",
        "subsets",
        "cache_info",
    ),  # the last speeds up kohya's start only
}
LEFT = {  # why a key has no effect
    "batch_size": "a run has one batch size, --train_batch_size",
    "color_aug": "colours are never changed",
    "face_crop_aug_range": "faces are not sought",
    "min_bucket_reso": "shapes follow resolution, with sides of at most 4 to 1",
    "max_bucket_reso": "shapes follow resolution, with sides of at most 4 to 1",
    "caption_dropout_every_n_epochs": "captions are dropped at random, by caption_dropout_rate",
    "token_warmup_min": "all tags are there from the first step",
    "token_warmup_step": "all tags are there from the first step",
    "custom_attributes": "nothing here reads them",
    "network_multiplier": "the LoRA is trained at its full strength; loss weights are given in a data file of our own",
    "validation_split": "give --validation_split, or a data file of our own with a held-out folder",
    "validation_seed": "what is held out depends on the pictures alone",
    "prior_loss_weight": "give --prior_loss_weight",
    "max_token_length": "SDXL's text encoders take 77 tokens",
    "debug_dataset": "python -m sdxl_nb.audit looks at a data set",
}
MASKS = dict.fromkeys(("alpha_mask", "conditioning_data_dir"), "masks are used with --masked_loss")
PARTLY = {
    "enable_wildcard": "of the lines of a caption file one is drawn, {alternatives|in braces} stay as they are written",
    "secondary_separator": "what it holds together is shuffled and dropped one by one",
}
NO_SUFFIX = "Without caption_extension, which kohya's scripts take from a flag too, texts of any usual suffix are read."
USUAL = {"token_warmup_min": 1}


def is_its_own(said: Any) -> bool:
    """Whether this is a data set configuration of kohya's scripts."""
    return isinstance(said, Mapping) and isinstance(said.get("datasets"), list)


def read(said: Any, file: Path, config: TrainConfig) -> Manifest:
    """The subsets as folders. Raises DataError."""
    remarks = Remarks({**LEFT, **MASKS}, PARTLY)
    remarks.look({key: each for key, each in said.items() if key not in ("general", "datasets")}, {}, file.name, ())
    general = value(said, "general", dict, file.name, {})
    remarks.look(general, USUAL, "general", USED)
    folders: list[FolderSettings] = []
    for number, group in enumerate(said["datasets"], 1):
        place = f"data set {number} of {file.name}"
        if not isinstance(group, Mapping):
            raise DataError(f"{place} is {shown(group)}: it must be a group with subsets.")
        remarks.look(group, USUAL, f"data set {number}", USED)
        seen: set[str | None] = set()
        for subset in value(group, "subsets", list, place, []):
            folder = _subset(subset, {**general, **group}, place, file, config, remarks)
            if folder is None:
                continue
            key = folder.table or folder.path
            if key in seen:
                remarks.say(f"{folder.path} comes twice in {place}: the first counts, as for kohya's scripts.")
            else:
                folders.append(folder)
            seen.add(key)
    return Manifest(with_names(folders), remarks.notes())


def _subset(
    subset: Any,
    above: Mapping[str, Any],
    place: str,
    file: Path,
    config: TrainConfig,
    remarks: Remarks,
) -> FolderSettings | None:
    """A subset as a folder; None for one that is left out, of which `remarks` say why."""
    if not isinstance(subset, Mapping):
        raise DataError(f"A subset of {place} is {shown(subset)}: it must be a group with image_dir.")
    told, table = value(subset, "image_dir", str, place), value(subset, "metadata_file", str, place)
    if not told and not table:
        raise DataError(f"A subset of {place} has no image_dir: add it.")
    where = told or str(table)
    place = f"subset {where} of {file.name}"
    remarks.look(subset, USUAL, where, USED)
    said = {key: each for key, each in above.items() if key not in ("subsets", "is_reg", "image_dir")}
    said |= {key: each for key, each in subset.items() if each is not None}
    if value(said, "is_reg", bool, place, False):
        _say_class(said, where, file, config, remarks)
        return None
    repeats = amount(said, "num_repeats", int, place, 1, least=-MOST)
    if repeats < 1:
        remarks.say(f"{where} is left out, because its num_repeats is {repeats}.")
        return None
    masks = value(said, "conditioning_data_dir", str, place)
    if not config.masked_loss:
        for key in MASKS:
            if said.get(key):
                remarks.add(key, where)
    settings = _settings(said, place, remarks)
    return FolderSettings(
        folder_path(told, file) if told else os.path.dirname(folder_path(str(table), file)),
        settings=settings,
        repeats=repeats,
        words=_words(said, settings, where, place, remarks, config),
        plain=True,
        subfolders=False,
        table=folder_path(table, file) if table else None,
        masks=folder_path(masks, file) if masks else None,
    )


def _say_class(said: Mapping[str, Any], where: str, file: Path, config: TrainConfig, remarks: Remarks) -> None:
    """What becomes of regularisation pictures."""
    given = config.class_data_dir
    if given and folder_path(where, file) == folder_path(given, file):
        remarks.say(f"{where} holds regularisation pictures (is_reg), which are used as class_data_dir.")
        return
    words = said.get("class_tokens") or "the class"
    flags = f"--with_prior_preservation --class_data_dir {where} --class_prompt '{words}'"
    remarks.say(f"{where} holds regularisation pictures (is_reg) and is left out: give it with {flags}.")


def _settings(said: Mapping[str, Any], place: str, remarks: Remarks) -> dict[str, Any]:
    """The settings of ours that a subset has."""
    found = {ours: value(said, key, KINDS.get(key, bool), place) for key, ours in SAME.items()}
    found = {ours: each for ours, each in found.items() if each not in (None, "")}
    if (crop := value(said, "random_crop", bool, place)) is not None:
        found["center_crop"] = not crop
    if way := value(said, "resize_interpolation", str, place):
        found["image_interpolation_mode"] = RESIZED.get(way, way)
    if (resolution := said.get("resolution")) is not None:
        found["resolution"] = _resolution(resolution, place, remarks)
    return {**found, "folder_repeats": False}


def _resolution(given: Any, place: str, remarks: Remarks) -> int:
    """The side of the square that has the area of a resolution: a number, or (width, height)."""
    sides = given if isinstance(given, list) else [given, given]
    if len(sides) != 2 or not all(type(side) is int and 32 <= side <= 4096 for side in sides):
        raise DataError(f"resolution of {place} must be a number or a pair of numbers, not {shown(given)}: correct it.")
    side: int = sides[0] if sides[0] == sides[1] else round((sides[0] * sides[1]) ** 0.5 / 8) * 8
    if sides[0] != sides[1]:
        remarks.say(f"resolution {sides[0]}x{sides[1]} of {place} is taken as {side}, a square of that area.")
    return side


def _words(
    said: Mapping[str, Any], settings: dict[str, Any], where: str, place: str, remarks: Remarks, config: TrainConfig
) -> Words:
    """Where the captions of a subset are; prefix and suffix go into `settings` where nothing is shuffled."""
    suffix, lines = value(said, "caption_extension", str, place), value(said, "enable_wildcard", bool, place, False)
    settings["caption_lines"] = "captions" if lines else "first"
    if lines:
        remarks.add("enable_wildcard", where)
    if said.get("metadata_file"):
        suffix = None
    elif not suffix:
        remarks.say(NO_SUFFIX)
    if suffix and not suffix.startswith("."):
        raise DataError(f"caption_extension of {place} must begin with a full stop, not be {shown(suffix)}.")
    way: Literal["each", "first"] = "each" if lines else "first"
    words = Words(suffix=suffix, lines=way, missing=value(said, "class_tokens", str, place) or None)
    if between := value(said, "secondary_separator", str, place):
        words = replace(words, replaced=(between, settings.get("caption_separator", ",")))
    before, after = (value(said, key, str, place) or "" for key in ("caption_prefix", "caption_suffix"))
    own = {name: settings.get(name, getattr(config, name)) for name in ("shuffle_caption", "caption_tag_dropout_rate")}
    if any(own.values()):
        if between:
            remarks.add("secondary_separator", where)
        return replace(words, before=before, after=after)
    settings |= {key: text for key, text in (("caption_prefix", before), ("caption_suffix", after)) if text}
    return words
