"""SimpleTuner's multidatabackend.json: a list of data sets, of which the local ones with pictures are folders.

As bghira/SimpleTuner has it (documentation/DATALOADER.md, simpletuner/helpers/prompts.py): `repeats` are added to the
once that every picture is seen, so 0 is once; pictures lie anywhere below instance_data_dir; each line of the .txt
beside one is a caption. resolution is the side of a square of the area wanted (pixel_area), megapixels (area), or the
shorter side (pixel). An `eval` data set is measured and never trained on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ...config.messages import shown
from ...config.train_config import TrainConfig
from ...system.errors import DataError
from ..folder_settings import FolderSettings, Words
from .manifest import Manifest, Remarks, amount, folder_path, value, with_names

ABOUT = {"instance_data_dir", "dataset_type", "caption_strategy"}  # of which an entry has some
CACHES = ("text_embeds", "image_embeds", "conditioning_image_embeds")
SPLIT_ON = {"comma": ",", "space": " ", "period": "."}
USED = {
    *("id", "type", "dataset_type", "disabled", "disable", "instance_data_dir", "repeats", "instance_prompt"),
    *("caption_strategy", "prepend_instance_prompt", "only_instance_prompt", "disable_multiline_split"),
    *("caption_shuffle", "resolution", "resolution_type", "crop", "crop_style", "crop_aspect"),
    # about caches of that program, and about how it finds and names its files
    *("cache_dir", "cache_dir_vae", "vae_cache_clear_each_epoch", "vae_cache_ondemand", "vae_cache_disable"),
    *("text_embeds", "image_embeds", "conditioning_image_embeds", "skip_file_discovery", "hash_filenames"),
    *("preserve_data_backend_cache", "metadata_backend", "metadata_update_interval", "default", "write_batch_size"),
    *("ignore_epochs", "is_regularisation_data", "is_regularization_data", "parquet"),
}
SMALL = "the audit names pictures that are too small or too narrow, and none is left out"
WHEN = "every folder is trained on from the first step to the last"
NOT_DELETED = "pictures are never deleted"
LEFT = {
    "probability": "give repeats or, in a data file of our own, a loss_weight",
    "minimum_image_size": SMALL,
    "minimum_aspect_ratio": SMALL,
    "maximum_aspect_ratio": SMALL,
    "maximum_image_size": "large pictures are always made smaller before they are cropped",
    "target_downsample_size": "large pictures are always made smaller before they are cropped",
    "max_upscale_threshold": "see --bucket_no_upscale",
    "crop_aspect_buckets": "shapes follow the pictures",
    "train_batch_size": "a run has one batch size, --train_batch_size",
    "max_num_samples": "all pictures are used",
    **dict.fromkeys(("start_epoch", "start_step", "end_epoch", "end_step"), WHEN),
    **dict.fromkeys(("delete_unwanted_images", "delete_problematic_images", "delete_nsfw_images"), NOT_DELETED),
    **dict.fromkeys(("conditioning_data", "conditioning"), "there is no training on conditioning pictures"),
    "timestep_sampling_offset": "timesteps are drawn alike for all pictures",
    "caption_filter_list": "captions stay as they are",
    "slider_strength": "a slider's opposite pictures are given with --slider_negative_dir",
}
PARTLY = {
    "resolution_type": "resolution is taken as the side of a square of the area, not as the shorter side",
    "crop_style": "crops are random or of the centre",
    "crop_aspect": "pictures are trained as squares, or near their own ratio of sides",
    "caption_shuffle": "captions are shuffled anew each time, not in a number of ways",
}
USUAL = {"probability": 1, "start_epoch": 1, "caption_filter_list": []}


def is_its_own(said: Any) -> bool:
    """Whether this is a list of SimpleTuner's data backends."""
    return isinstance(said, list) and any(isinstance(each, Mapping) and ABOUT & each.keys() for each in said)


def read(said: Any, file: Path, config: TrainConfig) -> Manifest:
    """The data sets with pictures as folders. Raises DataError."""
    remarks = Remarks(LEFT, PARTLY)
    folders = [_backend(each, number, file, remarks) for number, each in enumerate(said, 1)]
    return Manifest(with_names([folder for folder in folders if folder]), remarks.notes())


