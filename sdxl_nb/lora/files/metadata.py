"""The text header of a LoRA file: what UIs read, and our own configuration, with nothing private in it.

In: a TrainConfig and what a run knows of itself; out: str -> str, as safetensors wants. AUTOMATIC1111 and Forge list
a file under SDXL only if `ss_base_model_version` starts with "sdxl_"; the `ss_*` names are sd-scripts', the
`modelspec.*` names Stability AI's ModelSpec 1.0.1.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ...config.header import CONFIG_KEY, base_name, safe_config
from ...config.layout import lora_stem

if TYPE_CHECKING:
    from ...config.train_config import TrainConfig

BASE_KEY = "sdxl_nb_base"
PRECISION_KEY = "sdxl_nb_precision"
ADAPTER_KEY = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
PACKAGES = ("torch", "diffusers", "transformers", "peft")


def build_metadata(
    config: "TrainConfig | Mapping[str, Any] | None",
    *,
    output_name: str,
    steps: int | None = None,
    epochs: int | None = None,
    num_train_images: int | None = None,
    data_fingerprint: str | None = None,
    loss: Mapping[str, float | None] | None = None,
    trigger_words: tuple[str, ...] | list[str] = (),
    tag_frequency: Mapping[str, Mapping[str, int]] | None = None,
    prediction_type: str | None = None,
    now: datetime | None = None,
) -> dict[str, str]:
    """The header of a run's files, from its TrainConfig (or a dict of its fields, or None); all values are strings.

    `loss` is a small summary such as {"train": 0.12, "heldout": 0.14}; `tag_frequency` is sd-scripts' folder -> tag ->
    count; trigger words default to the config's `trigger_word`; `prediction_type` is what the run trained, which a
    config may leave to the base. `save_lora` adds the hashes, the base's shapes, and
    rank and alpha as they are in the weights.
    """
    fields = dict(config or {}) if config is None or isinstance(config, Mapping) else config.model_dump(mode="json")
    prediction = prediction_type or fields.get("prediction_type") or "epsilon"
    trigger_words = tuple(trigger_words) or tuple(filter(None, [fields.get("trigger_word")]))
    now = now or datetime.now(timezone.utc)
    name = lora_stem(PurePosixPath(output_name).name)
    header = _sd_scripts_fields(fields, name, trigger_words, tag_frequency)
    header |= {
        "ss_steps": steps,
        "ss_num_epochs": epochs,
        "ss_num_train_images": num_train_images,
        "ss_training_finished_at": f"{now.timestamp():.0f}",
        "sdxl_nb_data_fingerprint": data_fingerprint,
        "sdxl_nb_loss": _json(loss) if loss else None,
        "sdxl_nb_versions": _json(_versions()),
        CONFIG_KEY: _json(safe_config(fields)),
    }
    header |= _modelspec_fields(fields, name, trigger_words, prediction, now)
    return {key: str(value) for key, value in header.items() if value is not None}


def _sd_scripts_fields(
    fields: Mapping[str, Any],
    name: str,
    trigger_words: tuple[str, ...],
    tag_frequency: Mapping[str, Mapping[str, int]] | None,
) -> dict[str, Any]:
    base = fields.get("pretrained_model_name_or_path")
    tags = tag_frequency or ({name: dict.fromkeys(trigger_words, 1)} if trigger_words else None)
    resolution = fields.get("resolution")
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": fields.get("rank"),
        "ss_network_alpha": fields.get("lora_alpha") or fields.get("rank"),
        "ss_network_args": "{}",
        "ss_output_name": name,
        "ss_sd_model_name": base_name(str(base), True) if base else None,
        "ss_max_token_length": fields.get("max_token_length"),
        "ss_clip_skip": fields.get("clip_skip"),
        "ss_resolution": f"({resolution}, {resolution})" if resolution else None,
        "ss_learning_rate": fields.get("learning_rate"),
        "ss_unet_lr": fields.get("unet_lr"),
        "ss_text_encoder_lr": fields.get("text_encoder_lr"),
        "ss_lr_scheduler": fields.get("lr_scheduler"),
        "ss_mixed_precision": fields.get("mixed_precision"),
        "ss_seed": fields.get("seed"),
        "ss_tag_frequency": _json(tags) if tags else None,
    }


def _modelspec_fields(
    fields: Mapping[str, Any], name: str, trigger_words: tuple[str, ...], prediction: str, now: datetime
) -> dict[str, Any]:
    resolution = fields.get("resolution") or 1024
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": name,
        "modelspec.resolution": f"{resolution}x{resolution}",
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else prediction,
        "modelspec.trigger_phrase": ", ".join(trigger_words) or None,
        "modelspec.date": now.isoformat(timespec="seconds"),
    }


@functools.cache  # each reads a package's description, at every checkpoint
def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in ("sdxl_nb", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def data_hashes(blob: bytes) -> dict[str, str]:
    """sd-scripts' and ModelSpec's hashes of a safetensors file, over its tensor data (header not included)."""
    start = 8 + int.from_bytes(blob[:8], "little")
    digest = hashlib.sha256(memoryview(blob)[start:]).hexdigest()
    legacy = hashlib.sha256(memoryview(blob)[0x100000:0x110000]).hexdigest()[:8]
    return {"sshs_model_hash": digest, "sshs_legacy_hash": legacy, "modelspec.hash_sha256": f"0x{digest}"}
