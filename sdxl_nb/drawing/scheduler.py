"""How a picture is denoised: the base's own scheduler, told what the LoRA was trained for."""

from typing import Any


def drawing_scheduler(config: Any, scheduler: Any) -> Any:
    """The base's scheduler with what this run trains: its prediction type, and zero terminal SNR."""
    options = {"prediction_type": config.prediction_type} if config.prediction_type else {}
    if config.rescale_betas_zero_snr:
        options |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return type(scheduler).from_config(scheduler.config, **options)
