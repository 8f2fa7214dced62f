"""TrainConfig: every parameter of a run, once.

In: keyword arguments, command-line flags, a JSON or YAML file, a preset or SageMaker hyperparameters.
Out: one frozen, complete and valid configuration, and the same four forms again without loss.
The names and meanings are those of diffusers' train_text_to_image_lora_sdxl.py. A configuration is a plain value
(frozen, so that what was validated is what trains); `replace` makes a changed one. Whether a configuration is valid
depends on its values alone, so a saved one always reloads; what depends on this machine is asked by `machine.py`.
"""

import functools
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, model_validator

from ..system.errors import ConfigError
from ..system.remarks import remark
from . import formats, presets
from .checks import file_and_scale
from .combinations import check_combinations
from .fields import about, schema_types
from .layout import lora_stem
from .messages import check_names, refusal
from .precedence import DEFAULT_BASE, fill_in, overlay, resumed_seed
from .settings import Settings

if TYPE_CHECKING:
    from .foreign.keys import Draft

COLUMNS = {  # data sets whose columns we know: image, caption
    "lambdalabs/naruto-blip-captions": ("image", "text"),
    "embedded:blueprint": ("image", "text"),
    "embedded:emblem": ("image", "text"),
}


# fields that came after the first runs: of a run's identity only where they are not what those runs did
LATER = {name for name, field in Settings.model_fields.items() if about(field)["later"]}


