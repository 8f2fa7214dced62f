"""The parameters of a run: name, kind, default, bounds and one sentence each; flags, form and files derive from them.

In: the kinds of value in fields.py; one module for each group of settings. Out: `Settings`, which config.TrainConfig
builds, validates and writes. Names, meanings and defaults are those of diffusers' train_text_to_image_lora_sdxl.py
where it has them.
"""

from pydantic import ConfigDict

from .data import DataSettings
from .logs import LoggingSettings
from .lora import LoraSettings
from .memory import MemorySettings
from .optimization import OptimizationSettings
from .training import TrainingSettings
from .validation import ValidationSettings


class Settings(
    LoggingSettings,
    ValidationSettings,
    MemorySettings,
    OptimizationSettings,
    LoraSettings,
    TrainingSettings,
    DataSettings,
):
    """Every parameter of a LoRA fine-tuning run on SDXL; see each field's sentence. The last base's come first."""

    model_config = ConfigDict(extra="forbid", frozen=True)
