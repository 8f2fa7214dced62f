"""Layers of settings: what a later one takes away from an earlier one.

In: dictionaries of settings, defaults < preset < file < flags. Out: one dictionary.
A data source replaces the data source below it, and a base model brings its own VAE, revision and variant,
so that changing one setting never leaves another that belonged to the old one.
"""

from collections.abc import Mapping
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
