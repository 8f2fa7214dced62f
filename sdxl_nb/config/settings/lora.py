"""Settings of the group LoRA: which layers learn, at which rank."""

from typing import Literal

from pydantic import BaseModel

from ..fields import Alphas, Loras, Modules, Number, Ranks, Text, Whole, lora


class LoraSettings(BaseModel):
    """Which layers learn, at which rank; see each field's sentence."""

    rank: Whole = lora(4, "Rank of the LoRA matrices.", ge=1, le=1024)
    lora_alpha: Number | None = lora(None, "LoRA strength is lora_alpha / rank; null means rank.", gt=0)
    lora_dropout: Number = lora(0.0, "Dropout on the input of the LoRA layers.", ge=0, lt=1)
    rank_dropout: Number = lora(
        0.0,
        "Chance that each rank of a LoRA layer, of LoHa and LoKr each output, is left out for a picture.",
        ge=0,
        lt=1,
        later=True,
    )
    module_dropout: Number = lora(
        0.0, "Chance that a layer's whole LoRA is left out for a picture.", ge=0, lt=1, later=True
    )
    lora_kind: Literal["lora", "loha", "lokr"] = lora(
        "lora",
        "Kind of the layers: lora, loha (FedPara, arXiv 2108.06098) or lokr (Kronecker products, arXiv 2212.10650, the "
        "smallest files), as LyCORIS has them.",
        later=True,
    )
    lokr_factor: Whole | None = lora(
        None,
        "Sides of LoKr's smaller matrix, at most; null makes its two matrices as alike as they can be.",
        ge=1,
        le=1024,
        later=True,
    )
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
    tlora_min_rank: Whole | None = lora(
        None,
        "T-LoRA (arXiv 2507.05964), against overfitting on very few pictures: in training only so many ranks at the "
        "noisiest timestep, and all at the clearest; half of the rank is usual, null is plain LoRA.",
        ge=1,
        le=1023,
        later=True,
    )
    tlora_alpha: Number = lora(
        1.0, "Exponent of T-LoRA's ranks over timesteps; above 1 leaves fewer.", gt=0, le=10, later=True
    )
    use_rslora: bool = lora(False, "rsLoRA: scale by the square root of the rank (arXiv 2312.03732).")
    lora_weights: Text | None = lora(
        None,
        "Go on from this LoRA, a file of ours, kohya's or diffusers' or a run folder: its rank, alpha, layers and DoRA "
        "are taken from it.",
        later=True,
    )
    base_lora: Loras = lora(
        None,
        "LoRAs below the one that is trained, frozen in the base: FILE or FILE:SCALE, one or several.",
        later=True,
    )
    save_precision: Literal["fp32", "fp16", "bf16"] | None = lora(
        None,
        "Precision of the final LoRA files; null is fp16 for the one of ComfyUI and A1111, half as large, and fp32 for "
        "diffusers' one; checkpoints are fp32.",
        weights=False,
    )