def _backend(said: Any, number: int, file: Path, remarks: Remarks) -> FolderSettings | None:
    """A data set as a folder; None for one that is left out, of which `remarks` say why."""
    if not isinstance(said, Mapping):
        raise DataError(f"Data set {number} of {file.name} is {shown(said)}: it must be a group with an id.")
    name = value(said, "id", str, f"data set {number} of {file.name}") or str(number)
    place, kind = f"data set {name} of {file.name}", said.get("dataset_type") or "image"
    if kind in CACHES:  # caches of ours lie elsewhere
        return None
    why = _left_out(said, kind)
    if why:
        remarks.say(f"Data set {name} is left out, because {why}.")
        return None
    if kind not in ("image", "eval"):
        raise DataError(f"dataset_type of {place} is {shown(kind)}, which is not known: give image or eval.")
    path = value(said, "instance_data_dir", str, place)
    if not path:
        raise DataError(f"{place} has no instance_data_dir: add it.")
    remarks.look(said, USUAL, name, USED)
    repeats = amount(said, "repeats", int, place, 0)
    settings = {**_size(said, name, place, remarks), **_texts(said, name, place, remarks), "folder_repeats": False}
    return FolderSettings(
        folder_path(path, file),
        name.replace("/", " "),
        settings,
        repeats=repeats + 1,
        held_out=kind == "eval",
        words=_words(said, place),
        plain=True,
    )


def _left_out(said: Mapping[str, Any], kind: str) -> str:
    """Why a data set is not trained on, or ""."""
    source, strategy = said.get("type") or "local", said.get("caption_strategy")
    if said.get("disabled") or said.get("disable"):
        return "it is disabled"
    if kind in ("video", "audio", "conditioning", "caption", "distillation_cache"):
        return f"it holds {kind}, not training pictures"
    if source in ("aws", "csv", "huggingface", "webshart", "memory"):
        return f"it is no local folder but {source}: give that to --train_data_dir (s3://) or --dataset_name by itself"
    if source != "local":
        return f"its type {shown(source)} is not known: give local"
    if said.get("is_regularisation_data") or said.get("is_regularization_data"):
        return "it is regularisation data: class pictures are given with --with_prior_preservation --class_data_dir"
    if strategy in ("parquet", "huggingface", "webshart", "csv"):
        return f"its captions are in {strategy}: give that data set to --train_data_dir by itself"
    return ""


def _size(said: Mapping[str, Any], name: str, place: str, remarks: Remarks) -> dict[str, Any]:
    """The settings of ours about size and crop."""
    found: dict[str, Any] = {}
    way = said.get("resolution_type") or "pixel_area"
    size = None if said.get("resolution") is None else amount(said, "resolution", float, place, 0)
    if way not in ("pixel_area", "area", "pixel"):
        raise DataError(f"resolution_type of {place} is {shown(way)}: give pixel_area, area or pixel.")
    if size is not None:
        side = (max(size, 0) * 1e6) ** 0.5 if way == "area" else size
        found["resolution"] = round(side / 8) * 8 if way == "area" else side
    if way == "pixel":
        remarks.add("resolution_type", name)
    if (crop := value(said, "crop", bool, place)) is None:
        return found
    aspect, style = said.get("crop_aspect") or "square", said.get("crop_style") or "random"
    found["aspect_ratio_buckets"] = not (crop and aspect == "square")
    if crop:
        found["center_crop"] = style == "center"
        if style not in ("center", "random"):
            remarks.add("crop_style", name)
        if aspect not in ("square", "preserve"):
            remarks.add("crop_aspect", name)
    return found


def _texts(said: Mapping[str, Any], name: str, place: str, remarks: Remarks) -> dict[str, Any]:
    """The settings of ours about captions."""
    whole = value(said, "disable_multiline_split", bool, place, False)
    found: dict[str, Any] = {"caption_lines": "join" if whole else "captions"}
    shuffle = value(said, "caption_shuffle", dict, place, {})
    if shuffle.get("enable"):
        split = shuffle.get("split_on") or "comma"
        if split not in SPLIT_ON:
            raise DataError(f"split_on of {place} is {shown(split)}: give {', '.join(SPLIT_ON)}.")
        kept = value(shuffle, "position_start", int, place, 0)
        found |= {"shuffle_caption": True, "keep_tokens": kept, "caption_separator": SPLIT_ON[split]}
        remarks.add("caption_shuffle", name)
    prompt = value(said, "instance_prompt", str, place)
    if value(said, "prepend_instance_prompt", bool, place, False):
        if not prompt:
            raise DataError(f"{place} has prepend_instance_prompt and no instance_prompt: add it.")
        found["caption_prefix"] = prompt
    return found


def _words(said: Mapping[str, Any], place: str) -> Words:
    """Where the captions of a data set are. Raises DataError."""
    strategy, prompt = said.get("caption_strategy") or "filename", value(said, "instance_prompt", str, place)
    if strategy == "instanceprompt" or value(said, "only_instance_prompt", bool, place, False):
        if not prompt:
            raise DataError(f"{place} takes its instance_prompt as caption, but has none: add it.")
        return Words(every=(prompt,))
    if strategy == "filename":
        return Words(from_names="with blanks")
    if strategy != "textfile":
        given = "textfile, filename or instanceprompt"
        raise DataError(f"caption_strategy of {place} is {shown(strategy)}, which is not known: give {given}.")
    lines: Literal["all", "each"] = "all" if value(said, "disable_multiline_split", bool, place, False) else "each"
    return Words(suffix=".txt", lines=lines)
