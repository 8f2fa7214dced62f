"""How a picture is denoised: the base's own scheduler, told what the LoRA was trained for."""

from typing import Any

from ..config.train_config import TrainConfig


def drawing_scheduler(config: TrainConfig, scheduler: Any) -> Any:
    """The base's scheduler with what this run trains: its prediction type, and zero terminal SNR."""
    options: dict[str, Any] = {"prediction_type": config.prediction_type} if config.prediction_type else {}
    if config.rescale_betas_zero_snr:
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return type(scheduler).from_config(scheduler.config, **options)
