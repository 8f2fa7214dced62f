"""Checks of single settings that need no machine; combinations.py has those of several together.

In: raw values. Out: the value as it is stored, or an error of one sentence with the remedy. Every check looks at the
value alone, so that whatever was valid once reloads for ever.
"""

import json
import math
import re
import unicodedata
from pathlib import Path, PurePath
from typing import Any

from .layout import lora_stem
from .messages import nearest, shown, wrong
from .prompts import read_prompts

MODULE_PRESETS = ("attention", "attention+ff", "all")
MAX_NAME, MAX_LORA_NAME = 255, 200  # bytes: a file system's limit, and what leaves room for suffixes
DATA_FILES = (".yaml", ".yml", ".toml", ".json", ".jsonl")  # that may list the folders of a data set
OPTIMIZERS = (
    "adamw",
    "adamw8bit",
    "paged_adamw8bit",
    "prodigy",
    "adafactor",
    "lion",
    "came",
    "muon",
    "adamw_schedulefree",
    "radam_schedulefree",
    "prodigy_schedulefree",
)
EXAMPLE = '{"attn2.to_k": 8}'
RATES = '{"style": 1e-4, "attn2.to_k": 5e-5}'
EMBEDDED = {
    "pretrained_model_name_or_path": ("embedded:tiny-sdxl",),
    "dataset_name": ("embedded:blueprint", "embedded:emblem"),
}


def text(value: str) -> str:
    """Text that survives every form: not empty, no NUL (argv ends there), not -- (argparse drops it)."""
    if not value:
        raise wrong("", "{field} must not be empty")
    if "\0" in value or value == "--":
        raise wrong("", f"{{field}} must not be or hold {shown(value)}, which a command line cannot carry")
    return value


def not_bool(value: Any) -> Any:
    """Refuse true and false where a number is wanted; Python would read them as 1 and 0."""
    if isinstance(value, bool):
        raise wrong("", f"{{field}} must be a number, not {str(value).lower()}")
    return value


def is_data_file(place: str | None) -> bool:
    """Whether a place is called like a file that lists folders of pictures."""
    return place is not None and "://" not in place and place.lower().endswith(DATA_FILES)


def background(value: str) -> str:
    """alpha_background: white, black, random, or a colour as six hexadecimal digits."""
    if value in ("white", "black", "random") or re.fullmatch("#[0-9A-Fa-f]{6}", value):
        return value
    raise wrong("", f"{{field}} must be white, black, random or a colour such as #808080, not {shown(value)}")


def yaml_no(value: Any) -> Any:
    """YAML reads an unquoted no as false."""
    return "no" if value is False else value


def optimizer(value: str) -> str:
    """One of ours by name, or the dotted path of a class; nothing is imported here."""
    if value in OPTIMIZERS or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", value):
        return value
    close = nearest(value.lower(), OPTIMIZERS)
    advice = f"did you mean {close}?" if close else f"use {', '.join(OPTIMIZERS)}, or a class such as torch.optim.RAdam"
    raise wrong("", f"{{field}} has no {shown(value)}: {advice}")


def optimizer_args(value: Any) -> Any:
    """One or several texts NAME=VALUE, each a Python literal or text; an object is taken too, empty is null."""
    if isinstance(value, str):
        value = re.split(r"\s+(?=[^\W\d]\w*=)", value.strip()) if value.strip() else None
    if isinstance(value, dict):
        value = [f"{name}={item}" for name, item in value.items()]
    for item in value if isinstance(value, list | tuple) else ():
        name, equals, _ = str(item).partition("=")
        if not equals or not name.isidentifier():
            raise wrong("", f"{{field}} must be NAME=VALUE, such as d_coef=2, not {shown(item)}")
        if name in ("lr", "params"):
            raise wrong("", f"{{field}} must not hold {name}: learning_rate and what is trained are set apart")
    return None if value in ([], ()) else value


def folder(value: str) -> str:
    """A run folder is on this machine: the trainer locks it and renames in it."""
    if "://" in value:
        raise wrong("output_dir", f"output_dir must be a local folder, not {shown(value)}: upload it after the run")
    return _short_parts(value)


def folder_inside(value: str) -> str:
    """A folder that stays inside the run folder: what a run overwrites lies there and nowhere else."""
    path = PurePath(value)
    if path.is_absolute() or ".." in path.parts:
        raise wrong("", f"{{field}} must lie inside output_dir, not {shown(value)}: give a name such as logs")
    return _short_parts(value)


def _short_parts(value: str) -> str:
    for part in PurePath(value).parts:
        if len(part.encode()) > MAX_NAME:
            raise wrong("", f"{{field}} has a part of more than {MAX_NAME} bytes, {shown(part)}: shorten it")
    return value


def file_name(value: str) -> str:
    """A LoRA file's name without folders; .safetensors after it, which it gets by itself, is cut off."""
    if value in (".", "..") or "/" in value or "\\" in value:
        raise wrong(
            "output_name", f"output_name must be a plain file name, not {shown(value)}: folders go in output_dir"
        )
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise wrong("output_name", f"output_name holds a control character, {shown(value)}: remove it")
    if len(value.encode()) > MAX_LORA_NAME:
        raise wrong("output_name", f"output_name must have at most {MAX_LORA_NAME} bytes: shorten it")
    if not lora_stem(value):
        raise wrong("output_name", f"output_name {shown(value)} is nothing but an ending: give a name before it")
    return lora_stem(value)


