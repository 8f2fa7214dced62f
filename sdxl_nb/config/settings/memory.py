"""Settings of the group memory: precision, recomputation, caches."""

from typing import Literal

from pydantic import BaseModel

from ..fields import Precision, Text, Whole, memory


class MemorySettings(BaseModel):
    """Precision, recomputation, caches; see each field's sentence."""

    mixed_precision: Precision | None = memory(
        None, "Compute in fp16 or bf16 (LoRA weights stay fp32); null is what accelerate is configured for."
    )
    base_precision: Literal["bf16", "fp16", "fp32", "int8", "fp8"] | None = memory(
        None,
        "How the frozen U-Net and text encoders are kept: int8 and fp8 take half the memory of bf16, with a scale for "
        "each output channel; null is as they compute, in mixed_precision.",
        later=True,
    )
    gradient_checkpointing: bool = memory(False, "Save memory by computing activations again in the backward pass.")
    gradient_checkpointing_policy: Literal["whole", "selective"] = memory(
        "whole",
        "What gradient_checkpointing computes again: whole, each residual and transformer block; selective, only "
        "cross-attention and feed-forward layers, half the memory saved for half the extra time.",
        weights=False,
    )
    torch_compile: bool = memory(
        False, "Compile each transformer block with torch.compile: minutes at the start, faster steps on a GPU."
    )
    cuda_graphs: bool = memory(
        False,
        "Launch forward and backward pass as one CUDA graph for each size of picture that comes often: less waiting "
        "for Python on an NVIDIA GPU, whose memory for a step then stays taken while pictures are drawn.",
        weights=False,
    )
    cache_latents: bool = memory(
        True,
        "Compute the VAE's latents once, before training: each picture keeps its middle crop in every epoch, also "
        "without center_crop; --no_cache_latents draws a new crop each time.",
    )
    cached_variants: Whole = memory(
        1,
        "Crops of each picture that are encoded and kept: 1 is the middle alone, more are others too, every second "
        "mirrored with random_flip, of which each time one is drawn.",
        ge=1,
        le=64,
        later=True,
    )
    cache_text_embeddings: bool = memory(
        True, "Compute the prompt embeddings once; with train_text_encoder they are live."
    )
    vae_tiling: bool = memory(
        False,
        "Encode and decode pictures larger than 512 px in overlapping tiles: the VAE takes less memory, the latents "
        "are faintly others.",
        later=True,
    )
    latents_cache_dir: Text | None = memory(
        None,
        "Folder of cached latents and prompt embeddings, shared by all runs and safe to delete; null is SDXL_NB_CACHE, "
        "or sdxl_nb in the user's cache folder.",
        weights=False,
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
