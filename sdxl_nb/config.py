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
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, model_validator

from . import forms, presets
from .checks import check_combinations, file_name, folder, folder_inside
from .complaints import check_names, refusal
from .fields import (
    MANY,
    Alphas,
    Interpolation,
    Mapped,
    Modules,
    Number,
    Optimizer,
    Precision,
    Prompts,
    Ranks,
    Schedule,
    Text,
    Tracker,
    Whole,
    data,
    log,
    lora,
    memory,
    optimization,
    schema_types,
    training,
    validation,
)
from .layers import DEFAULT_BASE, DEFAULT_DATASET, DEFAULT_VAE, fill_in, overlay, resumed_seed

COLUMNS = {  # data sets whose columns we know: image, caption
    "lambdalabs/naruto-blip-captions": ("image", "text"),
    "embedded:blueprint": ("image", "text"),
    "embedded:emblem": ("image", "text"),
}


class TrainConfig(BaseModel):
    """Every parameter of a LoRA fine-tuning run on SDXL; see each field's sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained_model_name_or_path: Text = data(
        DEFAULT_BASE, "Base model: a hub id, a diffusers folder, a .safetensors checkpoint, or embedded:tiny-sdxl."
    )
    pretrained_vae_model_name_or_path: Text | None = data(
        DEFAULT_VAE,
        "Another VAE by hub id or path; null uses the base's own, which any base but the default one does.",
    )
    revision: Text | None = data(None, "Branch, tag or commit of the base model on the hub.")
    variant: Text | None = data(None, "Variant of the base model's files, for example fp16.")
    dataset_name: Text | None = data(
        DEFAULT_DATASET,
        "Training pictures: a hub data set, a local copy of one, embedded:blueprint or embedded:emblem.",
    )
    dataset_config_name: Text | None = data(None, "Configuration of the hub data set, if it has several.")
    train_data_dir: Text | None = data(
        None, "Training pictures: a local folder or s3:// prefix with captions; replaces dataset_name."
    )
    image_column: Text | None = data(None, "Column of the pictures; null asks dataset_name_mapping, then means image.")
    caption_column: Text | None = data(None, "Column of the captions; null asks dataset_name_mapping, then means text.")
    dataset_name_mapping: Mapped = data(
        None, "JSON text or a JSON file that maps a data set to its columns: {NAME: [IMAGE, CAPTION]}."
    )
    max_train_samples: Whole | None = data(None, "Use only the first so many pictures.", ge=1, le=MANY)
    cache_dir: Text | None = data(
        None, "Where downloaded models and data sets are kept; null is the hub's own cache.", weights=False
    )
    resolution: Whole = data(1024, "Side in pixels of the training pictures, a multiple of 8.", ge=32, le=4096)
    center_crop: bool = data(
        False,
        "Crop the centre of each picture instead of a random place; with cache_latents each keeps its middle crop "
        "in every epoch anyway.",
    )
    random_flip: bool = data(
        False, "Mirror pictures at random, left to right; with cache_latents each keeps its middle crop in every epoch."
    )
    image_interpolation_mode: Interpolation = data("lanczos", "How pictures are resized.")
    proportion_empty_prompts: Number = data(
        0.0, "Share of captions replaced by an empty one, so that guidance keeps working.", ge=0, le=1
    )
    trigger_word: Text | None = data(
        None, "Word that calls the concept: put before every caption that lacks it, noted in the card."
    )

    output_dir: Annotated[Text, AfterValidator(folder)] = training(
        "sd-model-finetuned-lora", "Run folder: checkpoints, pictures, logs and the LoRA go there.", weights=False
    )
    output_name: Annotated[Text, AfterValidator(file_name)] | None = training(
        None,
        "Name of the LoRA file for ComfyUI and A1111, without .safetensors; null is the run folder's name.",
        weights=False,
    )
    seed: Whole | None = training(None, "Seed of everything random; null draws one and stores it.", ge=0, le=2**32 - 1)
    train_batch_size: Whole = training(
        16, "Pictures that one process adds to an optimizer step before accumulation.", ge=1, le=4096
    )
    num_train_epochs: Whole = training(100, "How often training goes through all pictures.", ge=1, le=MANY)
    max_train_steps: Whole | None = training(
        None, "Number of optimizer steps; replaces num_train_epochs.", ge=1, le=MANY
    )
    gradient_accumulation_steps: Whole = training(1, "Batches added up before each optimizer step.", ge=1, le=4096)
    checkpointing_steps: Whole = training(
        500, "Save a checkpoint every so many optimizer steps.", ge=1, le=MANY, weights=False
    )
    checkpoints_total_limit: Whole | None = training(
        None, "Keep only so many of the newest checkpoints.", ge=1, le=MANY, weights=False
    )
    resume_from_checkpoint: Text | None = training(None, "Go on from a checkpoint: its path, or latest.", weights=False)
    overwrite_output_dir: bool = training(False, "Replace the run that output_dir already holds.", weights=False)
    train_text_encoder: bool = training(False, "Train LoRA layers on both text encoders too.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = training(
        None, "What the model predicts; null is what the base's scheduler says."
    )
    snr_gamma: Number | None = training(None, "Min-SNR loss weight (arXiv 2303.09556); 5.0 is recommended.", gt=0)
    noise_offset: Number = training(0.0, "Scale of noise offset, for darker darks and brighter brights.", ge=0, le=1)
    rescale_betas_zero_snr: bool = training(
        False, "Rescale the noise schedule to zero terminal SNR (arXiv 2305.08891)."
    )

    rank: Whole = lora(4, "Rank of the LoRA matrices.", ge=1, le=1024)
    lora_alpha: Number | None = lora(None, "LoRA strength is lora_alpha / rank; null means rank.", gt=0)
    lora_dropout: Number = lora(0.0, "Dropout on the input of the LoRA layers.", ge=0, lt=1)
    target_modules: Modules = lora(
        "attention",
        "Layers that get LoRA: attention, attention+ff, all (with convolutions), or peft module names or one pattern.",
    )
    rank_pattern: Ranks = lora(
        None, 'Other ranks for some layers: JSON of peft module names or patterns, {"attn2.to_k": 8}; null is none.'
    )
    alpha_pattern: Alphas = lora(
        None, "Other lora_alpha for some layers, in the same form; a layer with a rank of its own keeps lora_alpha."
    )
    use_dora: bool = lora(False, "DoRA: learn each layer's magnitude and direction apart (arXiv 2402.09353).")
    use_rslora: bool = lora(False, "rsLoRA: scale by the square root of the rank (arXiv 2312.03732).")

    optimizer: Optimizer = optimization("adamw", "Optimizer.")
    use_8bit_adam: bool = optimization(False, "8-bit AdamW from bitsandbytes; the same as optimizer adamw8bit.")
    learning_rate: Number = optimization(1e-4, "Learning rate after warm-up.", gt=0, le=10)
    scale_lr: bool = optimization(False, "Multiply the learning rate by processes, accumulation and batch size.")
    lr_scheduler: Schedule = optimization("constant", "Course of the learning rate, counted in optimizer steps.")
    lr_warmup_steps: Whole = optimization(
        500, "Optimizer steps of warm-up, for every lr_scheduler but constant.", ge=0, le=MANY
    )
    adam_beta1: Number = optimization(0.9, "Decay of AdamW's first moment.", ge=0, lt=1)
    adam_beta2: Number = optimization(0.999, "Decay of AdamW's second moment.", ge=0, lt=1)
    adam_weight_decay: Number = optimization(1e-2, "AdamW's weight decay.", ge=0)
    adam_epsilon: Number = optimization(1e-8, "AdamW's epsilon.", gt=0)
    max_grad_norm: Number = optimization(1.0, "Largest norm of the gradients; larger ones are scaled down.", gt=0)

    mixed_precision: Precision | None = memory(
        None, "Compute in fp16 or bf16 (LoRA weights stay fp32); null is what accelerate is configured for."
    )
    gradient_checkpointing: bool = memory(False, "Save memory by computing activations again in the backward pass.")
    cache_latents: bool = memory(
        True,
        "Compute the VAE's latents once, before training: each picture keeps its middle crop in every epoch, also "
        "without center_crop; --no_cache_latents draws a new crop each time.",
    )
    cache_text_embeddings: bool = memory(
        True, "Compute the prompt embeddings once; with train_text_encoder they are live."
    )
    allow_tf32: bool = memory(False, "Allow TF32 on Ampere and later GPUs, faster at slightly less precision.")
    enable_xformers_memory_efficient_attention: bool = memory(
        False, "Attention by xformers; PyTorch's SDPA is used by default."
    )
    enable_npu_flash_attention: bool = memory(False, "Flash attention on Ascend NPUs.")
    dataloader_num_workers: Whole = memory(
        0,
        "Accepted for compatibility with the diffusers script, without effect: no processes load pictures.",
        ge=0,
        le=256,
        weights=False,
    )

    validation_prompt: Prompts = validation(
        None, "One or several prompts to draw while training, from fixed seeds.", weights=False
    )
    num_validation_images: Whole = validation(4, "Pictures for each validation prompt.", ge=1, le=64, weights=False)
    validation_epochs: Whole = validation(
        1, "Draw validation pictures every so many epochs.", ge=1, le=MANY, weights=False
    )
    validation_inference_steps: Whole = validation(
        25, "Denoising steps of a validation picture.", ge=1, le=1000, weights=False
    )
    validation_guidance_scale: Number = validation(
        5.0, "Guidance scale of a validation picture.", ge=0, le=100, weights=False
    )
    validation_seed: Whole | None = validation(
        None, "Seed of the first validation picture; null is seed.", ge=0, le=2**32 - 1, weights=False
    )

    report_to: Tracker = log("tensorboard", "Where the loss curves go.", weights=False)
    logging_dir: Annotated[Text, AfterValidator(folder_inside)] = log(
        "logs", "TensorBoard's folder inside output_dir.", weights=False
    )
    debug_loss: bool = log(False, "Log the loss of every picture by its file name.", weights=False)
    push_to_hub: bool = log(
        False, "Upload the LoRA to the hub at the end; the token comes from HF_TOKEN.", weights=False
    )
    hub_model_id: Text | None = log(None, "Repository on the hub; null is the run folder's name.", weights=False)

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
        """The configuration of these layers: defaults < preset < file < flags. Raises ConfigError."""
        values: dict[str, Any] = presets.read(preset) if preset is not None else {}
        if file is not None:
            values = overlay(values, cls._stored(Path(file)))
        return cls(**overlay(values, flags or {}))

    @classmethod
    def _stored(cls, file: Path) -> dict[str, Any]:
        """The settings in a file: JSON, YAML, or the header of a LoRA."""
        if file.suffix == ".safetensors":
            from .lora.reader import read_config

            return read_config(file, cls.model_fields)
        stored = forms.read_file(file)
        check_names(stored, cls.model_fields, where=f" in {file.name}")
        return stored

    @classmethod
    def from_lora(cls, path: str | os.PathLike[str], **changes: Any) -> "TrainConfig":
        """The configuration that trained a LoRA of ours (a file or run folder), with these changes.

        Paths are base names, and where results go (output, hub, report and resume fields) is left to its defaults:
        what a stranger's header says publishes, uploads and overwrites nothing. Raises ConfigError.
        """
        from .lora.reader import find_config

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
        """The configuration saved at path, JSON or YAML."""
        return cls.build(file=path)

    @classmethod
    def from_hyperparameters(cls, hyperparameters: Mapping[str, str]) -> "TrainConfig":
        """The inverse of to_hyperparameters; a bare string (from a pipeline parameter) is taken as it is."""
        texts = {name for name, types in cls.json_types().items() if "string" in types}
        return cls(**forms.decode_hyperparameters(hyperparameters, texts))

    # Ways out.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every field to path, as JSON or (.yaml, .yml) YAML; complete or not at all."""
        forms.write_file(path, self.model_dump(mode="json"))

    def to_flags(self) -> list[str]:
        """The shortest argv that reproduces this configuration exactly."""
        return forms.encode_flags(self.essentials())

    def to_hyperparameters(self) -> dict[str, str]:
        """Every field as a JSON text of one line; SageMaker takes 100 strings of 2,500 characters at most."""
        return forms.encode_hyperparameters(self.model_dump(mode="json"))

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
        values = self.model_dump(
            mode="json", exclude={n for n, f in fields.items() if not f.json_schema_extra["weights"]}
        )
        return forms.without_paths(values)

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal over `identity`; equal for runs that must end with the same LoRA."""
        return forms.digest(self.identity())

    def differences(self, other: "TrainConfig") -> list[str]:
        """Names of the fields because of which the fingerprints differ."""
        theirs = other.identity()
        return [name for name, value in self.identity().items() if value != theirs[name]]

    # Derived numbers.

    def alpha(self) -> float:
        """lora_alpha, or rank where it is null."""
        return float(self.rank if self.lora_alpha is None else self.lora_alpha)

    def columns(self) -> tuple[str, str]:
        """Names of the picture and caption columns: given, else mapped, else built in, else image and text."""
        mapped = (self.dataset_name_mapping or {}).get(self.dataset_name or "", {})
        image, caption = COLUMNS.get(self.dataset_name or "", ("image", "text"))
        image, caption = mapped.get("image", image), mapped.get("caption", caption)
        return self.image_column or image, self.caption_column or caption

    def optimizer_name(self) -> Optimizer:
        """The optimizer, use_8bit_adam counted in."""
        return "adamw8bit" if self.use_8bit_adam else self.optimizer

    def scaled_learning_rate(self, num_processes: int) -> float:
        """The learning rate; with scale_lr times processes, accumulation and batch size."""
        pictures = num_processes * self.gradient_accumulation_steps * self.train_batch_size
        return self.learning_rate * (pictures if self.scale_lr else 1)

    def caches_text_embeddings(self) -> bool:
        """Whether prompt embeddings are computed once: not while the text encoders learn."""
        return self.cache_text_embeddings and not self.train_text_encoder

    def validation_seeds(self) -> list[int]:
        """One seed for each validation picture of a prompt, counted up from validation_seed or seed."""
        first = self.seed if self.validation_seed is None else self.validation_seed
        return [(first + i) % 2**32 for i in range(self.num_validation_images)]

    def lora_name(self) -> str:
        """Name of the kohya file without .safetensors: output_name, or the run folder's name."""
        return self.output_name or os.path.basename(os.path.abspath(self.output_dir)) or "lora"
