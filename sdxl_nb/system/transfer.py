"""Tensors on their way to a device, without waiting for it."""

import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on its way to the device; from pinned memory, or CUDA would finish all earlier work first."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
