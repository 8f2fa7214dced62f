"""Settings of the group optimization: optimizer and course of the learning rate."""

from pydantic import BaseModel

from ..fields import MANY, Arguments, EncoderRates, Number, Optimizer, Rates, Schedule, Whole, optimization


class OptimizationSettings(BaseModel):
    """Optimizer and course of the learning rate; see each field's sentence."""

    optimizer: Optimizer = optimization(
        "adamw",
        "Optimizer: adamw, adamw8bit, paged_adamw8bit, adafactor, came and lion (less memory), muon (orthogonal "
        "steps), prodigy (finds its own step size, wants learning_rate 1), adamw_schedulefree, radam_schedulefree, "
        "prodigy_schedulefree (average instead of a schedule), or a class by its path, such as torch.optim.RAdam.",
    )
    optimizer_args: Arguments = optimization(
        None,
        "Arguments of the optimizer, NAME=VALUE each, such as d_coef=2 d0=1e-5; they go over the adam_ and prodigy_ "
        "settings.",
        later=True,
    )
    use_8bit_adam: bool = optimization(False, "8-bit AdamW from bitsandbytes; the same as optimizer adamw8bit.")
    learning_rate: Number = optimization(1e-4, "Learning rate after warm-up.", gt=0, le=10)
    unet_lr: Number | None = optimization(
        None, "Learning rate of the U-Net, 0 leaves it as it is; null is learning_rate.", ge=0, le=10, later=True
    )
    text_encoder_lr: EncoderRates = optimization(
        None,
        "Learning rate of the text encoders, one for both or one for each; null is learning_rate.",
        later=True,
    )
    train_text_encoder_frac: Number = optimization(
        1.0, "Share of the run after which the text encoders learn no more.", ge=0, le=1, later=True
    )
    lr_pattern: Rates = optimization(
        None,
        "Other learning rates for some layers: JSON of patterns as in rank_pattern, or of the blocks style and content "
        '(B-LoRA, arXiv 2403.14572), {"style": 1e-4, "content": 0}; the first that matches counts.',
        later=True,
    )
    loraplus_lr_ratio: Number | None = optimization(
        None,
        "LoRA+ (arXiv 2402.12354): the up matrices learn so many times faster, 16 for example.",
        gt=0,
        le=1000,
        later=True,
    )
    scale_lr: bool = optimization(False, "Multiply the learning rate by processes, accumulation and batch size.")
    lr_scheduler: Schedule = optimization("constant", "Course of the learning rate, counted in optimizer steps.")
    lr_warmup_steps: Whole = optimization(
        500, "Optimizer steps of warm-up, for every lr_scheduler but constant.", ge=0, le=MANY
    )
    lr_warmup_ratio: Number | None = optimization(
        None, "Warm-up as a share of the run, instead of lr_warmup_steps.", ge=0, lt=1, later=True
    )
    lr_num_cycles: Whole = optimization(
        1, "How often lr_scheduler cosine_with_restarts goes down.", ge=1, le=10_000, later=True
    )
    lr_power: Number = optimization(1.0, "Power of lr_scheduler polynomial.", gt=0, le=100, later=True)
    lr_min_ratio: Number = optimization(
        0.0,
        "What is left of the learning rate at the end of the run, as a share of it; polynomial ends at 1e-7 without.",
        ge=0,
        le=1,
        later=True,
    )
    lr_decay_ratio: Number = optimization(
        0.1, "Share of the run in which lr_scheduler warmup_stable_decay goes down.", ge=0, le=1, later=True
    )
    adam_beta1: Number = optimization(0.9, "Decay of AdamW's first moment.", ge=0, lt=1)
    adam_beta2: Number = optimization(0.999, "Decay of AdamW's second moment.", ge=0, lt=1)
    adam_weight_decay: Number = optimization(1e-2, "AdamW's weight decay.", ge=0)
    adam_weight_decay_text_encoder: Number | None = optimization(
        None, "Weight decay of the text encoders; null is adam_weight_decay.", ge=0, later=True
    )
    adam_epsilon: Number = optimization(1e-8, "AdamW's epsilon.", gt=0)
    prodigy_beta3: Number | None = optimization(
        None, "Decay of Prodigy's estimate of the step size; null is the root of adam_beta2.", ge=0, lt=1
    )
    prodigy_decouple: bool = optimization(True, "Prodigy decays weights as AdamW does.")
    prodigy_use_bias_correction: bool = optimization(True, "Prodigy corrects Adam's bias towards zero.")
    prodigy_safeguard_warmup: bool = optimization(
        True, "Prodigy's estimate of the step size leaves the warm-up of the learning rate out."
    )
    scale_weight_norms: Number | None = optimization(
        None,
        "Largest norm of a layer's change of its weight; after each step larger ones are scaled down to it, 1 is "
        "usual.",
        gt=0,
        later=True,
    )
    max_grad_norm: Number = optimization(
        1.0, "Largest norm of the gradients; larger ones are scaled down, with 0 never.", ge=0
    )
