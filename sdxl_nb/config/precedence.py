"""Layers of settings: what a later one takes away from an earlier one.

In: dictionaries of settings, defaults < preset < file < flags. Out: one dictionary.
A data source replaces the data source below it, and a base model brings its own VAE, revision and variant,
so that changing one setting never leaves another that belonged to the old one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
DEFAULT_VAE = "madebyollin/sdxl-vae-fp16-fix"  # belongs to the default base
DEFAULT_DATASET = "lambdalabs/naruto-blip-captions"
SOURCES = ("dataset_name", "train_data_dir")
OF_THE_BASE = ("pretrained_vae_model_name_or_path", "revision", "variant")


def overlay(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Lower with upper on top; what upper makes meaningless in lower is dropped."""
    kept = {name: value for name, value in lower.items() if name not in dropped(lower, upper)}
    return {**kept, **upper}


def dropped(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> set[str]:
    """Names in lower that belong to something upper replaces."""
    names: set[str] = set()
    if any(upper.get(source) is not None for source in SOURCES):
        names.update(SOURCES)
        names.add("dataset_config_name")
    base = "pretrained_model_name_or_path"
    if base in upper and upper[base] != lower.get(base, DEFAULT_BASE):
        names.update(OF_THE_BASE)
    if "validation_prompt" in upper and not upper["validation_prompt"]:
        names.add("num_validation_images")
    if upper.get("push_to_hub") in (False, "false"):
        names.add("hub_model_id")
    return names


def fill_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with the defaults that hang on other values: no data set beside a folder, no VAE for another base."""
    values = dict(values)
    if values.get("train_data_dir") is not None:
        values.setdefault("dataset_name", None)
    if values.get("pretrained_model_name_or_path", DEFAULT_BASE) != DEFAULT_BASE:
        values.setdefault("pretrained_vae_model_name_or_path", None)
    return values


def resumed_seed(values: Mapping[str, Any]) -> int | None:
    """The seed of the run that these values go on with, so that the same command line goes on.

    A run whose seed was drawn has it in its `config.json`; None when nothing is resumed or nothing is there.
    """
    if not values.get("resume_from_checkpoint") or not isinstance(values.get("output_dir"), str):
        return None
    try:
        seed: int | None = json.loads(Path(values["output_dir"], "config.json").read_text(encoding="utf-8"))["seed"]
        return seed
    except (OSError, ValueError, KeyError, TypeError):
        return None