def prompts(value: Any) -> Any:
    """One prompt is a list of one; an empty list is null."""
    if isinstance(value, str):
        return [value]
    return None if value in ([], ()) else value


def samples(value: Any) -> Any:
    """sample_prompts: a file, or lines; each as `prompts.py` writes it again, so that a saved one needs no file."""
    if value is None or value in ([], (), ""):
        return None
    try:
        found = read_prompts(value[0] if isinstance(value, list | tuple) and len(value) == 1 else value)
    except ValueError as error:
        raise wrong("", f"{{field}}: {error}") from None
    return [prompt.line() for prompt in found] or None


def file_and_scale(value: str) -> tuple[str, float]:
    """FILE or FILE:SCALE as (file, scale); a colon that no number follows belongs to the file's name."""
    file, colon, number = value.rpartition(":")
    try:
        return (file, float(number)) if colon and file else (value, 1.0)
    except ValueError:
        return value, 1.0


def loras(value: str) -> str:
    """A file of base_lora, perhaps with a scale that is a number and not 0."""
    scale = file_and_scale(value)[1]
    if not math.isfinite(scale) or scale == 0:
        raise wrong("", f"{{field}} must be FILE or FILE:SCALE with a scale other than 0, not {shown(value)}")
    return value


def modules(value: Any) -> str | list[str]:
    """target_modules: a preset's word, a pattern (has regular-expression signs), or a list of module names."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items or not all(isinstance(item, str) and item for item in items):
        raise wrong("target_modules", f"target_modules must be one or several names, not {shown(value)}")
    names: list[str] = list(items)
    if len(names) == 1 and names[0] in MODULE_PRESETS:
        return names[0]
    if len(names) == 1 and re.search(r"[*+?|^$()\[\]\\]", names[0]):
        return _pattern(text(names[0]))
    for name in names:
        _check_module(name)
    return names


def _pattern(value: str) -> str:
    if close := nearest(value, MODULE_PRESETS, cutoff=0.8):
        raise wrong("target_modules", f"target_modules has no preset {value}: did you mean {close}?")
    _check_compiles("target_modules", "target_modules", value)
    return value


def _check_module(name: str) -> None:
    if name in MODULE_PRESETS:
        raise wrong("target_modules", f"target_modules takes the preset {name} alone: drop it or the other names")
    if not re.fullmatch(r"\w+(\.\w+)*", name, re.ASCII):
        raise wrong("target_modules", f"target_modules has {shown(name)}, which is no module name: separate by spaces")
    if close := nearest(name, MODULE_PRESETS, cutoff=0.8):
        raise wrong("target_modules", f"target_modules has no preset {name}: did you mean {close}?")


def image_columns(value: Any) -> Any:
    """dataset_name_mapping as {data set: {"image": ..., "caption": ...}}, from an object, JSON text or a JSON file."""
    if isinstance(value, str):
        value = _read_json(value)
    if not isinstance(value, dict):
        return value
    return {name: _pair(name, pair) for name, pair in value.items()} or None


def patterns(value: Any) -> Any:
    """rank_pattern and alpha_pattern: an object or its JSON text; names as peft matches them, empty is null."""
    value = _object(value, EXAMPLE)
    if not isinstance(value, dict):
        return value
    for name in value:
        _check_compiles("", "{field}", str(name))
    return value or None


def rates(value: Any) -> Any:
    """lr_pattern: as `patterns`."""
    value = _object(value, RATES)
    return patterns(value) if isinstance(value, dict) else value


def one_or_two(value: Any) -> Any:
    """text_encoder_lr: one number for both text encoders, or one for each; an empty list is null."""
    if isinstance(value, str):
        value = value.split()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if isinstance(value, list | tuple) and len(value) > 2:
        raise wrong("", f"{{field}} takes one or two numbers, not {len(value)}: SDXL has two text encoders")
    return None if value in ([], ()) else value


def two_numbers(value: Any) -> Any:
    """timestep_shape: two numbers; an empty list is null."""
    if isinstance(value, str):
        value = value.split()
    if isinstance(value, list | tuple) and len(value) not in (0, 2):
        raise wrong("", f"{{field}} takes two numbers, not {len(value)}")
    return None if value in ([], ()) else value


def weights(value: Any) -> Any:
    """folder_weights: an object or its JSON text; empty is null."""
    value = _object(value, '{"1_style": 0.5}')
    return None if value == {} else value


def _object(value: Any, example: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise wrong("", f"{{field}} must be JSON such as {example}, not {shown(value)}") from None


def _check_compiles(field: str, label: str, value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        raise wrong(field, f"{label} is not a valid pattern, {shown(value)}: {error}") from None


def _read_json(value: str) -> Any:
    name = "dataset_name_mapping"
    inline = value.lstrip().startswith(("{", "["))
    try:
        return json.loads(value if inline else Path(value).read_text("utf-8"))
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise wrong(name, f"{name} is neither JSON text nor a file, {shown(value)}: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise wrong(name, f"{name} is not valid JSON, {shown(value)}: {error}") from None


def _pair(name: str, pair: Any) -> dict[str, str]:
    if isinstance(pair, list | tuple) and len(pair) == 2:
        pair = {"image": pair[0], "caption": pair[1]}
    if isinstance(pair, dict) and set(pair) == {"image", "caption"} and all(isinstance(c, str) for c in pair.values()):
        return pair
    expected = '["IMAGE COLUMN", "CAPTION COLUMN"]'
    raise wrong(
        "dataset_name_mapping", f"dataset_name_mapping must give {name} its columns as {expected}, not {shown(pair)}"
    )
