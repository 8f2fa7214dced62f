"""How the U-Net computes: which implementation, attention, memory format, what it keeps, and what is compiled.

In: a TrainConfig. Out: a U-Net made ready for training; ConfigError for what this machine cannot do, before the first
step. Nothing here changes what is learned, beyond rounding.
"""

from typing import TYPE_CHECKING

import torch

from ..config.train_config import TrainConfig
from ..models.sources import first_line
from ..models.unet import SdxlUNet
from ..system.errors import ConfigError, SdxlNbError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from ..models.unet import UNet
    from ..training.state.parameters import FlatParameters

VERSIONS = 64


def wants_ours(config: TrainConfig) -> bool:
    """Whether our U-Net may do it; xformers and NPU attention come through diffusers' own."""
    return not (config.enable_xformers_memory_efficient_attention or config.enable_npu_flash_attention)


def make_ready(unet: "UNet", config: TrainConfig, device: torch.device, remarks: list[str]) -> None:
    """Set the U-Net up as the configuration says; lines for the user are added to `remarks`."""
    if config.gradient_checkpointing:
        _recompute(unet, config.gradient_checkpointing_policy, remarks)
    theirs: UNet2DConditionModel = unet  # it is where one of these two is asked for, see `wants_ours`
    if config.enable_xformers_memory_efficient_attention:
        try:
            theirs.enable_xformers_memory_efficient_attention()
        except Exception as error:  # diffusers tries a small tensor; xformers has errors of every kind
            raise ConfigError(no_xformers(error)) from error
    if config.enable_npu_flash_attention:
        theirs.enable_npu_flash_attention()
    if device.type == "cuda":  # a kernel outlives this run; convolutions have it by default, as in diffusers' script
        torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    if config.torch_compile:
        _compile(unet)


def lay_out(unet: "UNet", device: torch.device) -> None:
    """Frozen weights as the device wants them, once they are there; trained ones lie in one flat vector."""
    if device.type != "cuda" and not isinstance(unet, SdxlUNet):
        return
    for tensor in (*unet.parameters(), *unet.buffers()):
        if tensor.ndim == 4 and not tensor.requires_grad:  # as cuDNN's half precision and our short way want it
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def _compile(unet: "UNet") -> None:
    """Compile the blocks, in as many versions as a run asks for.

    They share one function, of which dynamo keeps eight versions and then computes without it, with no more than a
    line in its log; and widths, buckets, smaller batches, gradients or none are versions.
    """
    import torch._dynamo

    torch._dynamo.reset()  # the versions of an earlier run in this process
    torch._dynamo.config.recompile_limit = VERSIONS
    unet.compile_repeated_blocks()


def _recompute(unet: "UNet", policy: str, remarks: list[str]) -> None:
    if isinstance(unet, SdxlUNet):
        unet.enable_gradient_checkpointing(policy)
        return
    if policy != "whole":
        remarks.append(f"gradient_checkpointing_policy {policy} needs the U-Net of this package; here it is whole.")
    unet.enable_gradient_checkpointing()


def take_the_short_way(unet: "UNet", flat: "FlatParameters", config: TrainConfig) -> None:
    """Let plain LoRA layers of our U-Net compute together (lora/fast.py), unless they are compiled instead.

    It keeps one strength and takes whole layers, which dropout, masks of ranks and a slider from pairs do not.
    """
    from .fast import LoraFast, is_plain

    changes = config.rank_dropout or config.module_dropout or config.tlora_min_rank or config.slider_negative_dir
    if isinstance(unet, SdxlUNet) and not config.torch_compile and not changes and is_plain(unet):
        unet.fast = LoraFast(unet, flat)


def rooms(unet: "UNet") -> list[torch.Tensor]:
    """The buffers that the short way writes into, each of which a larger picture replaces by another."""
    fast = getattr(unet, "fast", None)
    return [] if fast is None else list(fast.narrowing.rooms.values())


def is_short(unet: "UNet") -> bool:
    """Whether the U-Net as it is now computes all in its own dtype, without autocast: drawing takes the long way."""
    return getattr(unet, "fast", None) is not None and unet.training


def no_xformers(error: BaseException) -> str:
    return (
        f"enable_xformers_memory_efficient_attention: xformers does not work here ({first_line(error).rstrip('.')}): "
        f"install the build for torch {torch.__version__}, or drop the flag, PyTorch's SDPA is used by default"
    )


def is_compiler(error: BaseException) -> bool:
    """Whether torch.compile itself failed: its errors are of its own modules."""
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)


def not_compiled(error: BaseException) -> SdxlNbError:
    return SdxlNbError(f"torch_compile cannot compile the U-Net's blocks here ({first_line(error)}): drop the flag.")