class TrainConfig(Settings):
    """Every parameter of a LoRA fine-tuning run on SDXL, checked; settings/ lists them."""

    if TYPE_CHECKING:
        seed: int  # null is what may be given; `_fill_in` draws one

    def __init__(self, /, **values: Any) -> None:
        """Values by name; raises ConfigError, whose `problems` maps each wrong field to its sentence."""
        check_names(values, type(self).model_fields)
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise refusal(error) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = fill_in(values)
        if values.get("seed") is None:
            drawn = resumed_seed(values)
            values["seed"] = secrets.randbelow(2**32) if drawn is None else drawn
        return values

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        check_combinations(self)
        return self

    @classmethod
    @functools.cache
    def json_types(cls) -> dict[str, set[str]]:
        """For each field the JSON types it takes: boolean, integer, number, string, array, object, null."""
        return {name: schema_types(schema) for name, schema in cls.model_json_schema()["properties"].items()}

    # Ways in.

    @classmethod
    def build(
        cls,
        flags: Mapping[str, Any] | None = None,
        file: str | os.PathLike[str] | None = None,
        preset: str | None = None,
    ) -> "TrainConfig":
        """The configuration of these layers: defaults < preset < file < flags. Raises ConfigError.

        The file may be another trainer's (docs/other-trainers.md): what of it is lost or meant otherwise is warned of.
        """
        values: dict[str, Any] = presets.read(preset) if preset is not None else {}
        given, foreign = flags or {}, None
        if file is not None:
            stored, foreign = cls._stored(Path(file), given)
            values = overlay(values, stored)
        try:
            made = cls(**overlay(values, given))
        except ConfigError as error:
            raise foreign.blamed(error, given) if foreign else error from None
        for sentence in foreign.remarks if foreign else []:
            remark(sentence)
        return made

    @classmethod
    def _stored(cls, file: Path, given: Mapping[str, Any]) -> "tuple[dict[str, Any], Draft | None]":
        """The settings in a file where some are `given` over it, and the draft of another program's file.

        A file of ours is JSON or YAML, or a LoRA with a header; another program's is known by its keys.
        """
        if file.suffix == ".safetensors":
            from .header import read_config

            return read_config(file, cls.model_fields, given), None
        from .foreign.files import read

        stored, foreign = read(file, given)
        if foreign:
            return foreign.values, foreign
        check_names(stored, cls.model_fields, where=f" in {file.name}")
        return stored, None

    @classmethod
    def from_lora(cls, path: str | os.PathLike[str], **changes: Any) -> "TrainConfig":
        """The configuration that trained a LoRA of ours (a file or run folder), with these changes.

        Paths are base names, and where results go (output, hub, report and resume fields) is left to its defaults:
        what a stranger's header says publishes, uploads and overwrites nothing. Raises ConfigError.
        """
        from .header import find_config

        return cls.build(flags=changes, file=find_config(path))

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "TrainConfig":
        """The named preset, with these changes: TrainConfig.preset("tiny", rank=16)."""
        return cls.build(flags=changes, preset=name)

    def replace(self, **changes: Any) -> "TrainConfig":
        """This configuration with these changes, validated; the seed stays."""
        return type(self)(**overlay(self.model_dump(), changes))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "TrainConfig":
        """The configuration saved at path, JSON or YAML, or another trainer's, with a warning for what is lost."""
        return cls.build(file=path)

    @classmethod
    def from_hyperparameters(cls, hyperparameters: Mapping[str, str]) -> "TrainConfig":
        """The inverse of to_hyperparameters; a bare string (from a pipeline parameter) is taken as it is."""
        texts = {name for name, types in cls.json_types().items() if "string" in types}
        return cls(**formats.decode_hyperparameters(hyperparameters, texts))

    # Ways out.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every field to path, as JSON or (.yaml, .yml) YAML; complete or not at all."""
        formats.write_file(path, self.model_dump(mode="json"))

    def to_flags(self) -> list[str]:
        """The shortest argv that reproduces this configuration exactly."""
        return formats.encode_flags(self.essentials())

    def to_hyperparameters(self) -> dict[str, str]:
        """What differs from the defaults as JSON texts of one line; SageMaker takes 100 of 2,500 characters at most."""
        return formats.encode_hyperparameters(self.essentials())

    def essentials(self) -> dict[str, Any]:
        """The fields that differ from what a bare TrainConfig() has, and what those imply."""
        always = {"pretrained_vae_model_name_or_path"} if self.pretrained_model_name_or_path != DEFAULT_BASE else set()
        values = self.model_dump(mode="json")
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if name in always or value != fields[name].default}

    # What identifies a run.

    def identity(self) -> dict[str, Any]:
        """The fields that change the weights, local paths by their last part so that a moved folder is the same."""
        fields = type(self).model_fields
        values = self.model_dump(mode="json", exclude={n for n, f in fields.items() if not about(f)["weights"]})
        usual = {name for name in LATER if values[name] == fields[name].default}
        return formats.without_paths({name: value for name, value in values.items() if name not in usual})

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal over `identity`; equal for runs that must end with the same LoRA."""
        return formats.digest(self.identity())

    def differences(self, other: "TrainConfig") -> list[str]:
        """Names of the fields because of which the fingerprints differ."""
        ours, theirs = self.identity(), other.identity()
        return [name for name in type(self).model_fields if ours.get(name) != theirs.get(name)]

    # Derived numbers.

    def alpha(self) -> float:
        """lora_alpha, or rank where it is null."""
        return float(self.rank if self.lora_alpha is None else self.lora_alpha)

    def base_loras(self) -> tuple[tuple[str, float], ...]:
        """The files of base_lora with their scales."""
        return tuple(file_and_scale(os.path.expanduser(each)) for each in self.base_lora or ())

    def columns(self) -> tuple[str, str]:
        """Names of the picture and caption columns: given, else mapped, else built in, else image and text."""
        mapped = (self.dataset_name_mapping or {}).get(self.dataset_name or "", {})
        image, caption = COLUMNS.get(self.dataset_name or "", ("image", "text"))
        image, caption = mapped.get("image", image), mapped.get("caption", caption)
        return self.image_column or image, self.caption_column or caption

    def optimizer_name(self) -> str:
        """The optimizer, use_8bit_adam counted in."""
        return "adamw8bit" if self.use_8bit_adam else self.optimizer

    def optimizer_arguments(self) -> dict[str, Any]:
        """optimizer_args by name, each as the Python literal that it is written as, else as text."""
        return dict(formats.argument(item) for item in self.optimizer_args or [])

    def scaled_learning_rate(self, num_processes: int) -> float:
        """The learning rate; with scale_lr times processes, accumulation and batch size."""
        pictures = num_processes * self.gradient_accumulation_steps * self.train_batch_size
        return self.learning_rate * (pictures if self.scale_lr else 1)

    def chunks(self) -> int:
        """How many chunks of a text encoder's length a caption may take."""
        return self.max_token_length // 75

    def caches_text_embeddings(self) -> bool:
        """Whether prompt embeddings are computed once: not while the text encoders learn or captions change."""
        return self.cache_text_embeddings and not self.train_text_encoder and not self.varies_captions()

    def varies_captions(self) -> bool:
        """Whether a picture's caption is not the same at every step."""
        return self.shuffle_caption or self.caption_tag_dropout_rate > 0

    def uses_buckets(self) -> bool:
        """Whether pictures keep their ratio of sides; see aspect_ratio_buckets."""
        return not self.center_crop if self.aspect_ratio_buckets is None else self.aspect_ratio_buckets

    def validation_seeds(self) -> list[int]:
        """One seed for each validation picture of a prompt, counted up from validation_seed or seed."""
        first = self.seed if self.validation_seed is None else self.validation_seed
        return [(first + i) % 2**32 for i in range(self.num_validation_images)]

    def lora_name(self) -> str:
        """Name of the kohya file without .safetensors: output_name, or the run folder's name."""
        return self.output_name or lora_stem(os.path.basename(os.path.abspath(self.output_dir))) or "lora"
